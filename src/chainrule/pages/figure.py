"""Three figures: curves against a reference, a ladder of bars, and bars in groups.

Each is a frozen dataclass of numbers and words with ``svg(width)``: drawn anew for a desk and for a phone, so that its
text has the same size on both. A value of None is a gap, an infinite one an open-ended bar. Tone 0 is the truth's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from chainrule.pages.scale import Scale
from chainrule.pages.svg import LEADING, SIZE, figure, legend, tag, words
from chainrule.pages.text import clip, compact, ems, fixed, scientific

WIDE, NARROW = 720.0, 350.0
TRUTH = 0
BOLD = 1.12
"""So many times as wide are letters of a strong name."""


class Drawn(Protocol):
    """Anything that draws itself as an inline SVG of a given width."""

    @property
    def title(self) -> str:
        """What it shows, for those who cannot see it."""
        ...

    def svg(self, width: float = WIDE) -> str:
        """The figure, ``width`` units wide and as high as it needs."""
        ...


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A named line through points (x, y), ordered by x."""

    name: str
    points: Sequence[tuple[float, float]]
    tone: int = 1


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A reference value with its label, such as the entropy no model can fall below."""

    name: str
    value: float
    tone: int = TRUTH


@dataclass(frozen=True, kw_only=True)
class LineChart:
    """Curves over a common x, with horizontal reference lines; y may be logarithmic."""

    title: str
    x: str
    y: str
    curves: Sequence[Curve]
    rules: Sequence[Rule] = ()
    log_y: bool = False

    def svg(self, width: float = WIDE) -> str:
        names, head = legend([(curve.name, curve.tone) for curve in self.curves], width)
        plot = _Plot(chart=self, width=width, top=head + LEADING)
        marks = [*names, words(0, head + SIZE - 2, self.y, "faint"), *plot.grid(), *plot.curves(), *plot.rules()]
        return figure(self.title, width, plot.bottom + 40, marks)

    def points(self) -> list[tuple[float, float]]:
        """All points that can be drawn."""
        return [point for curve in self.curves for point in curve.points if self.drawable(point)]

    def drawable(self, point: tuple[float, float]) -> bool:
        """Whether a point is finite, and positive where y is logarithmic."""
        x, y = point
        return math.isfinite(x) and math.isfinite(y) and (y > 0 or not self.log_y)


class _Plot:
    """The area of a line chart: its scales, and where a value falls in it."""

    def __init__(self, *, chart: LineChart, width: float, top: float) -> None:
        self.chart, self.width, self.top = chart, width, top
        self.bottom = top + max(190.0, min(300.0, width * 0.42))
        points = chart.points()
        self.across = Scale.over([x for x, _ in points])
        heights = [y for _, y in points] + [rule.value for rule in chart.rules]
        self.up = Scale.over(heights, log=chart.log_y, room=0.02)
        self.foot = 22.0 if chart.rules else 0.0  # room for a label under the lowest reference line
        self.levels = self.up.ticks(5)
        self.left = max(ems(text) for text in self.labels()) * SIZE + 10
        self.right = width - 6

    def labels(self) -> list[str]:
        return tick_labels(self.levels)

    def place(self, x: float, y: float) -> tuple[float, float]:
        return self.left + self.across.at(x) * (self.right - self.left), self.height(y)

    def height(self, y: float) -> float:
        return self.bottom - self.foot - self.up.at(y) * (self.bottom - self.foot - self.top - 6)

    def grid(self) -> list[str]:
        marks: list[str] = []
        for level, text in zip(self.levels, self.labels(), strict=True):
            y = self.height(level)
            marks.append(tag("line", x1=self.left, x2=self.right, y1=y, y2=y, class_="grid"))
            marks.append(words(self.left - 8, y + 4, text, "faint", "end"))
        marks.append(tag("line", x1=self.left, x2=self.right, y1=self.bottom, y2=self.bottom, class_="axis"))
        for value in self.across.ticks(int(self.width / 75)):
            x, _ = self.place(value, self.up.high)
            marks.append(tag("line", x1=x, x2=x, y1=self.bottom, y2=self.bottom + 4, class_="axis"))
            marks.append(words(x, self.bottom + 17, compact(value), "faint", self.anchor(x, compact(value))))
        return [*marks, words(self.right, self.bottom + 34, self.chart.x, "faint", "end")]

    def anchor(self, x: float, text: str) -> str:
        return "end" if x + ems(text) * SIZE / 2 > self.width else "middle"

    def curves(self) -> list[str]:
        marks: list[str] = []
        for curve in self.chart.curves:
            for piece in self.pieces(curve):
                if len(piece) == 1:
                    marks.append(tag("circle", cx=piece[0][0], cy=piece[0][1], r=2.5, class_=f"fill-{curve.tone}"))
                else:
                    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in piece)
                    marks.append(tag("path", d=line, class_=f"curve line-{curve.tone}"))
        return marks

    def pieces(self, curve: Curve) -> list[list[tuple[float, float]]]:
        """The curve on paper, broken where a point cannot be drawn."""
        pieces: list[list[tuple[float, float]]] = [[]]
        for point in curve.points:
            if self.chart.drawable(point):
                pieces[-1].append(self.place(*point))
            elif pieces[-1]:
                pieces.append([])
        return [piece for piece in pieces if piece]

    def rules(self) -> list[str]:
        """Reference lines; a label stands under its line, where curves seldom are, unless another line is there."""
        marks: list[str] = []
        heights = [self.height(rule.value) for rule in self.chart.rules]
        for rule, y in zip(self.chart.rules, heights, strict=True):
            crowded = any(y < other < y + 20 for other in heights)
            marks.append(tag("line", x1=self.left, x2=self.right, y1=y, y2=y, class_=f"rule line-{rule.tone}"))
            where = y - 6 if crowded else y + 15
            marks.append(words(self.right, where, rule.name, f"halo fill-{rule.tone}", "end"))
        return marks


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """One way of writing all numbers of an axis: as many decimals as the finest needs, compact above a thousand.

    Where some are too small for decimals, each is written for itself.

    >>> tick_labels([1e-9, 3e-5, 0.1]), tick_labels([0.25, 1])
    (['10⁻⁹', '3·10⁻⁵', '0.1'], ['0.25', '1.00'])
    """
    if any(0 < abs(tick) < 1e-4 for tick in ticks):
        return [scientific(tick) if 0 < abs(tick) < 1e-3 else compact(tick) for tick in ticks]
    if ticks and max(abs(tick) for tick in ticks) >= 1e4:
        return [compact(tick) for tick in ticks]
    digits = max((len(f"{tick:.10g}".partition(".")[2]) for tick in ticks if "e" not in f"{tick:.10g}"), default=0)
    return [fixed(tick, digits) for tick in ticks]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar with its name; ``text`` is written beside it instead of the bare value."""

    name: str
    value: float | None
    tone: int = 1
    text: str | None = None
    strong: bool = False

    @property
    def label(self) -> str:
        return fixed(self.value) if self.text is None else self.text

    def ems(self, text: str) -> float:
        """How wide a text is in the weight of this bar's name."""
        return ems(text) * (BOLD if self.strong else 1.0)


