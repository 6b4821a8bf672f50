"""Stacked columns: heights that add up, names where there is room."""

from xml.etree import ElementTree

import pytest

from chainrule.core.errors import DataError
from chainrule.pages.columns import Columns
from chainrule.pages.figure import NARROW, WIDE, Series


def columns(n, **more):
    series = [Series(name="a", values=[1.0] * n), Series(name="b", values=[3.0] * (n - 1) + [None], tone=2)]
    return Columns(**({"title": "T", "x": "layer", "y": "work", "names": [str(i) for i in range(n)], "series": series} | more))


def rects(svg):
    return [{k: float(v) for k, v in e.attrib.items() if k in ("x", "y", "width", "height")}
            for e in ElementTree.fromstring(svg).iter("rect") if "rx" not in e.attrib]  # fmt: skip


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("n", [1, 5, 81])
def test_a_series_lies_upon_the_one_before_and_heights_are_in_proportion(n, width):
    drawn = rects(columns(n).svg(width))
    assert len(drawn) == 2 * n - 1
    for low, high in zip(drawn[0:-1:2], drawn[1::2], strict=True):
        assert high["height"] == pytest.approx(3 * low["height"], abs=0.05)
        assert high["y"] + high["height"] == pytest.approx(low["y"], abs=0.02)
    assert all(one["x"] >= 0 and one["x"] + one["width"] <= width for one in drawn)


def test_names_are_told_where_there_is_room_and_the_last_one_always():
    root = ElementTree.fromstring(columns(81, names=[*map(str, range(80)), "head"]).svg(NARROW))
    texts = [element.text for element in root.iter("text")]
    assert "head" in texts
    assert 5 < len(texts) < 40


def test_a_value_for_every_column():
    with pytest.raises(DataError, match="a has 3 values for 2 columns"):
        columns(3, names=["x", "y"])
