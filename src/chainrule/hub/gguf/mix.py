"""Which format each tensor of a GGUF file gets: one for most, more bits where errors hurt most, as llama.cpp mixes them.

    q4_k_m   Q4_K; Q6_K for the readout, and for v and ffn_down in the first and last eighth of the layers and every third
             of those between

Tensors of one dimension, norms, routers and tables of positions stay float32. A row that is not whole blocks falls back: Q4_K
to Q5_0, Q5_K to Q5_1, Q6_K to Q8_0, and what is no multiple of 32 either to F16 (llama.cpp, llama-quant.cpp).
"""

import re
from collections.abc import Mapping

from chainrule.adapt.blocks import FORMATS
from chainrule.core.errors import ConfigError, nearest
from chainrule.hub.gguf.read import FLOATS

Shape = tuple[int, ...]
KINDS = {
    "f32": ("F32", 0), "f16": ("F16", 1), "bf16": ("BF16", 32), "q8_0": ("Q8_0", 7), "q4_0": ("Q4_0", 2),
    "q4_k_m": ("Q4_K", 15), "q6_k": ("Q6_K", 18),
}  # fmt: skip
"""What a file is called → (the format of most tensors, llama.cpp's number for the file)."""
ALIASES = {"q4_k": "q4_k_m"}
"""Names that llama.cpp takes for others: whoever asks for Q4_K gets its usual mix."""
FALLBACK = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


def file_type(kind: str) -> int:
    """llama.cpp's number for a kind of file; raises ``ConfigError`` naming the nearest kind."""
    if kind not in KINDS:
        raise ConfigError(f"kind={kind!r} (--type) is no type of GGUF file{nearest(kind, KINDS)} (all: {', '.join(KINDS)})")
    return KINDS[kind][1]


def mix(shapes: Mapping[str, Shape], kind: str, *, n_layers: int, n_experts: int = 0, seventy: bool = False) -> dict[str, str]:
    """The format of every tensor. ``seventy``: LLaMA 70B, whose v serves eight heads and is small, gets more bits there."""
    file_type(kind)
    most = KINDS[kind][0]
    tied = "output.weight" not in shapes
    return {
        name: _fitting(shape, _wanted(name, most, kind, n_layers, n_experts, tied, seventy))
        if _may_shrink(name, shape)
        else "F32"
        for name, shape in shapes.items()
    }


def _may_shrink(name: str, shape: Shape) -> bool:
    kept = "_norm." in name or "ffn_gate_inp." in name or name.startswith(("position_embd.", "rope_freqs."))
    return len(shape) > 1 and name.endswith(".weight") and not kept


def _wanted(name: str, most: str, kind: str, n_layers: int, n_experts: int, tied: bool, seventy: bool) -> str:
    """The format before it is known whether the rows fit."""
    if most in FLOATS:
        return most
    if name == "output.weight" or (tied and name == "token_embd.weight"):
        return "Q8_0" if most == "Q8_0" else "Q6_K"
    if kind != "q4_k_m" or (block := re.match(r"blk\.(\d+)\.(\w+)\.", name)) is None:
        return most
    layer, role = int(block[1]), block[2]
    if n_experts == 8 and role in ("attn_v", "attn_k", "attn_output"):
        return "Q5_K" if role == "attn_output" else "Q8_0"
    if role in ("attn_v", "attn_qkv", "attn_kv_b") or role.startswith("ffn_down"):
        more = "Q5_K" if seventy and role == "attn_v" else most
        return "Q6_K" if more_bits(layer, n_layers) else more
    return most


def more_bits(layer: int, n_layers: int) -> bool:
    """Whether a layer's v and ffn_down are worth more bits: the first and last eighth, and every third between.

    >>> [layer for layer in range(16) if more_bits(layer, 16)]
    [0, 1, 4, 7, 10, 13, 14, 15]
    """
    eighth = n_layers // 8
    return layer < eighth or layer >= 7 * n_layers // 8 or (layer - eighth) % 3 == 2


def _fitting(shape: Shape, name: str) -> str:
    if shape[-1] % FORMATS[name].weights == 0:
        return name
    name = FALLBACK.get(name, name)
    return name if shape[-1] % FORMATS[name].weights == 0 else "F16"
