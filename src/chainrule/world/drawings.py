"""Pictures of the world: how things stand at the end of a story, 64 × 64 pixels, with the words that say it.

Two people stand side by side, each in a half of the picture. Whatever it says has a look of its own and can be read back:

    where      the place's sky and ground: 4 × 4 colours
    who        everybody in the world is known by their clothes: 5 colours of hair × 6 of a shirt
    what       a form and a colour: 6 × 4, each in its own rows, the first that somebody got on top
    how many   as often as it is drawn, five to a row

What they work as cannot be seen, and neither can what nobody has; so the description does not speak of it, and one picture
has one description. NumPy only.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from chainrule.world.chats import tell
from chainrule.world.story import State
from chainrule.world.texts import LANGUAGES, SPLITS, TONGUES, Split, check, held_out

SIDE, HALF = 64, 32
HORIZON = 18
"""Above it the sky, below it the ground, on which the things lie."""
ICON, STEP, IN_A_ROW = 5, 6, 5
"""Pixels of a thing, pixels from one to the next, and how many stand beside each other."""
KINDS_AT_MOST = 3
"""So many kinds of things have room below a person, two rows each."""

Colour = tuple[int, int, int]
SKIES: tuple[Colour, ...] = ((186, 222, 250), (250, 214, 190), (206, 206, 222), (88, 96, 150))
GROUNDS: tuple[Colour, ...] = ((196, 228, 176), (240, 228, 188), (214, 196, 178), (232, 232, 232))
HAIRS: tuple[Colour, ...] = ((40, 30, 20), (150, 90, 40), (226, 186, 80), (190, 60, 30), (140, 140, 140))
SHIRTS: tuple[Colour, ...] = ((200, 30, 60), (30, 90, 200), (20, 130, 70), (240, 160, 20), (120, 50, 150), (250, 250, 250))
PAINTS: tuple[Colour, ...] = ((214, 39, 40), (31, 80, 180), (20, 110, 40), (20, 20, 20))
SKIN: Colour = (244, 200, 164)
LEGS: Colour = (70, 60, 60)

FORMS = tuple(
    np.array([[pixel == "#" for pixel in row] for row in form.split()])
    for form in (
        "##### ##### ##### ##### #####",
        ".###. ##### ##### ##### .###.",
        "..#.. ..#.. ##### ..#.. ..#..",
        "#...# .#.#. ..#.. .#.#. #...#",
        "..#.. ..#.. .###. .###. #####",
        "##### #...# #...# #...# #####",
    )
)
"""A square, a disc, a cross, a saltire, a triangle, a frame."""
PLACES = tuple(product(SKIES, GROUNDS))
LOOKS = tuple(product(HAIRS, SHIRTS))
THINGS = tuple(product(range(len(FORMS)), PAINTS))


@dataclass(frozen=True)
class Seen:
    """What is seen of one person: who, in which place, and how many of which things, as (thing, count)."""

    who: int
    place: int
    have: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Picture:
    """A scene: who is seen from left to right, the language it is described in, and the story at whose end it stands."""

    people: tuple[Seen, ...]
    language: str
    story: str

    @property
    def facts(self) -> str:
        """What the split hashes."""
        return ";".join(f"{one.who}@{one.place}:" + ",".join(f"{n}*{what}" for what, n in one.have) for one in self.people)

    @property
    def split(self) -> Split:
        """Where the picture belongs, by its facts."""
        return "heldout" if held_out(self.facts) else "train"

    @property
    def text(self) -> str:
        """The description, in the world's own plain sentences: where each one is and what they have."""
        t = TONGUES[self.language]
        said: list[str] = []
        for one in self.people:
            name = t.names[one.who]
            said.append(t.is_at[0].format(name=name, place=t.places[one.place]))
            said += [t.holds[0].format(name=name, things=t.things(n, what)) for what, n in one.have]
        return "".join(said).strip()

    def pixels(self) -> NDArray[np.uint8]:
        """The picture, ``64 64 3``, 0 to 255."""
        image = np.zeros((SIDE, SIDE, 3), np.uint8)
        for i, one in enumerate(self.people):
            _draw(image[:, i * HALF : (i + 1) * HALF], one)
        return image


def pictures(seed: int, *, split: Split = "train", language: str | None = None) -> Iterator[Picture]:
    """Pictures without end, the i-th a function of (seed, i) alone; stories whose people have too much to draw are left out."""
    check("pictures", split=(split, SPLITS), language=(language, LANGUAGES))
    i = 0
    while True:
        rng = random.Random(f"picture {seed} {i}")
        spoken = language or rng.choice(LANGUAGES)
        story, state = tell(rng, TONGUES[spoken])
        picture = Picture(tuple(_seen(state, who) for who in state.cast), spoken, story)
        if picture.split == split and all(len(one.have) <= KINDS_AT_MOST for one in picture.people):
            yield picture
        i += 1


def _seen(state: State, who: int) -> Seen:
    return Seen(who, state.place[who], tuple((what, n) for what, n in state.owned(who) if n))


def _draw(panel: NDArray[np.uint8], one: Seen) -> None:
    """One person in their place, over their things, into half a picture (``64 32 3``)."""
    panel[:HORIZON], panel[HORIZON:] = PLACES[one.place]
    hair, shirt = LOOKS[one.who]
    middle = HALF // 2
    panel[3:5, middle - 3 : middle + 3] = hair
    panel[5:9, middle - 2 : middle + 2] = SKIN
    panel[9:16, middle - 4 : middle + 4] = shirt
    panel[16:22, middle - 3 : middle - 1] = panel[16:22, middle + 1 : middle + 3] = LEGS
    for row, (what, count) in enumerate(one.have):
        form, paint = THINGS[what]
        for i in range(count):
            y, x = corner(row, i)
            panel[y : y + ICON, x : x + ICON][FORMS[form]] = paint


def corner(kind: int, i: int) -> tuple[int, int]:
    """Where in a half the i-th thing of the so manieth kind has its top left pixel (row, column)."""
    line, column = divmod(i, IN_A_ROW)
    return HORIZON + 7 + STEP * (2 * kind + line), 2 + STEP * column
