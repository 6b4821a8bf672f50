"""Stacked columns: one for each of many places in order, such as the layers of a model, its parts one upon the other."""

from collections.abc import Sequence
from dataclasses import dataclass

from chainrule.core.errors import DataError
from chainrule.pages.figure import WIDE, Series, tick_labels
from chainrule.pages.scale import Scale
from chainrule.pages.svg import LEADING, SIZE, figure, legend, tag, words
from chainrule.pages.text import ems

WIDEST = 64.0
"""No column is wider than this, however few there are."""


@dataclass(frozen=True, kw_only=True)
class Columns:
    """``names`` are the columns from left to right; each series has a value for every column, and lies upon the one before."""

    title: str
    x: str
    y: str
    names: Sequence[str]
    series: Sequence[Series]

    def __post_init__(self) -> None:
        for one in self.series:
            if len(one.values) != len(self.names):
                raise DataError(f"{self.title}: {one.name} has {len(one.values)} values for {len(self.names)} columns")

    def svg(self, width: float = WIDE) -> str:
        marks, head = legend([(one.name, one.tone) for one in self.series], width)
        marks.append(words(0, head + SIZE - 2, self.y, "faint"))
        top = head + LEADING
        bottom = top + max(150.0, min(240.0, width * 0.36))
        up = Scale(low=0.0, high=max([*self.totals(), 1e-12]) * 1.02)
        levels = up.ticks(4)
        labels = tick_labels(levels)
        left = max(ems(label) for label in labels) * SIZE + 10
        for level, label in zip(levels, labels, strict=True):
            y = bottom - up.at(level) * (bottom - top - 6)
            marks.append(tag("line", x1=left, x2=width, y1=y, y2=y, class_="axis" if level == 0 else "grid"))
            marks.append(words(left - 8, y + 4, label, "faint", "end"))
        marks += [*self._columns(left, width, bottom, (bottom - top - 6) / up.high), *self._names(left, width, bottom)]
        return figure(self.title, width, bottom + 40, [*marks, words(width, bottom + 34, self.x, "faint", "end")])

    def totals(self) -> list[float]:
        """How high each column is."""
        return [sum(one.values[i] or 0.0 for one in self.series) for i in range(len(self.names))]

    def _columns(self, left: float, width: float, bottom: float, unit: float) -> list[str]:
        marks: list[str] = []
        room = (width - left) / max(len(self.names), 1)
        wide = min(room * 0.8 if room > 8 else room - 1, WIDEST)
        for i in range(len(self.names)):
            y = bottom
            for one in self.series:
                height = (one.values[i] or 0.0) * unit
                y -= height
                if height > 0:
                    where = {"x": left + (i + 0.5) * room - wide / 2, "y": y, "width": wide, "height": height}
                    marks.append(tag("rect", class_=f"fill-{one.tone}", **where))
        return marks

    def _names(self, left: float, width: float, bottom: float) -> list[str]:
        """The names under the columns: as many as there is room for, the last one always."""
        room = (width - left) / max(len(self.names), 1)
        marks: list[str] = []
        end = width + SIZE
        for i in reversed(range(len(self.names))):
            half = ems(self.names[i]) * SIZE / 2
            at = min(left + (i + 0.5) * room, width - half)
            if at + half + 8 <= end:
                marks.append(words(at, bottom + 17, self.names[i], "faint", "middle"))
                end = at - half
        return marks
