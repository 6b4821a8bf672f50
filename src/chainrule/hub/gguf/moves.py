"""The moves between a GGUF file's tensors and those that a publisher's files hold: other names, and now and then other numbers.

Read forwards they lead from the file to what was published, backwards from there into a file.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from chainrule.core.errors import CheckpointError, nearest
from chainrule.models.moves import Tensors

ENDS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


@dataclass(frozen=True)
class Names:
    """The names themselves. ``blocks`` holds those of a layer, ``ends`` those before and after the layers.

    A name stands for its weight and its bias; one with a dot in it (``exp_probs_b.bias``) for that tensor alone.
    """

    blocks: Mapping[str, str]
    ends: Mapping[str, str] = field(default_factory=lambda: ENDS)
    prefix: str = "model.layers."

    def load(self, tensors: Tensors) -> Tensors:
        return {self.published(name): tensor for name, tensor in tensors.items()}

    def save(self, tensors: Tensors) -> Tensors:
        return {self.stored(name): tensor for name, tensor in tensors.items()}

    def published(self, name: str) -> str:
        """The publisher's name of a tensor of a GGUF file."""
        if block := re.fullmatch(r"blk\.(\d+)\.(.+)", name):
            return f"{self.prefix}{block[1]}.{_translated(self.blocks, block[2], name)}"
        return _translated(self.ends, name, name)

    def stored(self, name: str) -> str:
        """GGUF's name of a published tensor."""
        if layer := re.fullmatch(re.escape(self.prefix) + r"(\d+)\.(.+)", name):
            return f"blk.{layer[1]}.{_translated(_inverse(self.blocks), layer[2], name)}"
        return _translated(_inverse(self.ends), name, name)


def _translated(table: Mapping[str, str], word: str, name: str) -> str:
    if word in table:
        return table[word]
    stem, _, kind = word.rpartition(".")
    if stem not in table or kind not in ("weight", "bias"):
        raise CheckpointError(f"the tensor {name!r} has no place in this architecture{nearest(stem, table)}")
    return f"{table[stem]}.{kind}"


def _inverse(table: Mapping[str, str]) -> dict[str, str]:
    return {published: stored for stored, published in table.items()}


@dataclass(frozen=True)
class Shift:
    """Numbers that are stored with ``by`` added."""

    pattern: str
    by: float

    def load(self, tensors: Tensors) -> Tensors:
        return {name: t - self.by if re.search(self.pattern, name) else t for name, t in tensors.items()}

    def save(self, tensors: Tensors) -> Tensors:
        return {name: t + self.by if re.search(self.pattern, name) else t for name, t in tensors.items()}


@dataclass(frozen=True)
class LatentHeads:
    """Latent attention's matrix from the latent to keys and values, head by head in two tensors: keys ``h rank nope``, the
    other way round, since llama.cpp multiplies queries by them; values ``h value rank``. Published: ``h·(nope + value) rank``.
    """

    n_heads: int
    d_nope: int
    keys: str = "self_attn.k_b_proj.weight"
    values: str = "self_attn.v_b_proj.weight"
    both: str = "self_attn.kv_b_proj.weight"

    def load(self, tensors: Tensors) -> Tensors:
        out: Tensors = {}
        for name, tensor in tensors.items():
            stem = name.removesuffix(self.keys)
            if stem != name:
                out[stem + self.both] = torch.cat([tensor.mT, tensors[stem + self.values]], dim=1).flatten(0, 1)
            elif not name.endswith(self.values):
                out[name] = tensor
        return out

    def save(self, tensors: Tensors) -> Tensors:
        out: Tensors = {}
        for name, tensor in tensors.items():
            stem = name.removesuffix(self.both)
            if stem == name:
                out[name] = tensor
                continue
            heads = tensor.unflatten(0, (self.n_heads, -1))
            out[stem + self.keys] = heads[:, : self.d_nope].mT.contiguous()
            out[stem + self.values] = heads[:, self.d_nope :].contiguous()
        return out
