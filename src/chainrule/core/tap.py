"""Taps: how one looks inside a model while it works, and the only way.

A model given a tap calls it with every name and tensor on the way; a tap changes no score. Explaining, the logit lens, a
router's balance and calibration are taps.
"""

from collections.abc import Callable
from functools import partial

from chainrule.core.shapes import Tensor

Tap = Callable[[str, Tensor], None]
"""Called with a name in TransformerLens' spelling (``blocks.0.hook_resid_post``) and the tensor that flows there."""


class Only:
    """A tap that hears the names with these endings alone, so that what nobody asks for need not be computed.

    An ending may be a whole name. ``prefix`` is what ``under`` has put before the names it is called with.
    """

    def __init__(self, endings: str | tuple[str, ...], tap: Tap, prefix: str = "") -> None:
        self.endings, self.tap, self.prefix = endings, tap, prefix

    def __call__(self, name: str, tensor: Tensor) -> None:
        """Pass on what was asked for, under its whole name."""
        if self.hears(name):
            self.tap(self.prefix + name, tensor)

    def hears(self, name: str) -> bool:
        """Whether a name was asked for."""
        return (self.prefix + name).endswith(self.endings)


def tell(tap: Tap | None, name: str, tensor: Tensor) -> None:
    """Let a tap, where there is one, hear a tensor by its name; one that would first have to be computed asks ``wants``."""
    if tap is not None:
        tap(name, tensor)


def wants(tap: Tap | None, name: str) -> bool:
    """Whether a tap hears of a name: what is made for it alone is made only then."""
    return tap is not None and (not isinstance(tap, Only) or tap.hears(name))


def under(prefix: str, tap: Tap | None) -> Tap | None:
    """A tap that puts ``prefix`` before every name; None stays None."""
    if tap is None:
        return None
    if isinstance(tap, Only):
        return Only(tap.endings, tap.tap, tap.prefix + prefix)
    return partial(_prefixed, prefix, tap)


def _prefixed(prefix: str, tap: Tap, name: str, tensor: Tensor) -> None:
    tap(prefix + name, tensor)
