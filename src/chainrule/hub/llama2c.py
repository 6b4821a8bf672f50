"""llama2.c's ``.bin``, in two versions: every weight as float32, or in int8 with a scale for each group of weights.

    v0   seven int32 (dim, hidden_dim, layers, heads, kv_heads, vocab_size, seq_len), then float32 weights in a fixed order;
         a negative vocab_size says that the readout is a matrix of its own
    v2   "24ka", 2, the seven numbers, a byte (1: tied), the group size, zeros up to byte 256; the norms in float32; then of
         each matrix the int8 numbers and the float32 scales, w ≈ scale · q with scale = max |w| / 127

Rope pairs neighbouring channels there, halves here, so the rows of q and k are permuted (karpathy/llama2.c, export.py, runq.c).
"""

import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from chainrule.core.errors import CheckpointError
from chainrule.core.files import whole_file
from chainrule.core.schema import dump
from chainrule.core.shapes import Tensor
from chainrule.hub.difference import difference
from chainrule.hub.safetensors import mapped
from chainrule.hub.stored import Stored, in_memory
from chainrule.layers.attention import GroupedQuery
from chainrule.layers.mlp import Gated
from chainrule.layers.norm import RMSNorm
from chainrule.models.decoder import Decoder, DecoderConfig
from chainrule.models.moves import Drop, Move, Permute

MAGIC, HEADER, NUMBERS = b"24ka", 256, 28
GROUP = 64
LAYER = {
    "input_layernorm.weight": "d", "self_attn.q_proj.weight": "d d", "self_attn.k_proj.weight": "g d",
    "self_attn.v_proj.weight": "g d", "self_attn.o_proj.weight": "d d", "post_attention_layernorm.weight": "d",
    "mlp.gate_proj.weight": "f d", "mlp.down_proj.weight": "d f", "mlp.up_proj.weight": "f d",
}  # fmt: skip
"""A layer's tensors in the order of the file, and their shapes."""
ANGLES = "freq_cis"
"""llama2.c's name for rope's cosines and sines, which we compute."""
ELSE = "export it as GGUF, to='gguf' (--to gguf)"
"""What to do about a model that llama2.c cannot run."""


