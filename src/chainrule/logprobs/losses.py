"""What training makes smaller, as sums of log p.

cross entropy = -Σ_judged log p(x_t | x_<t),      averaged by the loop over all judged tokens of a step
"""

import torch

from chainrule.core.datum import Batch
from chainrule.core.errors import DataError
from chainrule.core.loss import Loss
from chainrule.core.model import LanguageModel
from chainrule.logprobs.scoring import judged, token_logprobs


def cross_entropy(model: LanguageModel, batch: Batch) -> Loss:
    """The negative log-probability of the judged tokens, in nats, and their number.

    Raises ``DataError`` for a batch without any, where the count is at hand: on the CPU, outside a compiled graph.
    """
    counts = judged(batch)
    if counts.device.type == "cpu" and not torch.compiler.is_compiling() and not counts.any():
        raise DataError(
            f"a batch of {tuple(batch.tokens.shape)} tokens has none to learn from: its mask is 0 everywhere but at "
            "the first token of a document; check the mask, or leave such texts out of the stream"
        )
    logp = token_logprobs(model, batch)
    return Loss(total=-(logp * batch.mask).sum(), weight=(batch.mask * counts).sum(), metrics={})
