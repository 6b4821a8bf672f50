"""The words of the world: how a text is cut into them, and how rich the lexicons are.

Chinese writes no spaces, and English changes a noun where there are several. A tokenizer is trained on words and nouns, so
that no merge glues two words together, and so that "1 cup" and "2 cups" name a thing by the same token as 1个杯子 and 2个杯子.
"""

import re
from functools import lru_cache

from chainrule.world.chinese import CHINESE
from chainrule.world.english import ENGLISH
from chainrule.world.tongue import Tongue

_LISTS = (
    "names",
    "places",
    "one",
    "jobs",
    "natures",
    "weathers",
    "manners",
    "moves",
    "gets",
    "loses",
    "gives",
    "likes",
    "sizes",
    "colours",
    "animals",
    "how",
    "cries",
)


@lru_cache(maxsize=1)
def _chinese() -> re.Pattern[str]:
    words = {word.rstrip("。") for name in _LISTS for word in getattr(CHINESE, name) if word}
    return re.compile("(" + "|".join(map(re.escape, sorted(words, key=len, reverse=True))) + ")")


def cut_words(text: str) -> list[str]:
    """A text with the Chinese lexicon's words apart; joined again it is the same text.

    >>> cut_words("小明去了公园。")
    ['小明', '去了', '公园', '。']
    """
    return [piece for piece in _chinese().split(text) if piece]


@lru_cache(maxsize=1)
def _plural() -> re.Pattern[str]:
    # "likes" and "times" are cut too: were "es" ever one piece, "cakes" would be "cak" and "es"
    return re.compile(rf"\b(?:{'|'.join(ENGLISH.one)}|[a-z]+e)(s)\b")


def cut_nouns(text: str) -> list[str]:
    """A text with the Chinese words apart, and the English plurals from their nouns; joined again it is the same text.

    >>> cut_nouns("Tom has 2 cups.")
    ['Tom has 2 cup', 's.']
    """
    pieces: list[str] = []
    for piece in cut_words(text):
        start = 0
        for found in _plural().finditer(piece):
            pieces.append(piece[start : found.start(1)])
            start = found.start(1)
        pieces.append(piece[start:])
    return pieces


def word_types(t: Tongue) -> set[str]:
    """Every word of a language: of the lexicons, and of the patterns around them."""
    words: set[str] = set()
    for value in vars(t).values():
        for phrase in value if isinstance(value, tuple) else (value,):
            bare = re.sub(r"\{\w+\}", " ", phrase)
            words |= set(re.findall(r"[A-Za-z]+", bare) if t.code == "en" else re.findall(r"[一-鿿]+", bare))
    return words
