"""Activations: what a forward pass keeps of every token, so that the backward pass can go back.

Bytes a token, by part, as PyTorch's autograd keeps them for the layers of this house. ``stream`` is the width of a number in
the residual stream, ``product`` in matrix products: 4 and 4 in fp32, 4 and 2 in mixed precision, 2 and 2 in pure bf16.

    norm        its input in float32, the normalised value, and what its readers take (a narrow copy each, if mixed)
    attention   q, k, v, the result, one float32 a head: a fused kernel keeps no scores
    mlp         gate, up, the bent gate, their product

Korthikanti et al. 2022, arXiv:2205.05198, count the same for GPT-2's layers. With recomputation (``checkpointing``) only the
input of each block is kept, and one block at a time is computed again.
"""

from dataclasses import dataclass
from typing import Any

from chainrule.core.errors import ConfigError
from chainrule.eval.anatomy import READERS, Anatomy, Attention, attention_of
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


def block_bytes(block: Any, d_model: int, length: int, widths: Widths) -> float:
    """What one block keeps of a token in a row of ``length`` tokens."""
    attention, mlp = block.attention, block.mlp
    if block.kind == "bare":  # nothing is added to the stream, so it is as narrow as what products give
        widths = Widths(widths.product, widths.product)
    inner = _attention(attention, length, widths) + _mlp(mlp, d_model, widths)
    before = d_model * (_taken(attention, widths) + _taken(mlp, widths))
    if block.kind != "output_norm":
        before += 2 * d_model * _normed(block.norm.kind, widths.stream)
    after = 2 * d_model * _normed(block.norm.kind, widths.product) if block.kind in ("sandwich", "output_norm") else 0
    return inner + before + after


def kept_bytes(anatomy: Anatomy, length: int, widths: Widths, *, checkpointing: bool = False) -> float:
    """What all blocks and the last norm keep of a token; the scores of words come on top (``loss_bytes``)."""
    blocks = [block_bytes(block, anatomy.d_model, length, widths) for block in anatomy.blocks]
    last = anatomy.d_model * (4 + widths.stream + widths.product)
    if checkpointing and blocks:
        return len(blocks) * anatomy.d_model * widths.stream + max(blocks) + last
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


def working_bytes(anatomy: Anatomy, product: float) -> float:
    """The most that one token takes while it is read without going back: what one block holds at once."""
    most = 0.0
    for block, attention in zip(anatomy.blocks, anatomy.attentions, strict=True):
        heads = 3 * attention.heads * attention.d_value + 2 * attention.groups * attention.d_key
        most = max(most, heads, 3 * _width(block.mlp))
    return (2 * anatomy.d_model + most) * product


def _width(mlp: Any) -> int:
    return mlp.router.k * mlp.d_ff + mlp.d_shared if mlp.kind == "mixture_of_experts" else mlp.d_ff


def _taken(part: Any, widths: Widths) -> int:
    """Bytes a channel that the readers of the stream keep of it: one tensor for all, or a narrow copy each."""
    if part.kind == "mixture_of_experts":  # a router reads in float32; what is gathered for the experts is theirs (``_mlp``)
        return 4 + (2 if part.d_shared else 0) * widths.product * widths.mixed
    return READERS[part.kind] * widths.product if widths.mixed else widths.product


def _normed(kind: str, width: int) -> int:
    """Bytes a channel that a norm keeps: its input in float32, and the normalised value where a weight multiplies it."""
    kept = {"rms_norm": 4 + width, "offset_rms_norm": 8, "unit_rms_norm": 4, "layer_norm": 4, "no_norm": 0}
    if kind not in kept:
        raise ConfigError(f"plan does not know the cost of a norm of kind {kind!r}")
    return kept[kind]


def _attention(part: Any, length: int, widths: Widths) -> float:
    shape = attention_of(part)
    kept = widths.product * shape.heads * (shape.d_key + shape.d_value) + 4.0 * shape.heads
    if part.kind == "multi_head_latent":
        ranks = part.kv_rank + (part.q_rank or 0)
        latent = ranks * (_normed("rms_norm", widths.product) + widths.product)
        made = part.n_heads * (part.d_nope + part.d_value + shape.d_key)  # keys and values in one tensor, and keys with rope
        return kept + latent + widths.product * made
    kept += widths.product * shape.groups * (shape.d_key + shape.d_value)
    if part.qk_norm is not None:
        kept += (shape.heads + shape.groups) * shape.d_key * _normed(part.qk_norm.norm.kind, widths.product)
    return kept + (_written(part, shape, length, widths) if shape.written else 0)


def _written(part: Any, shape: Attention, length: int, widths: Widths) -> float:
    """Scores written out: after the cap, after softmax, and narrowed for the product with the values."""
    cap = 0 if part.soft_cap is None else widths.product if widths.mixed else 4
    each = 4 + cap + (widths.product if widths.product < 4 else 0)
    return shape.heads * length * each


def _mlp(part: Any, d_model: int, widths: Widths) -> float:
    if part.kind == "gated":
        return widths.product * part.d_ff * (3 if part.activation == "relu" else 4)
    if part.kind == "plain":
        return widths.product * part.d_ff * (1 if part.activation == "relu" else 2)
    if part.kind == "mixture_of_experts":
        k, shared = part.router.k, 4 * widths.product * part.d_shared
        rows = d_model * (8 + widths.product * (2 if widths.mixed else 1))  # what experts say, weighted too; what they read
        return k * (4 * widths.product * part.d_ff + rows + 48) + shared + 4 * part.n_experts
    raise ConfigError(f"plan does not know the cost of an mlp of kind {part.kind!r}")
