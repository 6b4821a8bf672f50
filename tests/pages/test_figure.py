import math
import re
from xml.etree import ElementTree

import pytest

from chainrule.pages.figure import NARROW, WIDE, Bar, BarChart, Curve, GroupedBars, LineChart, Rule, Series

LOSS = LineChart(
    title="Loss & <entropy>",
    x="tokens",
    y="bits per byte",
    curves=[
        Curve(name="held-out 中文", points=[(0, 8.0), (1e6, 1.0), (2e6, 0.6)]),
        Curve(name="noisy", points=[(0, 8.0), (1e6, math.nan), (2e6, 0.7)], tone=5),
    ],
    rules=[Rule(name="entropy 0.5", value=0.5)],
    log_y=True,
)
LADDER = BarChart(
    title="Ladder",
    unit="bits per byte",
    bars=[Bar(name="uniform", value=8.0), Bar(name="three", value=None), Bar(name="ML 四元", value=math.inf)],
    rules=[Rule(name="truth", value=0.5)],
)
CHATS = GroupedBars(
    title="Chats",
    unit="%",
    groups=["recall", "算术"],
    series=[Series(name="before", values=[0.0, None]), Series(name="after", values=[98.0, 91.5], tone=2)],
    high=100,
)
EXCESS = BarChart(
    title="Excess",
    unit="",
    origin=0.5,
    bars=[Bar(name="a", value=1.0), Bar(name="b", value=2.0), Bar(name="truth", value=0.5), Bar(name="c", value=4.0)],
)
ALL = [LOSS, LADDER, CHATS, EXCESS]


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in parsed(svg).iter() if element.tag.endswith("text")]


def bars(svg: str, height: float) -> list[float]:
    return [float(e.attrib["width"]) for e in parsed(svg).iter("rect") if float(e.attrib["height"]) == height]


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("chart", ALL, ids=lambda chart: chart.title)
def test_every_figure_is_valid_xml_with_a_role_and_a_title(chart, width) -> None:
    root = parsed(chart.svg(width))
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == chart.title
    assert root.find("title").text == chart.title  # type: ignore[union-attr]
    assert root.attrib["viewBox"].startswith(f"0 0 {width:g} ")


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("chart", ALL, ids=lambda chart: chart.title)
def test_every_mark_stays_within_the_figure(chart, width) -> None:
    root = parsed(chart.svg(width))
    height = float(root.attrib["viewBox"].split()[3])
    for element in root.iter():
        for key in ("x", "x1", "x2", "cx"):
            assert -0.01 <= float(element.attrib.get(key, 0)) <= width + 0.01, ElementTree.tostring(element)
        for key in ("y", "y1", "y2", "cy"):
            assert -0.01 <= float(element.attrib.get(key, 0)) <= height + 0.01, ElementTree.tostring(element)
        for x, y in re.findall(r"([\d.]+) ([\d.]+)", element.attrib.get("d", "")):
            assert float(x) <= width
            assert float(y) <= height


def test_a_figure_says_what_it_draws() -> None:
    assert {"held-out 中文", "noisy", "entropy 0.5", "tokens", "bits per byte"} <= set(texts(LOSS.svg()))
    assert {"uniform", "8.000", "—", "∞", "truth"} <= set(texts(LADDER.svg()))
    assert {"before", "after", "recall", "算术", "98.0", "—"} <= set(texts(CHATS.svg()))


def test_a_curve_breaks_where_a_value_is_missing() -> None:
    root = parsed(LOSS.svg())
    assert len(list(root.iter("path"))) == 1  # the noisy curve is two lone points
    assert len(list(root.iter("circle"))) == 2


def test_chinese_labels_carry_their_language() -> None:
    marked = [e.text for e in parsed(LOSS.svg()).iter("text") if e.attrib.get("lang") == "zh-Hans"]
    assert marked == []  # "held-out 中文" is mostly English
    assert [e.text for e in parsed(CHATS.svg()).iter("text") if e.attrib.get("lang") == "zh-Hans"] == ["算术"]


def test_bars_are_as_long_as_their_values() -> None:
    chart = BarChart(title="", unit="", bars=[Bar(name="a", value=1.0), Bar(name="b", value=2.0)])
    one, two = bars(chart.svg(), 14)
    assert two == pytest.approx(2 * one, abs=0.02)


def test_an_infinite_bar_is_as_long_as_the_axis_and_a_missing_one_a_hair() -> None:
    uniform, missing, infinite = bars(LADDER.svg(), 14)
    assert infinite == uniform
    assert missing == 0.75


def test_bars_from_an_origin_are_long_in_the_logarithm() -> None:
    one, two, truth, three = bars(EXCESS.svg(), 14)
    assert two == pytest.approx(2 * one, abs=0.02)
    assert three == pytest.approx(3 * one, abs=0.02)
    assert truth == 0.75


def test_text_is_as_large_on_a_phone_as_on_a_desk() -> None:
    # the narrow figure is drawn anew: as many labels, none of them scaled
    assert "transform" not in LADDER.svg(NARROW)
    assert set(texts(LADDER.svg(NARROW))) == set(texts(LADDER.svg(WIDE)))


def test_a_chart_without_points_is_drawn_empty() -> None:
    chart = LineChart(title="nothing yet", x="tokens", y="nats", curves=[Curve(name="a", points=[])])
    assert parsed(chart.svg()).find("title").text == "nothing yet"  # type: ignore[union-attr]
    assert parsed(BarChart(title="none", unit="", bars=[]).svg()) is not None