@dataclass(frozen=True, kw_only=True)
class BarChart:
    """Horizontal bars, one under the other, with vertical reference lines.

    Bars begin at 0; with an ``origin`` above 0 they begin there and are long in the logarithm, so that their length
    is how many times the origin they are. A value below where bars begin has none.
    """

    title: str
    unit: str
    bars: Sequence[Bar]
    rules: Sequence[Rule] = ()
    origin: float = 0.0

    def svg(self, width: float = WIDE) -> str:
        left = min(max((bar.ems(bar.name) for bar in self.bars), default=0) * SIZE + 12, width * 0.42)
        rows = _Rows(self.bars, width, left, self.scale())
        top = LEADING + (LEADING if self.rules else 0) + 4
        bottom = top + 24 * len(self.bars)
        marks = [words(0, SIZE, self.unit, "faint")]
        for i, bar in enumerate(self.bars):
            y = top + 24 * i
            name = clip(bar.name, (left - 12) / SIZE + 1e-6, bar.ems)  # the longest name fits exactly
            marks.append(words(0, y + 16, name, "strong" if bar.strong else None))
            marks.append(rows.bar(bar, y + 5, 14))
        labels = [rows.label(bar, top + 24 * i + 16) for i, bar in enumerate(self.bars)]
        return figure(self.title, width, bottom + 6, [*marks, *self._rules(rows, top, bottom), *labels])

    def scale(self) -> Scale:
        """From where bars begin to the largest finite value."""
        high = _largest([bar.value for bar in self.bars] + [rule.value for rule in self.rules])
        return Scale(low=self.origin, high=max(high, self.origin * 1.01), log=self.origin > 0)

    def _rules(self, rows: "_Rows", top: float, bottom: float) -> list[str]:
        marks: list[str] = []
        for rule in self.rules:
            x = rows.at(rule.value)
            marks.append(tag("line", x1=x, x2=x, y1=top, y2=bottom, class_=f"rule line-{rule.tone}"))
            half = ems(rule.name) * SIZE / 2
            inside = min(max(x, half), rows.width - half)
            marks.append(words(inside, top - 5, rule.name, f"fill-{rule.tone}", "middle"))
        return marks


