"""What is trained: a model with its loss, as one module whose forward is the loss of a batch.

Data parallelism, sharding and ``torch.compile`` wrap this, never the bare model.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from chainrule.core.datum import Batch
from chainrule.core.loss import Loss
from chainrule.core.masked import Model

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
