"""One table, two faces: aligned columns in the terminal, where Chinese is twice as wide, and HTML on a page."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from chainrule.core.errors import DataError
from chainrule.pages.text import columns, escape, language, pad

INDENT = "\u2002"
"""Spaces half an em wide before the name of a row set it in, on a page its broken lines too."""
_JOINTS = re.compile(r"(?<=[A-Za-z0-9}])([/._])(?=[A-Za-z{])(?!py\b)")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Names of columns and rows of text; ``numbers`` says which columns are pushed right, ``strong`` which rows stand
    out. A first column is the name of its row. What follows a line break in a cell stands below it on a page, and small."""

    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()
    strong: frozenset[int] = frozenset()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.names):
                raise DataError(f"a table of {len(self.names)} columns has a row of {len(row)}: {list(row)}")

    def text(self) -> str:
        """The table for a terminal, each column as wide as its widest cell.

        >>> print(Table(names=("地方", "p"), rows=(("仙II-212", "0.05"), ("家", "0.2")), numbers=frozenset({1})).text())
        地方         p
        ────────  ────
        仙II-212  0.05
        家         0.2
        """
        table = [self.names, *([cell.replace("\n", " ") for cell in row] for row in self.rows)]
        widths = [max(columns(row[i]) for row in table) for i in range(len(self.names))]
        lines = ["  ".join(self._cells(row, widths)).rstrip() for row in table]
        return "\n".join([lines[0], "  ".join("─" * width for width in widths), *lines[1:]])

    def _cells(self, row: Sequence[str], widths: Sequence[int]) -> list[str]:
        return [pad(cell, width, right=i in self.numbers) for i, (cell, width) in enumerate(zip(row, widths, strict=True))]

    def html(self, caption: str = "") -> str:
        """The table as HTML in a box that scrolls sideways where the page is too narrow for it, called after its caption."""
        head = "".join(f'<th scope="col"{self._kind(i)}>{spoken(name)}</th>' for i, name in enumerate(self.names))
        body = "".join(self._row(i, row) for i, row in enumerate(self.rows))
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        name = caption.replace("`", "") or self.names[0]
        return f'<div class="table" role="region" tabindex="0" aria-label="{escape(name)}">{table}</div>'

    def _row(self, i: int, row: Sequence[str]) -> str:
        short = ' class="short"' if columns(row[0].partition("\n")[0]) <= 18 else ""
        name = row[0].lstrip(INDENT)
        indent = (len(row[0]) - len(name)) / 2
        deep = f' style="padding-left:{indent:g}em"' if indent else ""
        cells = [f'<th scope="row"{short}{deep}{speech(name)}>{_cell(name)}</th>'] + [
            f"<td{self._kind(j)}{speech(cell)}>{_cell(cell)}</td>" for j, cell in enumerate(row) if j
        ]
        strong = ' class="strong"' if i in self.strong else ""
        return f"<tr{strong}>{''.join(cells)}</tr>"

    def _kind(self, column: int) -> str:
        return ' class="number"' if column in self.numbers else ""


def _cell(text: str) -> str:
    first, _, rest = text.partition("\n")
    return f"{_breakable(first)}<small>{_breakable(rest)}</small>" if rest else _breakable(first)


def _breakable(text: str) -> str:
    """Long names and paths may be broken where their parts meet."""
    return _JOINTS.sub(r"\1<wbr>", escape(text))


def speech(text: str) -> str:
    """The ``lang`` attribute of a text, where it is not English."""
    tongue = language(text)
    return f' lang="{tongue}"' if tongue else ""


def spoken(heading: str) -> str:
    """A heading in two languages, escaped, each part of it in its own.

    >>> spoken("Cost · 代价")
    'Cost · <span lang="zh-Hans">代价</span>'
    """
    parts = heading.split(" · ")
    return " · ".join(f"<span{speech(part)}>{escape(part)}</span>" if speech(part) else escape(part) for part in parts)
