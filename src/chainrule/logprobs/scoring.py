"""The one shift: column t is log p(token t | the tokens before it).

    log p(x_t | x_<t) = z_{t-1}[x_t] - log Σ_w exp z_{t-1}[w],      z = hidden Wᵀ

The off-by-one of language modelling lives here and nowhere else. The scores z of a long batch over a large vocabulary
(4,096 tokens × 150,000 words are 2.5 GB) are never held at once: a linear readout goes through ``linear_logprobs``,
slice by slice of the vocabulary, and is computed a second time in the backward pass; any other readout goes through in
chunks of columns, checkpointed. The idea is that of Wijmans et al. 2024 (Cut Your Losses), arXiv:2411.09009.
"""

# pyright: basic
# (torch's own checkpoint, split and autograd.Function carry too few types for more)

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from chainrule.core.datum import Batch, Layout
from chainrule.core.errors import NotNumbers
from chainrule.core.model import LanguageModel
from chainrule.core.shapes import Bool, Float, Int, Tensor
from chainrule.core.tap import Tap

AT_ONCE = 2**25
"""As many scores as may be held in one piece: 128 MB in float32."""
CHUNK = 2**21
"""How many scores a piece has where they may not: 8 MB in float32."""
NARROWEST = 256
"""A slice of the vocabulary has at least so many words, or the matrix products become slow."""


def judged(batch: Batch) -> Bool[Tensor, "b t"]:
    """Which tokens count: the mask is not 0, and a token before them in their document predicts them."""
    layout = Layout.plain(batch.tokens) if batch.layout is None else batch.layout
    return (batch.mask != 0) & ~layout.starts


def token_logprobs(model: LanguageModel, batch: Batch, tap: Tap | None = None) -> Float[Tensor, "b t"]:
    """log p(token t | tokens before t) in nats; 0 where a document starts, at padding, and where the mask is 0.

    Float32 or wider whatever the model computes in; −inf where the model rules a token out, never NaN; differentiable
    once. The sum of a row is the log-probability of its judged tokens.
    """
    hidden = model.hidden(batch.tokens, layout=batch.layout, given=batch.given, tap=tap)
    before, after, counts = hidden[:, :-1], batch.tokens[:, 1:], judged(batch)[:, 1:]
    if (looked_up := model.logp_of(before, after)) is not None:
        logp = torch.where(counts, looked_up, 0.0)
    elif after.numel() * model.vocab_size <= AT_ONCE:
        # every column, judged or not: a shape that does not depend on the mask suits torch.compile
        logp = torch.where(counts, _picked(model.readout(before), after), 0.0)
    else:
        picked = _chunked(model, before[counts], after[counts])
        logp = picked.new_zeros(after.shape).masked_scatter(counts, picked)
    return F.pad(logp, (1, 0))


def check_numbers(logp: Float[Tensor, "b t"]) -> Float[Tensor, "b t"]:
    """The log p of tokens as they are; raises ``NotNumbers`` where one is NaN, as damaged weights make it."""
    if bool((wrong := logp.isnan()).any()):
        raise NotNumbers(int(wrong.any(0).nonzero()[0]))
    return logp


def _picked(scores: Float[Tensor, "*b v"], targets: Int[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    nats = F.cross_entropy(widen(scores).flatten(0, -2), targets.flatten(), reduction="none")
    return -nats.view(targets.shape)


def _chunked(model: LanguageModel, hidden: Float[Tensor, "n d"], targets: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    weight = model.readout_weight
    if weight is not None:
        return linear_logprobs(hidden, weight, targets)
    chunk = max(1, CHUNK // model.vocab_size)
    pieces = [_piece(model, *pair) for pair in zip(hidden.split(chunk), targets.split(chunk), strict=True)]
    return torch.cat(pieces)


def _piece(model: LanguageModel, hidden: Float[Tensor, "n d"], targets: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
    def score(hidden: Tensor) -> Tensor:
        return _picked(model.readout(hidden), targets)

    return checkpoint(score, hidden, use_reentrant=False) if torch.is_grad_enabled() else score(hidden)


def widen(x: Tensor) -> Tensor:
    """The same numbers in float32, or in float64 where they came so."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def linear_logprobs(
    hidden: Float[Tensor, "n d"], weight: Float[Tensor, "v d"], targets: Int[Tensor, "n"]
) -> Float[Tensor, "n"]:
    """log softmax(hidden weightᵀ) at the targets, in memory that does not grow with the vocabulary.

    Beyond its inputs and their gradients it holds about ``CHUNK`` scores at a time. Differentiable once. Under autocast
    the products are in autocast's format, sums and exponentials in float32.
    """
    kind = hidden.device.type
    narrow = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    with torch.autocast(kind, enabled=False):
        return _LinearLogprobs.apply(hidden.to(narrow), weight, targets)


class _LinearLogprobs(torch.autograd.Function):
    """d log p_y / d z = onehot(y) − softmax(z), from which both gradients follow slice by slice."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        total = widen(hidden).new_full((len(hidden),), -torch.inf)
        picked = total.clone()
        for first, words in _slices(weight, len(hidden)):
            scores = widen(hidden @ words.to(hidden.dtype).T)
            total = torch.logaddexp(total, scores.logsumexp(1))
            inside, column = _within(targets, first, len(words))
            picked = torch.where(inside, scores.gather(1, column)[:, 0], picked)
        ctx.save_for_backward(hidden, weight, targets, total)
        return picked - total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        hidden, weight, targets, total = ctx.saved_tensors
        for_hidden, for_weight, _ = ctx.needs_input_grad
        hidden_grad = torch.zeros_like(hidden, dtype=total.dtype)
        weight_grad = torch.empty_like(weight) if for_weight else None
        for first, words in _slices(weight, len(hidden)):
            words = words.to(hidden.dtype)
            slope = widen(hidden @ words.T).sub_(total[:, None]).exp_().mul_(-grad[:, None])
            inside, column = _within(targets, first, len(words))
            slope.scatter_add_(1, column, torch.where(inside, grad, 0.0)[:, None])
            slope = slope.to(hidden.dtype)
            if for_hidden and hidden_grad.dtype == slope.dtype:
                hidden_grad.addmm_(slope, words)  # the product is never held apart: it is as large as all states
            elif for_hidden:
                hidden_grad += slope @ words
            if weight_grad is not None:
                weight_grad[first : first + len(words)] = slope.T @ hidden
        return hidden_grad.to(hidden.dtype) if for_hidden else None, weight_grad, None


def _slices(weight: Tensor, rows: int) -> list[tuple[int, Tensor]]:
    width = max(NARROWEST, CHUNK // max(rows, 1))
    return [(first, weight[first : first + width]) for first in range(0, len(weight), width)]


def _within(targets: Tensor, first: int, width: int) -> tuple[Tensor, Tensor]:
    """Which targets lie in a slice of the vocabulary, and the column to read for each (any, where it does not)."""
    column = targets - first
    return (column >= 0) & (column < width), column.clamp(0, width - 1)[:, None]
