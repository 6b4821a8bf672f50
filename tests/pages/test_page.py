import re
from html.parser import HTMLParser

import pytest

from chainrule.pages.figure import Bar, BarChart
from chainrule.pages.page import Code, Data, Figure, Numbers, Page, Pair, Prose, Samples, Section
from chainrule.pages.svg import COLOURS
from chainrule.pages.table import Table

EVIL = "<script>alert('x')</script> & \"quotes\" \x00"
CHART = BarChart(title=EVIL, unit=EVIL, bars=[Bar(name=EVIL, value=1.0)])
PAGE = Page(
    title=EVIL,
    lead=[EVIL, "中文的介绍。"],
    above=[Numbers(items=[(EVIL, EVIL, EVIL)])],
    sections=[
        Section(
            title=EVIL,
            blocks=[
                Prose(paragraphs=[EVIL, "type `make <quickstart>`"]),
                Code(text=EVIL),
                Samples(items=[(EVIL, EVIL)]),
                Figure(drawing=CHART, caption=EVIL),
                Pair(drawings=[(EVIL, CHART), ("b", CHART)], caption=EVIL),
                Data(table=Table(names=(EVIL, "b"), rows=[(EVIL, "2")], numbers=frozenset({1})), caption=EVIL),
            ],
        )
    ],
    foot=EVIL,
)
VOID = {"meta", "br", "wbr", "link", "img", "input"}


class Balance(HTMLParser):
    """Checks that every element is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag, attrs) -> None:
        self.seen.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.seen.add(tag)

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag


def test_every_element_is_closed() -> None:
    parser = Balance()
    parser.feed(PAGE.html())
    assert parser.open == []
    assert {"svg", "table", "pre", "dl", "h1", "h2", "figcaption"} <= parser.seen


def test_no_text_becomes_markup() -> None:
    assert "<script" not in PAGE.html()
    assert "\x00" not in PAGE.html()
    assert PAGE.html().count("&lt;script&gt;") >= 15


def test_a_page_fetches_nothing() -> None:
    page = PAGE.html()
    assert not re.search(r"https?:|//[a-z]|url\(|@import|src=|href=", page)
    assert "default-src 'none'" in page


def test_a_page_suits_phones_and_both_themes() -> None:
    page = PAGE.html()
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert "prefers-color-scheme: dark" in page
    assert page.count('<div class="wide">') == page.count('<div class="narrow">') == 1


def test_chinese_paragraphs_carry_their_language() -> None:
    assert '<p class="lead" lang="zh-Hans">中文的介绍。</p>' in PAGE.html()


def test_the_chinese_half_of_a_heading_carries_its_language() -> None:
    section = Section(title="Cost · 代价", blocks=[])
    assert '<h2>Cost · <span lang="zh-Hans">代价</span></h2>' in section.html()
    assert (
        '<th scope="col"><span lang="zh-Hans">地方</span></th><th scope="col">p</th>'
        in Table(names=("地方", "p"), rows=[]).html()
    )


def test_what_scrolls_sideways_can_be_reached_and_has_a_name() -> None:
    table = Table(names=("model", "b"), rows=[])
    assert 'role="region" tabindex="0" aria-label="Bits by rung"' in Data(table=table, caption="Bits by `rung`").html()
    assert 'role="region" tabindex="0" aria-label="model"' in Data(table=table).html()
    assert Code(text="x").html().startswith('<pre role="region" tabindex="0" aria-label="')


def light(colour: str) -> float:
    """The relative luminance of a colour, as the guidelines for accessible pages (WCAG 2) have it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


@pytest.mark.parametrize("theme", COLOURS.split("@media"), ids=["light", "dark"])
def test_every_tone_can_be_told_from_the_paper_and_read_where_it_is_a_texts(theme) -> None:
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", theme))
    assert len(colours) == 15
    for name, colour in colours.items():
        dark, bright = sorted((light(colour), light(colours["paper"])))
        if name.startswith("tone-"):
            assert (bright + 0.05) / (dark + 0.05) >= (3 if name == "tone-5" else 4.5), name  # no text has tone 5


def test_back_quotes_are_set_as_code() -> None:
    assert "type <code>make &lt;quickstart&gt;</code>" in PAGE.html()


def test_a_table_refuses_a_row_of_another_length() -> None:
    with pytest.raises(ValueError, match="2 columns has a row of 1"):
        Table(names=("a", "b"), rows=[("x",)])


def test_table_columns_align_under_chinese() -> None:
    from chainrule.pages.text import columns

    table = Table(names=("model", "中文"), rows=[("字节 3-gram", "1.2"), ("x", "10.25")], numbers=frozenset({1}))
    assert {columns(line) for line in table.text().split("\n")} == {len("字节 3-gram") + 2 + 2 + 5}
