"""What is trained: a model with its loss, as one module whose forward is the loss of a batch.

Data parallelism, sharding and ``torch.compile`` wrap this, never the bare model.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from chainrule.core.datum import Batch
from chainrule.core.errors import ConfigError
from chainrule.core.loss import Loss
from chainrule.core.masked import MaskedModel, Model
from chainrule.layers.moe import MixtureLayer
from chainrule.logprobs.losses import balanced_cross_entropy, cross_entropy
from chainrule.logprobs.masked import masked_cross_entropy

LossFunction = Callable[[Any, Batch], Loss]
"""A loss of the model that it is written for: a ``LanguageModel``, or a ``MaskedModel``."""


class Objective(nn.Module):
    """``forward(batch)`` is ``loss(model, batch)``."""

    def __init__(self, model: Model, loss: LossFunction) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Batch) -> Loss:
        """The sum to make smaller, and what it averages over."""
        return self.loss(self.model, batch)


def loss_of(model: Model, balance: float = 0.0) -> LossFunction:
    """What a model learns by: hidden words for an encoder, else the next token, with the balance of experts if any is asked.

    Raises ``ConfigError`` where there is nothing to balance.
    """
    masked = isinstance(model, MaskedModel)
    if not balance:
        return masked_cross_entropy if masked else cross_entropy
    if masked:
        raise ConfigError(f"balance={balance} goes with the next token's cross entropy alone; leave it out")
    if not any(isinstance(module, MixtureLayer) for module in model.modules()):
        raise ConfigError(f"balance={balance} balances experts, but this model has none; leave it out")
    return partial(balanced_cross_entropy, balance=balance)
