"""Where a long text may be cut before it is tokenised: there, what stands on one side changes no token on the other.

    GPT-2's pattern        before a space or a line break behind anything else: each of its pieces ends there or sooner
    the other patterns     behind the last line break of a gap, where a piece ends; o200k takes a / behind it along
    BERT's words           the same: they end at white space

A merge never leaves its piece, so pieces that stay as they are give the same tokens. A text whose tokenizer cuts it otherwise
(by an unknown pattern, by spaces alone, not at all) stays whole.
"""

import re
from collections.abc import Iterator
from typing import Any

from chainrule.tokenizers.fast_pieces import FINAL_SIGMA
from chainrule.tokenizers.patterns import PATTERNS

BEFORE_SPACE, BEHIND_LINE = re.compile(r"(?<=\S)(?=[ \n])"), re.compile(r"(?<=\n)(?=[^\S\r\n]+\S|[^\s/])")
CUTS = dict.fromkeys(PATTERNS.values(), BEHIND_LINE) | {PATTERNS["gpt2"]: BEFORE_SPACE}
SLICE = 2**13
"""A text that is longer is cut into slices of about so many characters."""


def slices(text: str, cuts: re.Pattern[str] | None, size: int = SLICE) -> Iterator[str]:
    """A text in slices of ``size`` characters and as many more as there are up to the next place to cut; whole without any.

    >>> list(slices("one two three", BEFORE_SPACE, 4))
    ['one two', ' three']
    """
    start = 0
    while cuts is not None and (cut := cuts.search(text, start + size)):
        yield text[start : cut.start()]
        start = cut.start()
    yield text[start:]


def safe_cuts(source: Any) -> re.Pattern[str] | None:
    """The places where a ``tokenizer.json`` lets a text be cut; None where none are known."""
    added = source.get("added_tokens") or []
    if any(token.get("lstrip") or token.get("rstrip") or re.search(r"\s", token["content"]) for token in added):
        return None  # they take in the white space at which a text is cut
    steps = [step for step in _steps(source.get("pre_tokenizer"), "pretokenizers") if step["type"] != "Digits"]
    normal = _steps(source.get("normalizer"), "normalizers")
    if steps and steps[0]["type"] == "BertPreTokenizer":
        return BEHIND_LINE if all(_keeps_lines(step) for step in normal) else None
    return _first_cuts(steps[0]) if steps and all(step["type"] == "NFC" for step in normal) else None


def _first_cuts(step: Any) -> re.Pattern[str] | None:
    """The places where the first step that cuts a text cuts it; the later ones see its pieces one by one."""
    if step["type"] == "ByteLevel" and step.get("use_regex", True) and not step["add_prefix_space"]:
        return BEFORE_SPACE
    if step["type"] == "Split" and step["behavior"] == "Isolated" and not step.get("invert"):
        return CUTS.get(step["pattern"].get("Regex"))
    return None


def _keeps_lines(step: Any) -> bool:
    """Whether a normalizer reads what stands behind a line break, and before it, each for itself."""
    return step["type"] in ("BertNormalizer", "NFC") or step.get("pattern") == {"Regex": FINAL_SIGMA}


def _steps(part: Any, inside: str) -> list[Any]:
    """A part of a ``tokenizer.json`` as the steps it takes."""
    return [] if part is None else part.get(inside, [part])
