"""Activations: what a forward pass keeps of every token, so that the backward pass can go back.

Bytes a token, by part, as PyTorch's autograd keeps them for the layers of this house. ``stream`` is the width of a number in
the residual stream, ``product`` in matrix products: 4 and 4 in fp32, 4 and 2 in mixed precision, 2 and 2 in pure bf16.

    norm        its input in float32, the normalised value, and what its readers take (a narrow copy each, if mixed)
    attention   q, k, v, the result, one float32 a head: a fused kernel keeps no scores
    mlp         gate, up, the bent gate, their product

Not counted: on a CPU, bf16 rows of up to 256 tokens attend in float32 (``layers.attention.slow_in_bf16``), and keep q, k, v and
the result twice as wide. A plan is asked about longer ones.

Korthikanti et al. 2022, arXiv:2205.05198, count the same for GPT-2's layers. With recomputation (``checkpointing``) only the
input of each block is kept, and one block at a time is computed again.

Frozen matrices and norms want no gradient, so what they multiplied is not kept. An adapter beside a matrix is float32: it keeps
its own float32 copy of what the matrix reads, and the r numbers between its two thin matrices.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chainrule.core.errors import ConfigError
from chainrule.eval.anatomy import READERS, Anatomy, Attention, Matrix, attention_of
from chainrule.logprobs.scoring import AT_ONCE, CHUNK, NARROWEST


@dataclass(frozen=True)
class Widths:
    """Bytes of a number in the residual stream and in matrix products."""

    stream: int
    product: int

    @property
    def mixed(self) -> bool:
        """Whether products are narrower than the stream, so that every reader of it makes a copy."""
        return self.product < self.stream


WIDTHS = {"fp32": Widths(4, 4), "mixed": Widths(4, 2), "fp16": Widths(4, 2), "bf16": Widths(2, 2)}
"""By precision of training; fp16 is autocast too, its weights stay fp32."""


@dataclass(frozen=True)
class Adapters:
    """Adapters of one rank beside the matrices of these names, everything else frozen."""

    rank: int
    targets: tuple[str, ...]

    def beside(self, matrices: Sequence[Matrix], layer: int | None = None) -> list[Matrix]:
        """The matrices that have an adapter: of one layer, or of all."""
        return [m for m in matrices if m.name in self.targets and layer in (None, m.layer)]


def block_bytes(block: Any, d_model: int, length: int, widths: Widths, *, frozen: bool = False, tensor: int = 1) -> float:
    """What one block keeps of a token in a row of ``length`` tokens, on one of ``tensor`` devices.

    Devices share heads, mlps and, in between, the tokens of the sequence. ``frozen``: the block learns nothing itself.
    """
    attention, mlp = block.attention, block.mlp
    if block.kind == "bare":  # nothing is added to the stream, so it is as narrow as what products give
        widths = Widths(widths.product, widths.product)
    shared = _mlp(mlp, d_model, widths, frozen)
    if not frozen:
        shared += d_model * (_taken(attention, widths) + _taken(mlp, widths))
    if block.kind != "output_norm":
        shared += 2 * d_model * _normed(block.norm.kind, widths.stream, frozen)
    if block.kind in ("sandwich", "output_norm"):
        shared += 2 * d_model * _normed(block.norm.kind, widths.product, frozen)
    return _attention(attention, length, widths, frozen, tensor) + shared / tensor


def adapter_bytes(adapters: Adapters, matrices: Sequence[Matrix], layer: int) -> float:
    """What a layer's adapters keep of a token: what each reads, and what it makes of it, in float32.

    >>> adapter_bytes(Adapters(2, ("q_proj",)), [Matrix("q_proj", "attention", 8, 4, layer=0)], 0)
    24.0
    """
    return sum(4.0 * m.active * (m.d_in + adapters.rank) for m in adapters.beside(matrices, layer))


def kept_bytes(
    anatomy: Anatomy,
    length: int,
    widths: Widths,
    *,
    checkpointing: bool = False,
    adapters: Adapters | None = None,
    tensor: int = 1,
) -> float:
    """What all blocks and the last norm keep of a token on one of ``tensor`` devices; scores of words come on top.

    ``adapters``: what learns where everything else is frozen. Scores: ``loss_bytes``.
    """
    d, frozen = anatomy.d_model, adapters is not None
    blocks = [block_bytes(block, d, length, widths, frozen=frozen, tensor=tensor) for block in anatomy.blocks]
    if adapters is not None:
        blocks = [kept + adapter_bytes(adapters, anatomy.inside, i) / tensor for i, kept in enumerate(blocks)]
    last = d * (4 + widths.stream + widths.product) / tensor
    if checkpointing and blocks:
        return len(blocks) * d * widths.stream / tensor + max(blocks) + last
    return sum(blocks) + last


def loss_bytes(vocab_size: int, tokens: int, widths: Widths) -> float:
    """The most that scores of words take: on the way back log p, and the gradients of log p and of the scores.

    Where they are more than ``scoring.AT_ONCE`` only slices of the vocabulary are held: one that is being made, narrow before
    it is wide, while the one before it is still there.
    """
    scores = tokens * vocab_size
    if scores <= AT_ONCE:
        return 12.0 * scores
    return (4.0 + 4.0 + (widths.product if widths.product < 4 else 0)) * max(CHUNK, NARROWEST * tokens)


def working_bytes(anatomy: Anatomy, product: float, tensor: int = 1) -> float:
    """The most that one token takes while it is read without going back: what one block holds at once on a device."""
    most = 0.0
    for block, attention in zip(anatomy.blocks, anatomy.attentions, strict=True):
        part = attention.on(tensor)
        heads = 3 * part.heads * part.d_value + 2 * part.groups * part.d_key
        most = max(most, heads, 3 * _width(block.mlp) / tensor)
    return (2 * anatomy.d_model / tensor + most) * product


def _width(mlp: Any) -> int:
    return mlp.router.k * mlp.d_ff + mlp.d_shared if mlp.kind == "mixture_of_experts" else mlp.d_ff


def _taken(part: Any, widths: Widths) -> int:
    """Bytes a channel that the readers of the stream keep of it: one tensor for all, or a narrow copy each."""
    if part.kind == "mixture_of_experts":  # a router reads in float32; what is gathered for the experts is theirs (``_mlp``)
        return 4 + (2 if part.d_shared else 0) * widths.product * widths.mixed
    return READERS[part.kind] * widths.product if widths.mixed else widths.product


def _normed(kind: str, width: int, frozen: bool) -> int:
    """Bytes a channel that a norm keeps: its input in float32, and the normalised value where a weight learns from it."""
    valued = 0 if frozen else 1
    kept = {
        "rms_norm": 4 + width * valued,
        "offset_rms_norm": 4 + 4 * valued,
        "unit_rms_norm": 4,
        "layer_norm": 4,
        "no_norm": 0,
    }
    if kind not in kept:
        raise ConfigError(f"plan does not know the cost of a norm of kind {kind!r}")
    return kept[kind]


def _attention(part: Any, length: int, widths: Widths, frozen: bool, tensor: int) -> float:
    shape = attention_of(part).on(tensor)  # keys and values in whole heads, and a latent vector whole
    kept = widths.product * shape.heads * (shape.d_key + shape.d_value) + 4.0 * shape.heads
    if part.kind == "multi_head_latent":
        ranks = part.kv_rank + (part.q_rank or 0)
        latent = ranks * (_normed("rms_norm", widths.product, frozen) + (0 if frozen else widths.product))
        made = shape.heads * (part.d_nope + part.d_value + shape.d_key)  # keys and values in one tensor, and keys with rope
        return kept + latent + widths.product * made
    kept += widths.product * shape.groups * (shape.d_key + shape.d_value)
    if part.qk_norm is not None:
        kept += (shape.heads + shape.groups) * shape.d_key * _normed(part.qk_norm.norm.kind, widths.product, frozen)
    return kept + (_written(part, shape, length, widths) if shape.written else 0)


def _written(part: Any, shape: Attention, length: int, widths: Widths) -> float:
    """Scores written out: after the cap, after softmax, and narrowed for the product with the values."""
    cap = 0 if part.soft_cap is None else widths.product if widths.mixed else 4
    each = 4 + cap + (widths.product if widths.product < 4 else 0)
    return shape.heads * length * each


def _mlp(part: Any, d_model: int, widths: Widths, frozen: bool) -> float:
    if part.kind == "gated":
        return widths.product * part.d_ff * ((3 if part.activation == "relu" else 4) - frozen)
    if part.kind == "plain":
        return widths.product * part.d_ff * (1 if part.activation == "relu" or frozen else 2)
    if part.kind == "mixture_of_experts":  # frozen or not: what is gathered and weighed is kept all the same
        k, shared = part.router.k, 4 * widths.product * part.d_shared
        rows = d_model * (8 + widths.product * (2 if widths.mixed else 1))  # what experts say, weighted too; what they read
        return k * (4 * widths.product * part.d_ff + rows + 48) + shared + 4 * part.n_experts
    raise ConfigError(f"plan does not know the cost of an mlp of kind {part.kind!r}")