@dataclass(frozen=True, kw_only=True)
class Series:
    """One value for every group, under one name and tone."""

    name: str
    values: Sequence[float | None]
    tone: int = 1


@dataclass(frozen=True, kw_only=True)
class GroupedBars:
    """Several series of horizontal bars, gathered under the name of each group."""

    title: str
    unit: str
    groups: Sequence[str]
    series: Sequence[Series]
    high: float | None = None

    def svg(self, width: float = WIDE) -> str:
        marks, head = legend([(series.name, series.tone) for series in self.series], width)
        left = min(max((ems(group) for group in self.groups), default=0) * 1.06 * SIZE + 14, width * 0.4)
        bars = [self._bar(series, i) for i in range(len(self.groups)) for series in self.series]
        high = self.high or _largest([bar.value for bar in bars])
        rows = _Rows(bars, width, left, Scale(low=0.0, high=high))
        marks.append(words(0, head + SIZE - 2, self.unit, "faint"))
        y = head + LEADING + 2
        for i, group in enumerate(self.groups):
            height = 15 * len(self.series)
            marks.append(words(0, y + min(height / 2 + 4, 24), clip(group, (left - 14) / SIZE, ems), "strong"))
            for series in self.series:
                marks.append(rows.bar(self._bar(series, i), y + 2, 11))
                marks.append(rows.label(self._bar(series, i), y + 11.5))
                y += 15
            y += 12
        return figure(self.title, width, y, marks)

    def _bar(self, series: Series, i: int) -> Bar:
        value = series.values[i]
        return Bar(name=series.name, value=value, tone=series.tone, text=fixed(value, 1))


class _Rows:
    """What horizontal bars share: where they begin, and how long a value is."""

    def __init__(self, bars: Sequence[Bar], width: float, left: float, scale: Scale) -> None:
        self.width, self.left, self.scale = width, left, scale
        self.right = width - max((bar.ems(bar.label) for bar in bars), default=0) * SIZE - 8

    def at(self, value: float) -> float:
        """Where a value ends; one beyond the axis ends with the axis."""
        if math.isnan(value) or value <= self.scale.low:
            return self.left
        return self.right if value >= self.scale.high else self.left + self.scale.at(value) * (self.right - self.left)

    def end(self, bar: Bar) -> float:
        return self.left if bar.value is None else self.at(bar.value)

    def bar(self, bar: Bar, y: float, height: float) -> str:
        long = max(self.end(bar) - self.left, 0.75)
        return tag("rect", x=self.left, y=y, width=long, height=height, class_=f"fill-{bar.tone}")

    def label(self, bar: Bar, y: float) -> str:
        return words(self.end(bar) + 6, y, bar.label, "halo strong" if bar.strong else "halo")


def _largest(values: Sequence[float | None]) -> float:
    """The largest finite value above 0, or 1 where there is none."""
    return max((value for value in values if value is not None and 0 < value < math.inf), default=1.0)
