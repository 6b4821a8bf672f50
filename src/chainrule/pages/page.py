"""A report page: one HTML file with its style inside, which fetches nothing and reads well on a desk and on a phone.

A page is a title, a few lead paragraphs and sections; a section is a list of blocks. Every text is escaped; between
back-quotes it is set as code. Figures are drawn twice, wide and narrow, and the style sheet shows the one that fits.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from chainrule.pages.figure import NARROW, WIDE, Drawn
from chainrule.pages.svg import COLOURS, FIGURES
from chainrule.pages.table import Table, speech, spoken
from chainrule.pages.text import escape


@dataclass(frozen=True, kw_only=True)
class Prose:
    """Paragraphs."""

    paragraphs: Sequence[str]

    def html(self) -> str:
        return "".join(f"<p{speech(text)}>{prose(text)}</p>" for text in self.paragraphs)


@dataclass(frozen=True, kw_only=True)
class Code:
    """Lines to type, or that a program wrote, as they are."""

    text: str

    def html(self) -> str:
        return f'<pre role="region" tabindex="0" aria-label="code"><code>{escape(self.text)}</code></pre>'


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """The few numbers that matter most: each a value, what it is, and a word on it."""

    items: Sequence[tuple[str, str, str]]

    def html(self) -> str:
        cells = "".join(
            f'<div><dt>{prose(name)}</dt><dd class="value">{escape(value)}</dd><dd>{prose(note)}</dd></div>'
            for value, name, note in self.items
        )
        return f'<dl class="numbers">{cells}</dl>'


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Pieces of text as a model wrote them, each with a label such as its stage, or the one who speaks."""

    items: Sequence[tuple[str, str]]

    def html(self) -> str:
        rows = "".join(f"<div><dt>{prose(label)}</dt><dd{speech(text)}>{escape(text)}</dd></div>" for label, text in self.items)
        return f'<dl class="samples">{rows}</dl>'


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A drawing with its caption."""

    drawing: Drawn
    caption: str = ""

    def html(self) -> str:
        return f"<figure>{both(self.drawing)}{_caption(self.caption)}</figure>"


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two drawings side by side, one under the other on a phone, with a heading each and a common caption."""

    drawings: Sequence[tuple[str, Drawn]]
    caption: str = ""

    def html(self) -> str:
        cells = "".join(f"<div><h3>{spoken(head)}</h3>{drawing.svg(NARROW)}</div>" for head, drawing in self.drawings)
        return f'<figure><div class="pair">{cells}</div>{_caption(self.caption)}</figure>'


@dataclass(frozen=True, kw_only=True)
class Data:
    """A table with its caption."""

    table: Table
    caption: str = ""

    def html(self) -> str:
        return f"<figure>{self.table.html(self.caption)}{_caption(self.caption)}</figure>"


Block = Prose | Code | Numbers | Samples | Figure | Pair | Data


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and what stands under it."""

    title: str
    blocks: Sequence[Block]

    def html(self) -> str:
        return f"<section><h2>{spoken(self.title)}</h2>{''.join(block.html() for block in self.blocks)}</section>"


@dataclass(frozen=True, kw_only=True)
class Page:
    """A whole report."""

    title: str
    lead: Sequence[str]
    sections: Sequence[Section]
    above: Sequence[Block] = ()
    foot: str = ""

    def html(self) -> str:
        """The complete file."""
        lead = "".join(f'<p class="lead"{speech(text)}>{prose(text)}</p>' for text in self.lead)
        above = "".join(block.html() for block in self.above)
        body = "".join(section.html() for section in self.sections)
        foot = f"<footer>{prose(self.foot)}</footer>" if self.foot else ""
        return _FRAME.format(
            title=escape(self.title),
            style=COLOURS + STYLE + FIGURES,
            body=f"<header><h1>{spoken(self.title)}</h1>{lead}{above}</header>{body}{foot}",
        )


def prose(text: str) -> str:
    """Escaped text in which what stands between back-quotes is code.

    >>> prose("type `a < b`")
    'type <code>a &lt; b</code>'
    """
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def both(drawing: Drawn) -> str:
    """A drawing at both widths; the style sheet shows one."""
    return f'<div class="wide">{drawing.svg(WIDE)}</div><div class="narrow">{drawing.svg(NARROW)}</div>'


def _caption(text: str) -> str:
    return f"<figcaption{speech(text)}>{prose(text)}</figcaption>" if text else ""


# default-src 'none': a browser itself refuses to fetch anything for this page
_FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>{body}</main>
</body>
</html>
"""