@dataclass(frozen=True)
class Plan:
    """The seven numbers of a header, and whether the readout is the embedding table."""

    d: int
    f: int
    n: int
    h: int
    g: int
    v: int
    t: int
    tied: bool

    @property
    def config(self) -> DecoderConfig:
        """The decoder that they mean; what they do not say (θ = 10000, ε = 1e-5, SiLU) llama2.c takes for granted."""
        return DecoderConfig.uniform(
            n_layers=self.n, d_model=self.d, n_heads=self.h, n_kv_heads=self.g, d_ff=self.f, vocab_size=self.v,
            context=self.t, tied=self.tied, norm=RMSNorm(eps=1e-5),
        )  # fmt: skip

    @property
    def heads(self) -> Permute:
        """The move between rope's two ways of pairing channels."""
        return Permute([(r"q_proj\.weight$", self.h), (r"k_proj\.weight$", self.g)])

    @property
    def moves(self) -> tuple[Move, ...]:
        """From the file's tensors to ours, whose names they have already."""
        return Drop(f"^{ANGLES}$"), self.heads

    def shape(self, letters: str) -> tuple[int, ...]:
        """Letters as numbers: g is the width of keys."""
        sizes = {"d": self.d, "f": self.f, "v": self.v, "g": self.d // self.h * self.g}
        return tuple(sizes[letter] for letter in letters.split())

    def numbers(self, vocab: int) -> bytes:
        """The header's seven numbers."""
        return struct.pack("<7i", self.d, self.f, self.n, self.h, self.g, vocab, self.t)


def read_llama2c(path: Path) -> tuple[Plan, dict[str, Stored]]:
    """(the header, every tensor, not yet read); raises ``CheckpointError`` where the file's size does not fit its header."""
    if (size := path.stat().st_size) < NUMBERS:
        raise CheckpointError(f"{path} is {size} bytes long, too short for a llama2.c header; copy it again")
    data = mapped(path)
    return _read_v2(data, path) if data[:4] == MAGIC else _read_v0(data, path)


def write_llama2c(model: Decoder, path: Path, version: int) -> None:
    """Write a model as version 0 or 2; raises ``CheckpointError`` where llama2.c takes something else for granted."""
    plan = _plan_of(model)
    tensors = plan.heads.save({name: tensor.detach().cpu().float() for name, tensor in model.state_dict().items()})
    with whole_file(path) as aside, aside.open("wb") as file:
        for part in _parts_v0(plan, tensors) if version == 0 else _parts_v2(plan, tensors):
            file.write(part)


def _plan(numbers: tuple[int, ...], tied: bool, path: Path) -> Plan:
    d, f, n, h, g, v, t = numbers
    if min(numbers) < 1 or max(d, f, v, t) > 2**24 or n > 1000 or d % h or h % g:
        raise CheckpointError(
            f"{path} is no llama2.c file of version 0 or 2: its header reads {numbers}; copy it again, or give another file"
        )
    return Plan(d, f, n, h, g, v, t, tied)


def _plan_of(model: Decoder) -> Plan:
    """The header of a model, if llama2.c can run it at all."""
    config, block = model.config, model.config.blocks[0]
    if not isinstance(block.attention, GroupedQuery) or not isinstance(block.mlp, Gated):
        raise CheckpointError(f"llama2.c cannot run this model: it has grouped-query attention and gated mlps alone; {ELSE}")
    plan = Plan(
        config.d_model, block.mlp.d_ff, len(config.blocks), block.attention.n_heads, block.attention.n_kv_heads,
        config.vocab_size, config.context, config.tied,
    )  # fmt: skip
    if config.d_model % plan.h:
        raise CheckpointError(
            f"llama2.c cannot run this model: its width {plan.d} is no multiple of its {plan.h} heads; {ELSE}"
        )
    if found := difference(dump(config), dump(plan.config)):
        place, ours, theirs = found
        raise CheckpointError(f"llama2.c cannot run this model: {place} is {ours!r}, and there it is always {theirs!r}; {ELSE}")
    return plan


def _check(data: mmap.mmap, wanted: int, path: Path) -> None:
    if len(data) != wanted:
        raise CheckpointError(f"{path} is {len(data):,} bytes long, but its header asks for {wanted:,}; copy it again")


# version 0: everything in float32, layer upon layer


def _order(plan: Plan) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(our name, shape) of every tensor of a version 0 file."""
    yield "embed_tokens.weight", plan.shape("v d")
    for name, letters in LAYER.items():
        yield from ((f"layers.{i}.{name}", plan.shape(letters)) for i in range(plan.n))
    yield "norm.weight", plan.shape("d")
    yield ANGLES, (2 * plan.t, plan.d // plan.h // 2)
    if not plan.tied:
        yield "lm_head.weight", plan.shape("v d")


def _read_v0(data: mmap.mmap, path: Path) -> tuple[Plan, dict[str, Stored]]:
    numbers = struct.unpack_from("<7i", data)
    plan = _plan((*numbers[:5], abs(numbers[5]), numbers[6]), numbers[5] > 0, path)
    order = list(_order(plan))
    _check(data, NUMBERS + 4 * sum(math.prod(shape) for _, shape in order), path)
    flat = torch.frombuffer(data, dtype=torch.float32, offset=NUMBERS)
    tensors, at = {}, 0
    for name, shape in order:
        tensors[name] = flat[at : at + math.prod(shape)].view(shape)
        at += math.prod(shape)
    return plan, in_memory(path, tensors)


def _parts_v0(plan: Plan, tensors: dict[str, Tensor]) -> Iterator[bytes]:
    yield plan.numbers(plan.v if plan.tied else -plan.v)
    for name, _ in _order(plan):
        yield (_angles(plan) if name == ANGLES else tensors[name]).contiguous().numpy().tobytes()


def _angles(plan: Plan) -> Tensor:
    """Rope's cosines, then its sines: ``2t c/2``."""
    c = plan.d // plan.h
    angle = torch.arange(plan.t)[:, None] / 10000.0 ** (torch.arange(0, c, 2).float() / c)
    return torch.cat([angle.cos(), angle.sin()])


# version 2: norms in float32, then matrices in int8


def _orders_v2(plan: Plan) -> tuple[list[tuple[str, tuple[int, ...]]], list[tuple[str, tuple[int, ...]]]]:
    """The norms, then the matrices."""
    order = [one for one in _order(plan) if one[0] != ANGLES]
    norms = [one for one in order if len(one[1]) == 1]
    return norms, [one for one in order if len(one[1]) == 2]


def _read_v2(data: mmap.mmap, path: Path) -> tuple[Plan, dict[str, Stored]]:
    if len(data) < HEADER:
        raise CheckpointError(f"{path} is {len(data)} bytes long, too short for a llama2.c header of version 2; copy it again")
    version, *rest = struct.unpack_from("<i7i", data, 4)
    tied, group = struct.unpack_from("<Bi", data, 36)
    if version != 2:
        raise CheckpointError(f"{path} is a llama2.c file of version {version}; only 0 (float32) and 2 (int8) can be read")
    plan = _plan(tuple(rest), bool(tied), path)
    norms, matrices = _orders_v2(plan)
    if group < 1 or any(math.prod(shape) % group for _, shape in matrices):
        raise CheckpointError(f"{path} has groups of {group} weights, which do not fit its matrices; copy it again")
    sizes = [math.prod(shape) for _, shape in matrices]
    _check(data, HEADER + 4 * plan.d * len(norms) + sum(size + size // group * 4 for size in sizes), path)
    tensors, at = {}, HEADER
    for name, shape in norms:
        tensors[name] = torch.frombuffer(data, dtype=torch.float32, count=shape[0], offset=at)
        at += 4 * shape[0]
    stored = in_memory(path, tensors)
    for (name, shape), size in zip(matrices, sizes, strict=True):
        size_bytes = size + size // group * 4
        read = partial(_scaled, data, at, shape, group)
        stored[name] = Stored(path, torch.float32, shape, read, block="int8", block_bytes=size_bytes)
        at += size_bytes
    return plan, stored


def _scaled(data: mmap.mmap, at: int, shape: tuple[int, ...], group: int) -> Tensor:
    """The int8 numbers at a place, each times the scale of its group; the scales follow them."""
    size = math.prod(shape)
    q = torch.frombuffer(data, dtype=torch.int8, count=size, offset=at).view(-1, group)
    raw = torch.frombuffer(data, dtype=torch.uint8, count=size // group * 4, offset=at + size)
    scale = raw.clone().view(torch.float32)  # a copy, since they may begin at any byte
    return q.float().mul_(scale[:, None]).view(shape)


def _parts_v2(plan: Plan, tensors: dict[str, Tensor]) -> Iterator[bytes]:
    group = GROUP
    while plan.d % group or plan.f % group:  # runq.c multiplies rows of whole groups
        group //= 2
    norms, matrices = _orders_v2(plan)
    head = MAGIC + struct.pack("<i", 2) + plan.numbers(plan.v) + struct.pack("<Bi", plan.tied, group)
    yield head + b"\0" * (HEADER - len(head))
    yield from (tensors[name].numpy().tobytes() for name, _ in norms)
    for name, _ in matrices:
        q, scale = quantize(tensors[name], group)
        yield q.numpy().tobytes() + scale.numpy().tobytes()


def quantize(w: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """(q, scale) with w ≈ scale · q, q int8 in −127 … 127, one scale for ``group`` neighbouring weights.

    >>> quantize(torch.tensor([[0.5, -1.27, 0.0, 0.127]]), 2)
    (tensor([[  50, -127],
            [   0,  127]], dtype=torch.int8), tensor([0.0100, 0.0010]))
    """
    rows = w.reshape(-1, group)
    scale = rows.abs().amax(dim=1) / 127
    q = torch.where(scale[:, None] > 0, rows / scale[:, None], 0).round().to(torch.int8)
    return q, scale
