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
Tensor parallelism splits matrices and, with the sequence split between them, activations. Keys and values it splits by heads:
where these are fewer than the devices some hold the same, and a latent cache is whole on all.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from chainrule.adapt import int4
from chainrule.core.errors import ConfigError, nearest
from chainrule.eval.activations import WIDTHS, kept_bytes, loss_bytes, working_bytes
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
    """How a model is trained or used: rows of ``length`` tokens at once, on ``ranks`` × ``tensor`` devices."""

    rows: int = 1
    length: int = 2048
    precision: Precision = "mixed"
    method: Method = "full"
    optimizer: Literal["adamw", "muon", "sgd"] = "adamw"
    rank: int = 16
    targets: tuple[str, ...] = TARGETS
    checkpointing: bool = False
    accumulate: bool = False
    ranks: int = 1
    zero: int = 0
    tensor: int = 1

    def __post_init__(self) -> None:
        for name in ("rows", "length", "rank", "ranks", "tensor"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be 1 or more")
        if self.zero not in (0, 1, 2, 3):
            raise ConfigError(f"zero={self.zero}; the stages of ZeRO are 1, 2 and 3, and 0 is none")
        if self.zero and self.ranks == 1:
            raise ConfigError(f"zero={self.zero} splits over ranks, and there is 1; give ranks=2 or more")

    @property
    def tokens(self) -> int:
        """Tokens of one rank's batch."""
        return self.rows * self.length


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
    stored, tensor = STORED[setting.precision], setting.tensor
    if setting.method == "full":
        total, inner = shard(parts, tensor), shard(parts, tensor, parts.inside)
        states = inner * STATES[setting.optimizer] + (total - inner) * (2 if STATES[setting.optimizer] else 0)
        weights, gradients, optimizer = (BYTES[stored] * count for count in (total, total, states))
    else:
        base = stored_bytes(parts, "int4" if setting.method == "qlora" else "bf16", tensor)
        learned = adapter_parameters(parts, setting)
        weights, gradients, optimizer = base + 4.0 * learned, 4.0 * learned, 8.0 * learned
    if setting.zero == 3:  # one block at a time is gathered whole
        weights = weights / setting.ranks + BYTES[stored] * _block_parameters(parts)
    return weights, gradients / _split(setting, 2), optimizer / _split(setting, 1)


def training_memory(anatomy: Anatomy, setting: Setting) -> Memory:
    """The memory of a training step."""
    weights, gradients, optimizer = held_bytes(anatomy, setting)
    widths = WIDTHS[setting.precision]
    copied = shard(anatomy, setting.tensor, anatomy.inside) if widths.mixed and setting.method == "full" else 0.0
    copies = 2.0 * copied / _split(setting, 3)
    kept = setting.tokens * kept_bytes(anatomy, setting.length, widths, checkpointing=setting.checkpointing) / setting.tensor
    scores = loss_bytes(anatomy.vocab_size, setting.tokens, widths)
    activations = kept + scores + copies
    together = setting.accumulate or setting.ranks > 1
    worst = gradients + activations if together else max(gradients + _workspace(anatomy, setting), activations)
    return Memory(weights, gradients, optimizer, activations, 0.0, weights + optimizer + worst)


def inference_memory(anatomy: Anatomy, setting: Setting, format: str) -> Memory:
    """The memory of ``rows`` rows that have grown to ``length`` tokens, weights stored in ``format``."""
    if format not in BYTES:
        raise ConfigError(f"unknown format of weights {format!r}{nearest(format, BYTES)}")
    width = width_of(format)
    weights = stored_bytes(anatomy, format, setting.tensor)
    cache = setting.rows * cache_bytes(anatomy, setting.length, width, setting.tensor)
    work = setting.tokens * working_bytes(anatomy, width) / setting.tensor + setting.rows * anatomy.vocab_size * 4.0
    return Memory(weights, 0.0, 0.0, work, cache, weights + cache + work)


def width_of(format: str) -> float:
    """Bytes of a number that is no weight, by the weights' format: whole numbers are widened before they multiply."""
    return 4.0 if format == "fp32" else 2.0


def cache_bytes(anatomy: Anatomy, length: int, width: float, tensor: int = 1) -> float:
    """Keys and values of one row of ``length`` tokens on one of ``tensor`` devices.

    As the engine keeps them: whole rows, whatever a layer's window.
    """
    return width * length * sum(attention.on(tensor).memory for attention in anatomy.attentions)


def stored_bytes(parts: Parts, format: str, tensor: int = 1) -> float:
    """Bytes of all weights on one of ``tensor`` devices."""
    total = shard(parts, tensor)
    if BYTES[format] >= 2:
        return total * BYTES[format]
    packed = shard(parts, tensor, [matrix for matrix in parts.matrices if matrix.packs])
    return packed * BYTES[format] + (total - packed) * 2.0


def shard(parts: Parts, tensor: int, matrices: Iterable[Matrix] | None = None) -> float:
    """Parameters on one of ``tensor`` devices, of all or of some matrices: matrices and tables are split, norms are not."""
    if matrices is not None:
        return sum(matrix.on(tensor) for matrix in matrices)
    whole = parts.parameters.get("norms", 0)
    inside = shard(parts, tensor, parts.inside)
    return whole + inside + (parts.total - whole - parts.inner) / tensor


def adapter_parameters(parts: Parts, setting: Setting) -> float:
    """What LoRA learns: r · (d_in + d_out) of every targeted matrix, of every expert."""
    targeted = [m for m in parts.inside if m.name in setting.targets]
    return sum(m.stacked * setting.rank * (m.d_in + m.d_out) for m in targeted) / setting.tensor


def check_targets(parts: Parts, setting: Setting) -> None:
    """Raises ``ConfigError`` for a target of LoRA that the model does not have."""
    known = {matrix.name for matrix in parts.inside}
    strange = [] if setting.targets == TARGETS else [target for target in setting.targets if target not in known]
    if strange:
        raise ConfigError(f"{parts.name} has no matrix {strange[0]!r}{nearest(strange[0], known)}")


def _split(setting: Setting, stage: int) -> int:
    """Over how many ranks ZeRO splits what it splits from that stage on."""
    return setting.ranks if setting.zero >= stage else 1


def _block_parameters(parts: Parts) -> float:
    return parts.inner / max(len({matrix.layer for matrix in parts.inside}), 1)


def _workspace(anatomy: Anatomy, setting: Setting) -> float:
    """What the optimizer needs while it steps: Muon stacks the gradients of equal matrices and iterates on them."""
    if setting.optimizer != "muon" or setting.method != "full":
        return 0.0
    shapes: dict[tuple[int, int, int], int] = {}
    for m in anatomy.inside:  # the experts of a layer are one tensor, and a matrix each to Muon
        shape = m.stacked, m.d_out, m.d_in
        shapes[shape] = shapes.get(shape, 0) + m.stacked * m.d_out * m.d_in
    width = WIDTHS[setting.precision].product
    return max((count * (4 + 3 * width) for count in shapes.values()), default=0.0)
