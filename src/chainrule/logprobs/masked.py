"""The loss of masked words: what stood at the places that were hidden.

    masked cross entropy = -Σ_judged log p(x_t | the row as it is seen),      averaged by the loop over all judged places

Devlin et al. 2018, arXiv:1810.04805. A batch's ``tokens`` are the words themselves, its mask is 1 where they are to be
guessed, and ``given["seen"]`` is the row that the model reads, with some words hidden; ``given["types"]``, where it is
there, tells the texts of a pair apart.
"""

from chainrule.core.datum import Batch
from chainrule.core.errors import DataError
from chainrule.core.loss import Loss
from chainrule.core.masked import MaskedModel
from chainrule.core.shapes import Bool, Float, Tensor
from chainrule.logprobs.scoring import widen


def guessed(batch: Batch) -> Bool[Tensor, "b t"]:
    """Which places count: the mask is not 0, and they are no padding. A first word counts too: both sides are seen."""
    return batch.mask != 0 if batch.layout is None else (batch.mask != 0) & batch.layout.real


def masked_logprobs(model: MaskedModel, batch: Batch) -> Float[Tensor, "b t"]:
    """log p(token t | the row as seen) in nats, in float32 or wider; 0 where the mask is 0 and at padding.

    Only the judged places are scored, about a seventh of all. Raises ``DataError`` for a batch that hides nothing.
    """
    if batch.given is None or "seen" not in batch.given:
        raise DataError("this batch does not say what the model sees; put the row with hidden words into given['seen']")
    states = model.states(batch.given["seen"], layout=batch.layout, types=batch.given.get("types"))
    counts = guessed(batch)
    logp = widen(model.scores(states[counts])).log_softmax(-1)
    logp = logp.gather(1, batch.tokens[counts][:, None])[:, 0]
    return logp.new_zeros(counts.shape).masked_scatter(counts, logp)


def masked_cross_entropy(model: MaskedModel, batch: Batch) -> Loss:
    """The negative log-probability of the words at the judged places, in nats, and their number."""
    logp, counts = masked_logprobs(model, batch), guessed(batch)
    return Loss(total=-(logp * batch.mask).sum(), weight=(batch.mask * counts).sum(), metrics={})
