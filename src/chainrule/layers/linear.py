"""Matrices without ambient randomness: born zero, filled by a model's initialisation or by a loader.

``nn.Linear`` and ``nn.Embedding`` draw from torch's global generator when they are made. Here randomness is an
argument, so the layers begin as zeros on the default device (``meta`` included) and a scheme of ``layers.init`` fills
them.
"""

from typing import Any

import torch
from torch import nn
from torch.nn.utils import skip_init

from chainrule.core.shapes import Float, Int, Tensor


def linear(d_in: int, d_out: int, bias: bool = False) -> nn.Linear:
    """y = x Wᵀ (+ bias), with W ``d_out d_in`` and bias zero."""
    return _zeroed(skip_init(nn.Linear, d_in, d_out, bias=bias, device=torch.get_default_device()))


def embedding(n: int, d: int) -> nn.Embedding:
    """A table of ``n`` vectors of width ``d``, all zero."""
    return _zeroed(skip_init(nn.Embedding, n, d, device=torch.get_default_device()))


def one_hot(ids: Int[Tensor, "*b"], n: int) -> Float[Tensor, "*b n"]:
    """Vectors with a single one: ``one_hot(ids, n) @ W`` is ``W[ids]``, so an embedding is a linear map that skips its zeros.

    >>> one_hot(torch.tensor([2, 0]), 3).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    return (ids[..., None] == torch.arange(n, device=ids.device)).float()


def _zeroed(module: nn.Module) -> Any:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
