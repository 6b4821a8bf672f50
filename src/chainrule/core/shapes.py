"""The one alphabet of tensor shapes, used in every signature of the project.

    b batch · t new tokens · s all tokens seen · d model width · h query heads · g key/value heads · c head width
    f mlp width · e experts · v vocabulary

A signature says ``Float[Tensor, "b t v"]``; under pytest the shapes are enforced, otherwise they cost nothing.
"""

from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

__all__ = ["Bool", "Float", "Int", "Tensor", "UInt8"]
