"""What training makes smaller, as sums of log p.

cross entropy = -Σ_judged log p(x_t | x_<t),      averaged by the loop over all judged tokens of a step

A mixture of experts may add its balance, the one term that belongs to a micro-batch as a whole: Σ_layers e · Σ_i f_i · p_i.
"""

import torch

from chainrule.core.datum import Batch
from chainrule.core.errors import ConfigError, DataError
from chainrule.core.loss import Loss
from chainrule.core.model import LanguageModel
from chainrule.core.shapes import Tensor
from chainrule.core.tap import Only, Tap
from chainrule.layers.router import imbalance
from chainrule.logprobs.scoring import judged, token_logprobs


def cross_entropy(model: LanguageModel, batch: Batch, tap: Tap | None = None) -> Loss:
    """The negative log-probability of the judged tokens, in nats, and their number.

    Raises ``DataError`` for a batch without any, where the count is at hand: on the CPU, outside a compiled graph.
    """
    counts = judged(batch)
    if counts.device.type == "cpu" and not torch.compiler.is_compiling() and not counts.any():
        raise DataError(
            f"a batch of {tuple(batch.tokens.shape)} tokens has none to learn from: its mask is 0 everywhere but at "
            "the first token of a document; check the mask, or leave such texts out of the stream"
        )
    logp = token_logprobs(model, batch, tap)
    return Loss(total=-(logp * batch.mask).sum(), weight=(batch.mask * counts).sum(), metrics={})


def balanced_cross_entropy(model: LanguageModel, batch: Batch, *, balance: float) -> Loss:
    """Cross entropy plus ``balance`` times the mean imbalance of the layers' experts, over all real tokens of the batch.

    The gradient of ``layers.router.imbalance`` lowers the scores of experts that are chosen too often; it is k where all are
    used alike. Raises ``ConfigError`` for a model without experts.
    """
    heard: dict[str, Tensor] = {}
    loss = cross_entropy(model, batch, Only(("hook_router_scores", "hook_router_experts"), heard.__setitem__))
    layers = [name.removesuffix("scores") for name in heard if name.endswith("scores")]
    if not layers:
        raise ConfigError(f"balance={balance} balances experts, but this model has none; leave it out")
    real = torch.ones_like(batch.tokens, dtype=torch.bool) if batch.layout is None else batch.layout.real
    uneven = torch.stack([imbalance(heard[name + "scores"][real], heard[name + "experts"][real]) for name in layers]).mean()
    metrics = {**loss.metrics, "imbalance": uneven.detach() * loss.weight}
    return Loss(total=loss.total + balance * uneven * loss.weight, weight=loss.weight, metrics=metrics)
