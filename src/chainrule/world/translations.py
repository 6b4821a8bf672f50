"""Pairs of texts that say the same in both languages: a parallel corpus whose every pair is exact.

One grammar tells the stories of both languages (``world.tongue``), so a translation is the same draws, told twice. Where the
two lists of words do not stand side by side, ``SAME`` says which Chinese word means what an English one does; what only one of
the languages can say (a rose, a vase) is not drawn. Names are translated by the lists too: Tom is 小明.

The texts are beginnings of stories: people arrive, and things happen. Held out are pairs by the hash of their facts (who
arrives where with how many of what), so that a story held out in English is held out here.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from chainrule.core.errors import DataError
from chainrule.world.chinese import CHINESE
from chainrule.world.drivers import Grammar
from chainrule.world.english import ENGLISH
from chainrule.world.story import State, act, any_of, arrivals, arrive, people
from chainrule.world.texts import SPLITS, Split, check, held_out
from chainrule.world.tongue import Tongue

SAME: dict[str, dict[str, str | None]] = {
    "places": {"the library": "图书馆", "the room": "仙II-212"},
    "one": {"rose": None},
    "natures": {
        "sweet ": "可爱的", "frank ": None, "merry ": "活泼的", "loyal ": "忠诚的", "modest ": "谦虚的",
    },
}  # fmt: skip
"""English words whose Chinese is not in the same place of its list; None where it is in none."""
ABSENT = "\0"
"""Stands in a list for a word that the other language lacks."""
MOST_PEOPLE, MOST_EVENTS = 4, 12


@dataclass(frozen=True)
class Translation:
    """A text in both languages, and what it is about."""

    en: str
    zh: str
    facts: str

    @property
    def pairs(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """(source, target), English to Chinese and back."""
        return (self.en, self.zh), (self.zh, self.en)

    @property
    def split(self) -> Split:
        """Where the pair belongs, by its facts."""
        return "heldout" if held_out(self.facts) else "train"


def translations(seed: int, *, split: Split = "train", people: int = 2, events: int = 3) -> Iterator[Translation]:
    """Pairs without end, the i-th a function of (seed, i) alone: one to ``people`` people, and up to ``events`` events.

    Somebody alone does nothing: events need two.
    """
    check("translations", split=(split, SPLITS))
    for name, value, least, most in (("people", people, 1, MOST_PEOPLE), ("events", events, 0, MOST_EVENTS)):
        if not least <= value <= most:
            raise DataError(f"a story for translation has {name}={value}; it may have {least} to {most}")
    i = 0
    while True:
        rng = random.Random(f"translation {seed} {i}")
        cast = rng.randint(1, people)
        found = draw(rng, cast, rng.randint(0, events) if cast > 1 else 0)
        if found.split == split:
            yield found
        i += 1


def draw(rng: random.Random, cast: int, events: int) -> Translation:
    """One story of so many people and events, told twice."""
    state = State()
    en, zh = _together(_beginning(ENGLISH, state, cast, events), _beginning(chinese(), State(), cast, events), rng)
    return Translation(en.strip(), zh, ";".join(state.facts))


def _together(english: Grammar, chinese: Grammar, rng: random.Random) -> tuple[str, str]:
    """Draw once, tell twice: every choice of one grammar has its like, in the same order, in the other."""
    en, zh = "", ""
    try:
        ours, theirs = next(english), next(chinese)
        while True:
            i = ours.draw(rng)
            while ABSENT in theirs.phrases[i]:
                i = ours.draw(rng)
            en, zh = en + ours.phrases[i], zh + theirs.phrases[i]
            ours, theirs = english.send(ours.outcomes[i]), chinese.send(theirs.outcomes[i])
    except StopIteration:
        return en, zh


@cache
def chinese() -> Tongue:
    """Chinese with its words in the order of the English ones; ``ABSENT`` where there is none."""
    lists: dict[str, Any] = {}
    for name, exceptions in SAME.items():
        english, words = getattr(ENGLISH, name), getattr(CHINESE, name)
        lists[name] = tuple(exceptions.get(word, beside) or ABSENT for word, beside in zip(english, words, strict=True))
    return replace(CHINESE, **lists, many=lists["one"])


def _beginning(t: Tongue, state: State, cast: int, events: int) -> Grammar:
    """People arrive, then one event after the other; a change of counts may be said again."""
    for _ in range(cast):
        yield arrivals(t)
        yield from arrive(t, state)
    for _ in range(events):
        who = yield people(t, tuple(state.cast), t.subject)
        restated = yield from act(t, state, who)
        if restated:
            yield any_of(restated)
