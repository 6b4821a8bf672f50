"""Matrices without ambient randomness: born zero, filled by a model's initialisation or by a loader.

``nn.Linear`` and ``nn.Embedding`` draw from torch's global generator when they are made. Here randomness is an
argument, so the layers begin as zeros on the default device (``meta`` included) and a scheme of ``layers.init`` fills
them. Nothing is drawn on the way: on the meta device a drawing makes torch import half of its compiler, two seconds long.
"""

import torch
from torch import nn

from chainrule.core.shapes import Float, Int, Tensor


def linear(d_in: int, d_out: int, bias: bool = False) -> nn.Linear:
    """y = x Wᵀ (+ bias), with W ``d_out d_in`` and bias zero."""
    made = nn.Linear.__new__(nn.Linear)  # its own __init__ would draw
    nn.Module.__init__(made)
    made.in_features, made.out_features = d_in, d_out
    made.weight = nn.Parameter(torch.zeros(d_out, d_in))
    made.register_parameter("bias", nn.Parameter(torch.zeros(d_out)) if bias else None)
    return made


def embedding(n: int, d: int) -> nn.Embedding:
    """A table of ``n`` vectors of width ``d``, all zero."""
    return nn.Embedding(n, d, _weight=torch.zeros(n, d))


def plain_weight(layer: nn.Module) -> Float[Tensor, "v d"] | None:
    """The matrix of a layer that does nothing but multiply by it, else None.

    Exactly these types: a wrapped layer (an adapter, a quantizer) may do more.
    """
    if type(layer) is nn.Embedding or (type(layer) is nn.Linear and layer.bias is None):
        return layer.weight
    return None


def one_hot(ids: Int[Tensor, "*b"], n: int) -> Float[Tensor, "*b n"]:
    """Vectors with a single one: ``one_hot(ids, n) @ W`` is ``W[ids]``, so an embedding is a linear map that skips its zeros.

    >>> one_hot(torch.tensor([2, 0]), 3).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    return (ids[..., None] == torch.arange(n, device=ids.device)).float()
