"""Pictures of the world: two to four shapes on a plain ground, 64 × 64 pixels, with the words that describe them.

A picture is drawn from the same kind of draws as a text: every shape has a colour, a size and a cell of a three by three grid,
and all of them are said. So the description of a picture is exact, and one picture has one description. NumPy only.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from chainrule.world.texts import LANGUAGES, SPLITS, Split, check, held_out

SIDE = 64
CELL = SIDE // 3
GROUND = (245, 245, 240)
COLOURS = {
    "red": (214, 39, 40),
    "blue": (31, 100, 200),
    "green": (44, 140, 60),
    "yellow": (240, 200, 40),
    "black": (20, 20, 20),
}
SHAPES = ("circle", "square", "triangle", "cross")
RADII = {"small": 4.5, "big": 8.5}
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")
CHINESE = {
    "red": "红色", "blue": "蓝色", "green": "绿色", "yellow": "黄色", "black": "黑色", "circle": "圆形", "square": "正方形",
    "triangle": "三角形", "cross": "十字", "small": "小", "big": "大", "top": "上", "middle": "中", "bottom": "下",
    "left": "左", "centre": "中", "right": "右",
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """One shape: its look, and its cell counted row by row from the top left."""

    form: str
    colour: str
    size: str
    cell: int


@dataclass(frozen=True)
class Picture:
    """A scene, its pixels (``64 64 3``, 0 to 255) and its description."""

    shapes: tuple[Shape, ...]
    language: str

    @property
    def facts(self) -> str:
        """What the split hashes."""
        return ";".join(f"{s.form},{s.colour},{s.size},{s.cell}" for s in self.shapes)

    @property
    def split(self) -> Split:
        """Where the picture belongs, by its facts."""
        return "heldout" if held_out(self.facts) else "train"

    @property
    def text(self) -> str:
        """The description, cell by cell."""
        said = [_say(shape, self.language) for shape in self.shapes]
        return "。".join(said) + "。" if self.language == "zh" else " ".join(f"{one}." for one in said)

    def pixels(self) -> NDArray[np.uint8]:
        """The picture."""
        image = np.empty((SIDE, SIDE, 3), np.uint8)
        image[:] = GROUND
        for shape in self.shapes:
            image[_covers(shape)] = COLOURS[shape.colour]
        return image


def pictures(seed: int, *, split: Split = "train", language: str | None = None) -> Iterator[Picture]:
    """Pictures without end, the i-th a function of (seed, i) alone."""
    check("pictures", split=(split, SPLITS), language=(language, LANGUAGES))
    i = 0
    while True:
        rng = random.Random(f"picture {seed} {i}")
        cells = sorted(rng.sample(range(9), rng.randint(2, 4)))
        shapes = tuple(Shape(rng.choice(SHAPES), rng.choice(list(COLOURS)), rng.choice(list(RADII)), cell) for cell in cells)
        picture = Picture(shapes, language or rng.choice(LANGUAGES))
        if picture.split == split:
            yield picture
        i += 1


def _say(shape: Shape, language: str) -> str:
    row, column = ROWS[shape.cell // 3], COLUMNS[shape.cell % 3]
    if language == "en":
        return f"A {shape.size} {shape.colour} {shape.form} at the {row} {column}"
    z = CHINESE
    return f"{z[row]}{z[column]}有一个{z[shape.size]}{z[shape.colour]}{z[shape.form]}"


def _covers(shape: Shape) -> NDArray[np.bool_]:
    """Which pixels a shape covers."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    dy, dx = y - (shape.cell // 3 + 0.5) * CELL, x - (shape.cell % 3 + 0.5) * CELL
    r = RADII[shape.size]
    inside = {
        "circle": dx**2 + dy**2 <= r**2,
        "square": np.maximum(abs(dx), abs(dy)) <= r * 0.9,
        "triangle": (dy <= r) & (dy >= 2 * abs(dx) - r),
        "cross": (np.minimum(abs(dx), abs(dy)) <= r * 0.3) & (np.maximum(abs(dx), abs(dy)) <= r),
    }
    return inside[shape.form]
