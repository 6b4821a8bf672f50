"""llm.c's GPT-2 ``.bin``: 256 int32, then every parameter, one kind after the other over all layers.

    20240326, 3 (float32) or 5 (bfloat16), context, vocab_size, layers, heads, width, padded vocab_size

The embedding table is padded with zero rows to a multiple of 128; matrices are ``out in``, where GPT-2's publisher stores them
the other way round (karpathy/llm.c, train_gpt2.py). Read into the publisher's names and config; the family does the rest.
"""

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chainrule.core.errors import CheckpointError
from chainrule.core.files import whole_file
from chainrule.core.shapes import Tensor
from chainrule.hub.safetensors import mapped
from chainrule.models.families.gpt2 import spelled

MAGIC, HEADER = 20240326, 1024
VERSIONS = {3: torch.float32, 5: torch.bfloat16}
PADDED = 128
CHOICES = ("n_inner", "activation_function", "layer_norm_epsilon", "tie_word_embeddings", "scale_attn_by_inverse_layer_idx")
"""What elsewhere a GPT-2's config may choose, and llm.c may not."""
LAYER = {
    "ln_1.weight": "d", "ln_1.bias": "d", "attn.c_attn.weight": "3 d", "attn.c_attn.bias": "3",
    "attn.c_proj.weight": "d d", "attn.c_proj.bias": "d", "ln_2.weight": "d", "ln_2.bias": "d",
    "mlp.c_fc.weight": "4 d", "mlp.c_fc.bias": "4", "mlp.c_proj.weight": "d 4", "mlp.c_proj.bias": "d",
}  # fmt: skip
"""A layer's tensors in the order of the file, and their shapes: 3 and 4 stand for as many widths."""


@dataclass(frozen=True)
class Plan:
    """The header's numbers."""

    context: int
    vocab: int
    n: int
    heads: int
    d: int
    padded: int

    def shape(self, letters: str) -> tuple[int, ...]:
        """Letters as numbers."""
        sizes = {"d": self.d, "3": 3 * self.d, "4": 4 * self.d}
        return tuple(sizes[letter] for letter in letters.split())

    def order(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """(published name, shape in the file) of every tensor."""
        yield "transformer.wte.weight", (self.padded, self.d)
        yield "transformer.wpe.weight", (self.context, self.d)
        for name, letters in LAYER.items():
            yield from ((f"transformer.h.{i}.{name}", self.shape(letters)) for i in range(self.n))
        yield "transformer.ln_f.weight", (self.d,)
        yield "transformer.ln_f.bias", (self.d,)


def is_llmc(start: bytes) -> bool:
    """Whether a file that begins like this is llm.c's."""
    return start[:4] == struct.pack("<i", MAGIC)


def read_llmc(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config.json, tensors by published name, on the file's own pages); raises ``CheckpointError`` where it is damaged."""
    size = path.stat().st_size
    if size < HEADER:
        raise CheckpointError(f"{path} is {size} bytes long, too short for llm.c's header of {HEADER}")
    data = mapped(path)
    _, version, *numbers = struct.unpack_from("<8i", data)
    if version not in VERSIONS:
        raise CheckpointError(f"{path} is an llm.c file of version {version}; only 3 (float32) and 5 (bfloat16) can be read")
    plan, dtype = Plan(*numbers), VERSIONS[version]
    small = max(numbers) <= 2**24 and plan.n <= 1000
    if min(numbers) < 1 or not small or plan.d % plan.heads or plan.padded < plan.vocab:
        raise CheckpointError(f"{path} is no llm.c GPT-2: its header reads {tuple(numbers)}")
    order = list(plan.order())
    wanted = HEADER + dtype.itemsize * sum(math.prod(shape) for _, shape in order)
    if size != wanted:
        raise CheckpointError(f"{path} is {size:,} bytes long, but its header asks for {wanted:,}; copy it again")
    flat = torch.frombuffer(data, dtype=dtype, offset=HEADER)
    tensors, at = {}, 0
    for name, shape in order:
        tensors[name] = _turned(name, flat[at : at + math.prod(shape)].view(shape))
        at += math.prod(shape)
    tensors["transformer.wte.weight"] = tensors["transformer.wte.weight"][: plan.vocab]
    return _config(plan), tensors


def write_llmc(config: Mapping[str, Any], tensors: Mapping[str, Tensor], path: Path, dtype: torch.dtype) -> None:
    """Write GPT-2 from its published config and tensors; raises ``CheckpointError`` for what llm.c does not have."""
    if config.get("model_type") != "gpt2":
        raise CheckpointError(f"llm.c holds GPT-2 alone; this model is of type {config.get('model_type')!r}")
    config = spelled(config)
    d, vocab = config["n_embd"], config["vocab_size"]
    plan = Plan(config["n_positions"], vocab, config["n_layer"], config["n_head"], d, -(-vocab // PADDED) * PADDED)
    always = _config(plan)
    for key in CHOICES:
        if config.get(key) not in (None, always.get(key, False)):
            raise CheckpointError(
                f"llm.c cannot run this model: {key} is {config[key]!r}, and there it is always {always.get(key, False)!r}"
            )
    version = next(number for number, one in VERSIONS.items() if one == dtype)
    numbers = (plan.context, plan.vocab, plan.n, plan.heads, plan.d, plan.padded)
    with whole_file(path) as aside, aside.open("wb") as file:
        file.write(struct.pack("<8i", MAGIC, version, *numbers).ljust(HEADER, b"\0"))
        for name, shape in plan.order():
            file.write(_bytes(_padded(_turned(name, tensors[name]), shape[0]), dtype))


def _config(plan: Plan) -> dict[str, Any]:
    return {
        "model_type": "gpt2", "vocab_size": plan.vocab, "n_positions": plan.context, "n_embd": plan.d, "n_layer": plan.n,
        "n_head": plan.heads, "n_inner": 4 * plan.d, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
    }  # fmt: skip


def _turned(name: str, tensor: Tensor) -> Tensor:
    """The four matrices of a layer the other way round; embeddings and vectors as they are."""
    return tensor.mT if tensor.ndim == 2 and ".h." in name else tensor


def _padded(tensor: Tensor, rows: int) -> Tensor:
    """With zero rows to the wanted number, for the embedding table alone."""
    extra = rows - tensor.shape[0]
    return torch.cat([tensor, tensor.new_zeros(extra, *tensor.shape[1:])]) if extra else tensor


def _bytes(tensor: Tensor, dtype: torch.dtype) -> bytes:
    return tensor.detach().cpu().to(dtype).contiguous().view(torch.uint8).numpy().astype(np.uint8).tobytes()
