"""Split patterns: how a text is cut into pieces that no merge may cross. The published ones go by name.

``world`` is ours: a digit and a quotation mark are pieces of their own, and a space in front of them belongs to the word
before, so that a number, and a quoted word, is the same token wherever it stands; an English noun keeps its article.
"""

from functools import lru_cache
from typing import Any

from chainrule.core.errors import TokenizerError, nearest

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_O200K = "|".join(
    [
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+" + _CONTRACTIONS + "?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*" + _CONTRACTIONS + "?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)


def _cl100k(number: str, head: str = "") -> str:
    """The pattern of cl100k and its heirs, which differ in how numbers are cut."""
    return (
        _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|" + number + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|"
        r"\s*[\r\n]+|\s+(?!\S)|\s+" + head
    )


def _kimi(letters: str) -> str:
    """A letter of these categories that is not Chinese."""
    return rf"(?:(?!\p{{Han}})[{letters}])"


_UPPER, _LOWER = _kimi(r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"), _kimi(r"\p{Ll}\p{Lm}\p{Lo}\p{M}")
_KIMI = "|".join(
    [
        r"\p{Han}+",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_CONTRACTIONS}?",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_CONTRACTIONS}?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)
"""That of o200k, but that Chinese stands apart from letters (Kimi K2's tokenization_kimi.py)."""
_GAP = r'(?: (?=[\p{N}"]))?'
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
PATTERNS = {
    "gpt2": _GPT2,
    "r50k": _GPT2,
    "p50k": _GPT2,
    "cl100k": _cl100k(r"\p{N}{1,3}"),
    "llama3": _cl100k(r"\p{N}{1,3}"),
    "qwen2": _cl100k(r"\p{N}"),
    "o200k": _O200K,
    "kimi": _KIMI,
    "world": "|".join(
        [
            _CONTRACTIONS,
            rf'[^\r\n\p{{L}}\p{{N}}"]?(?:(?:the|a) )?\p{{L}}+{_GAP}',
            r"\p{N}",
            rf'"{_GAP}',
            rf' ?[^\s\p{{L}}\p{{N}}"]+{_GAP}[\r\n]*',
            r"\s*[\r\n]+",
            r"\s+(?!\S)",
            r"\s+",
        ]
    ),
}


def split_pattern(name: str) -> str:
    """The pattern of that name."""
    if name not in PATTERNS:
        raise TokenizerError(f"unknown split pattern {name!r}{nearest(name, PATTERNS)}")
    return PATTERNS[name]


@lru_cache(maxsize=64)
def compiled(pattern: str) -> Any:
    """A pattern, compiled by the ``regex`` package, which knows ``\\p{...}``."""
    import regex

    return regex.compile(pattern)


@lru_cache(maxsize=1)
def byte_letters() -> tuple[str, ...]:
    """GPT-2's printable letter for each byte, in which byte-level vocabularies are written down.

    >>> byte_letters()[ord(" ")]
    'Ġ'
    """
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return tuple(chr(byte if byte in plain else next(others)) for byte in range(256))


@lru_cache(maxsize=1)
def letter_bytes() -> dict[str, int]:
    """The byte of each letter; the inverse of ``byte_letters``."""
    return {letter: byte for byte, letter in enumerate(byte_letters())}


def spell(data: bytes) -> str:
    """Bytes in GPT-2's letters."""
    return "".join(byte_letters()[byte] for byte in data)


def unspell(letters: str) -> bytes:
    """The bytes that GPT-2's letters stand for."""
    return bytes(letter_bytes()[letter] for letter in letters)