STYLE = """
:root { --serif: "Iowan Old Style", "Palatino Linotype", Palatino, "Source Serif 4", "Noto Serif", "Songti SC",
    "Noto Serif CJK SC", "Noto Serif SC", SimSun, Georgia, serif;
  --sans: system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "Noto Sans", "PingFang SC", "Microsoft YaHei",
    "Noto Sans CJK SC", sans-serif;
  --mono: ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "Noto Sans Mono CJK SC", monospace; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 17px/1.6 var(--serif); }
main { max-width: 760px; margin: 0 auto; padding: 64px 20px 96px; }
h1 { font-size: 34px; line-height: 1.2; font-weight: 600; letter-spacing: -0.01em; margin: 0 0 24px;
  text-wrap: balance; overflow-wrap: anywhere; }
h2 { font-size: 22px; line-height: 1.3; font-weight: 600; margin: 72px 0 16px; padding-top: 20px;
  border-top: 1px solid var(--hair); }
h3 { font: 600 13px/1.4 var(--sans); margin: 0 0 10px; }
p { margin: 0 0 14px; text-wrap: pretty; overflow-wrap: break-word; }
.lead { font-size: 18px; color: var(--faint); }
:lang(zh) { line-height: 1.75; }
p:lang(zh) { text-align: justify; }
h1 :lang(zh), h2 :lang(zh), h3 :lang(zh), th :lang(zh) { line-height: inherit; }
code { font: 0.86em/1.5 var(--mono); background: var(--wash); border-radius: 3px; padding: 0.1em 0.3em; }
pre { background: var(--wash); border-radius: 6px; padding: 16px 18px; margin: 20px 0; overflow-x: auto; }
pre code { background: none; padding: 0; font-size: 14px; }
figure { margin: 28px 0 36px; }
figcaption { font: 13px/1.5 var(--sans); color: var(--faint); margin-top: 12px; }
figcaption:lang(zh) { line-height: 1.6; }
.narrow { display: none; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 32px; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(148px, 1fr)); gap: 28px 24px;
  margin: 40px 0 0; padding: 24px 0 0; border-top: 1px solid var(--hair); font-family: var(--sans); }
.numbers > div { display: flex; flex-direction: column; font-size: 13px; line-height: 1.45; }
.numbers dt { text-wrap: balance; }
.numbers dd { margin: 0; color: var(--faint); }
.numbers .value { order: -1; color: var(--ink); font: 400 30px/1.3 var(--serif); font-variant-numeric: lining-nums;
  white-space: nowrap; }
.table { overflow-x: auto; }
.table:focus-visible, pre:focus-visible { outline: 2px solid var(--tone-1); outline-offset: 4px; }
table { width: 100%; border-collapse: collapse; font: 14px/1.45 var(--sans);
  font-variant-numeric: tabular-nums lining-nums; }
th, td { text-align: left; vertical-align: baseline; padding: 7px 14px 7px 0; border-bottom: 1px solid var(--hair);
  font-weight: 400; }
th:last-child, td:last-child { padding-right: 0; }
thead th { font-size: 12px; line-height: 1.35; color: var(--faint); vertical-align: bottom;
  border-bottom-color: var(--faint); }
tbody th.short { white-space: nowrap; }
.number { text-align: right; white-space: nowrap; }
.number small, th small { white-space: normal; }
thead .number { white-space: normal; word-break: keep-all; }
tr.strong > * { font-weight: 600; }
td small, th small { display: block; font-size: 12px; line-height: 1.35; color: var(--faint); font-weight: 400; }
.samples { margin: 20px 0 32px; }
.samples > div { display: grid; grid-template-columns: 150px 1fr; gap: 20px; padding: 12px 0;
  border-bottom: 1px solid var(--hair); }
.samples > div:first-child { border-top: 1px solid var(--hair); }
.samples dt { font: 13px/1.7 var(--sans); color: var(--faint); }
.samples dd { margin: 0; font-size: 16px; line-height: 1.6; white-space: pre-wrap; overflow-wrap: anywhere; }
footer { margin-top: 72px; padding-top: 20px; border-top: 1px solid var(--hair); color: var(--faint);
  font: 13px/1.5 var(--sans); }
@media (max-width: 660px) {
  body { font-size: 16px; }
  main { padding: 36px 20px 64px; }
  h1 { font-size: 28px; }
  h2 { margin-top: 52px; }
  .lead { font-size: 16.5px; }
  .wide { display: none; }
  .narrow { display: block; }
  .pair { grid-template-columns: 1fr; }
  .numbers { grid-template-columns: 1fr 1fr; gap: 24px 20px; }
  .numbers .value { font-size: 26px; }
  .samples > div { grid-template-columns: 1fr; gap: 2px; }
  table { font-size: 13px; }
  th, td { padding-right: 11px; }
  tbody th { position: sticky; left: 0; background: var(--paper); }
}
@media print { main { max-width: none; padding: 0; } section { break-inside: avoid-page; } }
"""
