"""llama2.c's ``.bin`` (version 0): a header of seven integers, then every weight as float32 in a fixed order.

    dim, hidden_dim, n_layers, n_heads, n_kv_heads, vocab_size, seq_len    int32, little-endian; a negative vocab_size: untied

Rope pairs neighbouring channels there, halves here, so the rows of q and k are permuted (karpathy/llama2.c, export.py).
"""

import struct
from pathlib import Path

import numpy as np
import torch

from chainrule.core.errors import CheckpointError
from chainrule.core.shapes import Tensor
from chainrule.layers.norm import RMSNorm
from chainrule.models.decoder import Decoder, DecoderConfig
from chainrule.models.moves import Permute


def read_llama2c(path: Path) -> Decoder:
    """The model in a llama2.c file; raises ``CheckpointError`` where its size does not fit its header."""
    data = path.read_bytes()
    if len(data) < 28:
        raise CheckpointError(f"{path} is {len(data)} bytes long, too short for a llama2.c header")
    d, f, n, h, g, v, t = struct.unpack("<7i", data[:28])
    tied, v = v > 0, abs(v)
    if min(d, f, n, h, g, v, t) < 1 or max(d, f, v, t) > 2**24 or n > 1000 or d % h or h % g:
        raise CheckpointError(f"{path} is no llama2.c file of version 0: its header reads {(d, f, n, h, g, v, t)}")
    config = DecoderConfig.uniform(
        n_layers=n,
        d_model=d,
        n_heads=h,
        n_kv_heads=g,
        d_ff=f,
        vocab_size=v,
        context=t,
        tied=tied,
        norm=RMSNorm(eps=1e-5),
    )
    order = _order(d, f, n, d // h * g, v, t * (d // h) // 2, tied)
    floats = sum(int(np.prod(shape)) for _, shape in order)
    if len(data) != 28 + 4 * floats:
        raise CheckpointError(f"{path} is {len(data):,} bytes long, but its header asks for {28 + 4 * floats:,}; copy it again")
    flat = torch.from_numpy(np.frombuffer(data, np.float32, offset=28).copy())
    tensors: dict[str, Tensor] = {}
    at = 0
    for name, shape in order:
        size = int(np.prod(shape))
        if "{i}" in name:
            each = flat[at : at + size].view(shape)
            tensors |= {name.format(i=i): each[i].clone() for i in range(n)}
        elif name:
            tensors[name] = flat[at : at + size].view(shape).clone()
        at += size
    model = Decoder(config)
    heads = Permute([(r"q_proj\.weight$", h), (r"k_proj\.weight$", g)])
    model.load_state_dict(heads.load(tensors))
    return model


def _order(d: int, f: int, n: int, kv: int, v: int, angles: int, tied: bool) -> list[tuple[str, tuple[int, ...]]]:
    """(our name, shape) of every block of weights in the file; ``{i}`` runs over the layers, "" is not ours."""
    layer = "layers.{i}."
    order: list[tuple[str, tuple[int, ...]]] = [
        ("embed_tokens.weight", (v, d)),
        (layer + "input_layernorm.weight", (n, d)),
        (layer + "self_attn.q_proj.weight", (n, d, d)),
        (layer + "self_attn.k_proj.weight", (n, kv, d)),
        (layer + "self_attn.v_proj.weight", (n, kv, d)),
        (layer + "self_attn.o_proj.weight", (n, d, d)),
        (layer + "post_attention_layernorm.weight", (n, d)),
        (layer + "mlp.gate_proj.weight", (n, f, d)),
        (layer + "mlp.down_proj.weight", (n, d, f)),
        (layer + "mlp.up_proj.weight", (n, f, d)),
        ("norm.weight", (d,)),
        ("", (2 * angles,)),  # the cosines and sines of rope, which we compute
    ]
    return order if tied else [*order, ("lm_head.weight", (v, d))]
