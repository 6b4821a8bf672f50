"""Documents of the world: drawn, scored exactly, and split by their facts.

    p(text) is the probability under the whole world; training text is drawn from it with the held-out facts left out.

Which facts are held out is decided by a hash, so that it depends on nothing but the facts: a story's cast with where they
start and what they have, a page's sums or programs in their order. The table of single sums is there to be known by heart.
"""

import hashlib
import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from chainrule.core.errors import DataError, nearest
from chainrule.world import drivers
from chainrule.world.chinese import CHINESE
from chainrule.world.choice import Choice
from chainrule.world.drivers import Grammar
from chainrule.world.english import ENGLISH
from chainrule.world.programs import page as program_page
from chainrule.world.story import State, leads, story
from chainrule.world.sums import page as sum_page
from chainrule.world.tongue import Tongue

VERSION = 4
"""Raised where the same seeds tell other texts than before. 2: a chat's questions of counts ask what has changed. 3: whatever
happens, is so or is asked is said in one of several ways; a chat's sums are held out as sums. 4: the texts of 3;
chats come to speak of other things in between, and more is asked that lies outside."""
SPLIT_SALT = "world 1"
"""What the facts are hashed with. It does not follow ``VERSION``: another salt would move facts from one side to the other, and
a model of an older world would be judged on what it was trained on."""
LANGUAGES = ("en", "zh")
TONGUES = {tongue.code: tongue for tongue in (ENGLISH, CHINESE)}
KINDS = {"story": 0.82, "sums": 0.11, "programs": 0.07}
HELD_OUT = 0.1
"""The share of facts that training never sees."""

Split = Literal["train", "heldout"]
SPLITS = get_args(Split)
"""The parts of the world, by the facts that a text is about."""


@dataclass(frozen=True)
class Document:
    """A text with the phrases it was drawn as, its exact log-probability in nats, and what it is about."""

    text: str
    phrases: tuple[str, ...]
    logp: float
    language: str
    kind: str
    facts: str

    @property
    def split(self) -> Split:
        """Where the document belongs, by its facts."""
        return "heldout" if held_out(self.facts) else "train"


def held_out(facts: str) -> bool:
    """Whether training leaves these facts out."""
    digest = hashlib.sha256(f"{SPLIT_SALT}: {facts}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < HELD_OUT * 2**64


def _first() -> Choice:
    """How any document begins: this tells its language and its kind."""
    options: list[tuple[str, float, tuple[str, str, tuple[str, int]]]] = []
    for code, t in TONGUES.items():
        start = leads(t)
        for i, phrase in enumerate(start.phrases):
            options.append((phrase, 0.5 * KINDS["story"] * start.probability(i), (code, "story", start.outcomes[i])))
        options.append((t.sums, 0.5 * KINDS["sums"], (code, "sums", ("", 0))))
        options.append((t.programs, 0.5 * KINDS["programs"], (code, "programs", ("", 0))))
    return Choice(options)


FIRST = _first()


def document() -> Grammar:
    """The grammar of every text of the world; returns (language, kind, facts)."""
    code, kind, lead = yield FIRST
    return (yield from _rest(TONGUES[code], kind, lead))


def _rest(t: Tongue, kind: str, lead: tuple[str, int]) -> Grammar:
    state = State()
    if kind == "story":
        yield from story(t, state, lead)
    else:
        yield from (sum_page if kind == "sums" else program_page)(t, state.facts)
    return t.code, kind, ";".join(state.facts)


def draw(rng: random.Random) -> Document:
    """One document of the whole world."""
    drawn = drivers.sample(document(), rng)
    return Document(drawn.text, tuple(drawn.phrases), drawn.logp, *drawn.about)


def documents(seed: int, *, split: Split = "train", language: str | None = None, kind: str | None = None) -> Iterator[Document]:
    """Documents without end, the i-th a function of (seed, i) alone; optionally of one language or kind."""
    check("documents", split=(split, SPLITS), language=(language, LANGUAGES), kind=(kind, KINDS))
    i = 0
    while True:
        found = draw(random.Random(f"{seed} {i}"))
        if found.split == split and language in (None, found.language) and kind in (None, found.kind):
            yield found
        i += 1


def check(what: str, /, **asked: tuple[str | None, Collection[str]]) -> None:
    """Raise ``DataError`` where something is asked of the world that is not among what it has; None asks for nothing."""
    for name, (value, known) in asked.items():
        if value is not None and value not in known:
            raise DataError(f"the world's {what} have no {name} {value!r}{nearest(value, known)}")


def logp(text: str) -> float:
    """log p(text) in nats, exact, the certainty of its end included; −inf outside the language."""
    return drivers.logp(document(), text)


def reader() -> drivers.Reader:
    """A reader at the beginning of a document."""
    return drivers.Reader(document)
