"""Errors are for people: what is wrong with its value, what would be right, what to type next.

Every one is a ``ValueError``. The command line prints the message alone and exits with 2; anything else that
escapes is our own fault and exits with 1. Imports no torch.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class ChainruleError(ValueError):
    """Something the user gave cannot be used; the message says what to do about it."""


class ConfigError(ChainruleError):
    """A setting, recipe key or part that does not fit."""


class DataError(ChainruleError):
    """A text, table, chat or corpus that cannot be read or holds nothing to learn."""


class TokenizerError(ChainruleError):
    """A text, vocabulary or template that a tokenizer cannot handle."""


class CheckpointError(ChainruleError):
    """A folder or file of weights that is missing, damaged or does not fit."""


class RequestError(ChainruleError):
    """A generation request that cannot be served as asked."""


class NotNumbers(RequestError):
    """A model's scores after so many tokens are NaN."""

    def __init__(self, seen: int) -> None:
        super().__init__(f"the model's scores are not numbers after {seen} tokens; its weights are damaged")


class DeviceError(ChainruleError):
    """A device or number format this machine does not have."""


class MissingExtra(ChainruleError):
    """An optional package is needed; the message names the extra to install."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}; install it with: pip install {package}, "
            f"or in chainrule's folder: pip install '.[{extra}]'"
        )


def closest(word: str, known: Iterable[str]) -> str | None:
    """The known word that a misspelt one was probably to be, or None."""
    close = get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    return close[0] if close else None


def perhaps(word: str | None) -> str:
    """A hint inside a sentence that names the word that was probably meant; nothing where there is none.

    >>> perhaps(closest("modle", ["model", "train"])), perhaps(closest("zzz", ["model", "train"]))
    (" (did you mean 'model'?)", '')
    """
    return "" if word is None else f" (did you mean {word!r}?)"


def nearest(word: str, known: Iterable[str]) -> str:
    """A closing hint that names the known word nearest to a misspelt one.

    >>> nearest("modle", ["model", "train"])
    "; did you mean 'model'?"
    >>> nearest("zzz", ["model", "train"])
    '; known are: model, train'
    """
    known = sorted(known)
    close = closest(word, known)
    return f"; known are: {', '.join(known)}" if close is None else f"; did you mean {close!r}?"


def some(names: Sequence[str]) -> str:
    """The first three names, and how many more there are.

    >>> some(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
