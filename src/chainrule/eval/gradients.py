"""How strongly each layer is told to change: the norm of the loss's gradient by its parameters.

    g_l = ‖ ∂L / ∂θ_l ‖,      L the mean cross entropy of a batch

A layer whose g is a millionth of another's learns nothing beside it. Parameters belong to a layer by name: ``layers.3.``.
"""

import math
import re
from collections import defaultdict

import torch

from chainrule.core.datum import Batch
from chainrule.core.model import LanguageModel
from chainrule.logprobs.losses import cross_entropy

LAYER = re.compile(r"^layers\.(\d+)\.")


def layer_gradients(model: LanguageModel, batch: Batch) -> tuple[float | None, ...]:
    """The norm of every layer's gradient on a batch, the first layer first; None where it is not finite.

    The model's own gradients are cleared.
    """
    model.zero_grad()
    loss = cross_entropy(model, batch.to(model.device))
    (loss.total / loss.weight).backward()
    squares: dict[int, float] = defaultdict(float)
    for name, parameter in model.named_parameters():
        layer = LAYER.match(name)
        if layer and parameter.grad is not None:
            # in float64, where a square of 1e-30 is no zero; on the CPU, since MPS has none
            squares[int(layer[1])] += float(torch.linalg.vector_norm(parameter.grad.cpu(), dtype=torch.float64)) ** 2
    model.zero_grad()
    norms = [math.sqrt(squares[layer]) for layer in sorted(squares)]
    return tuple(norm if math.isfinite(norm) else None for norm in norms)
