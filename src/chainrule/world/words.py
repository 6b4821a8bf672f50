"""The words of the world: how a Chinese text is cut into them, and how rich the lexicons are.

Chinese writes no spaces. A tokenizer is trained on words, so that no merge glues two of them together; English shows its
words itself.
"""

import re
from functools import lru_cache

from chainrule.world.chinese import CHINESE
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


def word_types(t: Tongue) -> set[str]:
    """Every word of a language: of the lexicons, and of the patterns around them."""
    words: set[str] = set()
    for value in vars(t).values():
        for phrase in value if isinstance(value, tuple) else (value,):
            bare = re.sub(r"\{\w+\}", " ", phrase)
            words |= set(re.findall(r"[A-Za-z]+", bare) if t.code == "en" else re.findall(r"[一-鿿]+", bare))
    return words
