"""Memory: what training and inference hold at once, in bytes a device.

    training    weights + gradients + optimizer + activations
    inference   weights + cache of keys and values + what one block holds at work

Four bits (``adapt.int4``) and GGUF's Q8_0 hold every matrix but tables; what they do not hold is bf16.
AdamW remembers two numbers a parameter, Muon one a matrix, both in the weights' format. In mixed precision weights,
gradients and optimizer stay fp32, and the forward pass keeps a narrow copy of every matrix. LoRA (Hu et al. 2021,
arXiv:2106.09685) trains r · (d_in + d_out) numbers a matrix beside frozen weights; QLoRA (Dettmers et al. 2023,
arXiv:2305.14314) freezes them in 4 bits. Gradients grow while activations go, so a step made of one batch peaks at the larger
of the two; where gradients are gathered over several batches or ranks they are there all the time, and the sum counts. ZeRO
(Rajbhandari et al. 2019, arXiv:1910.02054) splits, over the ranks, 1: the optimizer, 2: the gradients too, 3: the weights too.
Tensor parallelism splits matrices, the scores of words and, with the sequence split between them, activations. Keys and values
it splits by heads: where these are fewer than the devices some hold the same, and a latent cache is whole on all. What ZeRO-3
gathers at once is one device's part of a block, or of a larger table.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from chainrule.adapt import int4
from chainrule.core.errors import ConfigError, nearest
from chainrule.eval.activations import WIDTHS, Adapters, kept_bytes, loss_bytes, working_bytes
from chainrule.eval.anatomy import Anatomy, Matrix, Parts

BYTES = {"fp32": 4.0, "bf16": 2.0, "fp16": 2.0, "int8": 34 / 32, "int4": int4.BYTES}
"""Bytes of a stored weight; int8 comes in blocks of 32 with a scale in two bytes (GGUF's Q8_0)."""
STORED = {"fp32": "fp32", "mixed": "fp32", "fp16": "fp32", "bf16": "bf16"}
"""The format of the weights by precision of training."""
STATES = {"adamw": 2, "muon": 1, "sgd": 0}
"""Numbers that an optimizer remembers of each parameter of a matrix inside the model."""
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

Precision = Literal["fp32", "mixed", "bf16", "fp16"]
Method = Literal["full", "lora", "qlora"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a model is trained or used: rows of ``length`` tokens at once, on ``ranks`` × ``tensor`` devices.

    A training step sums the gradients of ``micro_batches`` such batches.
    """

    rows: int = 1
    length: int = 2048
    precision: Precision = "mixed"
    method: Method = "full"
    optimizer: Literal["adamw", "muon", "sgd"] = "adamw"
    rank: int = 16
    targets: tuple[str, ...] = TARGETS
    checkpointing: bool = False
    micro_batches: int = 1
    ranks: int = 1
    zero: int = 0
    tensor: int = 1

    def __post_init__(self) -> None:
        for name in ("rows", "length", "micro_batches", "rank", "ranks", "tensor"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be 1 or more")
        if self.zero not in (0, 1, 2, 3):
            raise ConfigError(f"zero={self.zero}; the stages of ZeRO are 1, 2 and 3, and 0 is none")
        if self.zero and self.ranks == 1:
            raise ConfigError(f"zero={self.zero} splits over ranks, and there is 1; give ranks=2 or more")
        if self.method != "full" and self.precision != "bf16":
            raise ConfigError(f"precision={self.precision!r}: method={self.method!r} freezes 16 or 4 bits, so take 'bf16'")

    @property
    def tokens(self) -> int:
        """Tokens that one rank computes at once."""
        return self.rows * self.length

    @property
    def step_tokens(self) -> int:
        """Tokens of one rank's training step."""
        return self.micro_batches * self.tokens

    @property
    def stored(self) -> str:
        """The format of the model's own weights, learned or frozen."""
        return {"lora": "bf16", "qlora": "int4"}.get(self.method, STORED[self.precision])

    @property
    def adapters(self) -> Adapters | None:
        """What learns beside frozen weights; None where these learn."""
        return None if self.method == "full" else Adapters(self.rank, self.targets)


@dataclass(frozen=True)
class Memory:
    """Bytes on one device. ``peak`` is what they come to at the worst moment."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    cache: float
    peak: float


@dataclass(frozen=True)
class Held:
    """What is held on one device whatever the rows are, of a model of which no more is known."""

    weights: float
    gradients: float
    optimizer: float
    activations: None = None
    cache: None = None
    peak: None = None


def held_bytes(parts: Parts, setting: Setting) -> tuple[float, float, float]:
    """Weights, gradients and optimizer on one device: what training holds whatever the rows are."""
    check_targets(parts, setting)
    tensor, weights = setting.tensor, weight_bytes(parts, setting)
    if setting.method == "full":
        total, inner = shard(parts, tensor), shard(parts, tensor, parts.inside)
        states = inner * STATES[setting.optimizer] + (total - inner) * (2 if STATES[setting.optimizer] else 0)
        gradients, optimizer = (BYTES[setting.stored] * count for count in (total, states))
    else:
        learned = adapter_parameters(parts, setting) / tensor
        gradients, optimizer = 4.0 * learned, 4.0 * STATES[setting.optimizer] * learned
    if setting.zero == 3:
        weights = weights / setting.ranks + gathered_bytes(parts, setting)
    return weights, gradients / _split(setting, 2), optimizer / _split(setting, 1)


def gathered_bytes(parts: Parts, setting: Setting) -> float:
    """What ZeRO-3 brings together at once on one of the devices that share it: a block, or a table or head that is larger."""
    blocks = len({matrix.layer for matrix in parts.inside})
    block = weight_bytes(parts, setting, parts.inside) / max(blocks, 1)
    table = parts.table * max(BYTES[setting.stored], 2.0) / setting.tensor
    heads = [stored_bytes(parts, setting.stored, setting.tensor, [m]) for m in parts.matrices if m.part == "head"]
    return max(block, table, *heads)


def weight_bytes(parts: Parts, setting: Setting, matrices: Sequence[Matrix] | None = None) -> float:
    """Weights in training, adapters too, on one of the devices that share them: all, or those of some matrices inside."""
    own = stored_bytes(parts, setting.stored, setting.tensor, matrices)
    return own if setting.method == "full" else own + 4.0 * adapter_parameters(parts, setting) / setting.tensor


def training_memory(anatomy: Anatomy, setting: Setting) -> Memory:
    """The memory of a training step."""
    weights, gradients, optimizer = held_bytes(anatomy, setting)
    widths = WIDTHS[setting.precision]
    copied = shard(anatomy, setting.tensor, anatomy.inside) if widths.mixed and setting.method == "full" else 0.0
    copies = 2.0 * copied / _split(setting, 3)
    kept = setting.tokens * kept_bytes(
        anatomy,
        setting.length,
        widths,
        checkpointing=setting.checkpointing,
        adapters=setting.adapters,
        tensor=setting.tensor,
    )
    scores = loss_bytes(math.ceil(anatomy.vocab_size / setting.tensor), setting.tokens, widths)
    activations, workspace = kept + scores + copies, _workspace(anatomy, setting)
    together = setting.micro_batches > 1 or setting.ranks > 1
    worst = gradients + max(activations, workspace) if together else max(gradients + workspace, activations)
    return Memory(weights, gradients, optimizer, activations, 0.0, weights + optimizer + worst)


def inference_memory(anatomy: Anatomy, setting: Setting, format: str) -> Memory:
    """The memory of ``rows`` rows that have grown to ``length`` tokens, weights stored in ``format``."""
    if format not in BYTES:
        raise ConfigError(f"unknown format of weights {format!r}{nearest(format, BYTES)}")
    width = width_of(format)
    weights = stored_bytes(anatomy, format, setting.tensor)
    cache = setting.rows * cache_bytes(anatomy, setting.length, width, setting.tensor)
    scores = setting.rows * anatomy.vocab_size * 4.0  # gathered from all devices, to draw from them
    work = setting.tokens * working_bytes(anatomy, width, setting.tensor) + scores
    return Memory(weights, 0.0, 0.0, work, cache, weights + cache + work)


def width_of(format: str) -> float:
    """Bytes of a number that is no weight, by the weights' format: whole numbers are widened before they multiply."""
    return 4.0 if format == "fp32" else 2.0


def cache_bytes(anatomy: Anatomy, length: int, width: float, tensor: int = 1) -> float:
    """Keys and values of one row of ``length`` tokens on one of ``tensor`` devices.

    As the engine keeps them: whole rows, whatever a layer's window.
    """
    return width * length * sum(attention.on(tensor).memory for attention in anatomy.attentions)


def stored_bytes(parts: Parts, format: str, tensor: int = 1, matrices: Sequence[Matrix] | None = None) -> float:
    """Bytes of weights on one of ``tensor`` devices, of all or of some matrices."""
    total = shard(parts, tensor, matrices)
    if BYTES[format] >= 2:
        return total * BYTES[format]
    packed = shard(parts, tensor, [m for m in (parts.matrices if matrices is None else matrices) if m.packs])
    return packed * BYTES[format] + (total - packed) * 2.0


def shard(parts: Parts, tensor: int, matrices: Iterable[Matrix] | None = None) -> float:
    """Parameters on one of ``tensor`` devices, of all or of some matrices: matrices and tables are split, norms are not."""
    if matrices is not None:
        return sum(matrix.on(tensor) for matrix in matrices)
    whole = parts.parameters.get("norms", 0)
    inside = shard(parts, tensor, parts.inside)
    return whole + inside + (parts.total - whole - parts.inner) / tensor


def adapter_parameters(parts: Parts, setting: Setting) -> float:
    """What LoRA learns, on all devices together: r · (d_in + d_out) of every targeted matrix, of every expert."""
    targeted = Adapters(setting.rank, setting.targets).beside(parts.inside)
    return float(sum(m.stacked * setting.rank * (m.d_in + m.d_out) for m in targeted))


def check_targets(parts: Parts, setting: Setting) -> None:
    """Raises ``ConfigError`` for a target of LoRA that the model does not have."""
    known = {matrix.name for matrix in parts.inside}
    strange = [] if setting.targets == TARGETS else [target for target in setting.targets if target not in known]
    if strange:
        raise ConfigError(f"{parts.name} has no matrix {strange[0]!r}{nearest(strange[0], known)}")


def _split(setting: Setting, stage: int) -> int:
    """Over how many ranks ZeRO splits what it splits from that stage on."""
    return setting.ranks if setting.zero >= stage else 1


def _workspace(anatomy: Anatomy, setting: Setting) -> float:
    """What the optimizer needs while it steps: Muon stacks the gradients of equal matrices and iterates on them.

    Devices that share matrices share this work, and so do the ranks where ZeRO splits the optimizer.
    """
    if setting.optimizer != "muon" or setting.method != "full":
        return 0.0
    shapes: dict[tuple[int, int, int], float] = {}
    for m in anatomy.inside:  # the experts of a layer are one tensor, and a matrix each to Muon
        shape = m.stacked, m.d_out, m.d_in
        shapes[shape] = shapes.get(shape, 0.0) + m.on(setting.tensor)
    width = WIDTHS[setting.precision].product
    return max((count * (4 + 3 * width) for count in shapes.values()), default=0.0) / _split(setting, 1)
