"""What a training method hands to the loop: a sum, what it averages over, and what to log."""

from typing import NamedTuple

from chainrule.core.shapes import Float, Tensor


class Loss(NamedTuple):
    """``total`` / ``weight`` is the loss, in nats per ``weight``'s unit (judged tokens, pairs, sequences).

    Both are sums: the loop adds them over all micro-batches and ranks and divides once, so that the way a batch is
    split changes nothing. ``metrics`` are sums too, over the same unit, without gradient.
    """

    total: Float[Tensor, ""]
    weight: Float[Tensor, ""]
    metrics: dict[str, Float[Tensor, ""]]
