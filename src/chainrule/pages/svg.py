"""Marks of a figure as SVG text, and the one style sheet that pages and figures share.

Colours are CSS variables, so that a figure follows the reader's light or dark theme; nothing is fetched.
"""

from collections.abc import Iterable

from chainrule.pages.text import ems, escape, language

SIZE = 12.0
"""Points of a figure's text, at every width: a narrow figure is drawn anew, not shrunk."""
LEADING = 18.0

COLOURS = """
:root { color-scheme: light dark;
  --paper: #ffffff; --ink: #1b1c1f; --faint: #66686f; --hair: #e2e3e7; --wash: #f5f5f7;
  --tone-0: #c23b2a; --tone-1: #1f5ea8; --tone-2: #9c6310; --tone-3: #2e7d5b; --tone-4: #7b5299; --tone-5: #8c8e97;
  --tone-6: #147a85; --tone-7: #b0487f; --tone-8: #6b7a1f; --tone-9: #8a5a44; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #151619; --ink: #e6e7ea; --faint: #9a9ca5; --hair: #2f3137; --wash: #1e2024;
  --tone-0: #f0705c; --tone-1: #6aa5ee; --tone-2: #dba24c; --tone-3: #62b48e; --tone-4: #b48fd4; --tone-5: #70727b;
  --tone-6: #58bfc9; --tone-7: #e085b4; --tone-8: #aebb5a; --tone-9: #c99b83; } }
"""

FIGURES = """
svg.figure { display: block; width: 100%; height: auto; overflow: visible;
  font: 12px/1.2 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", "Noto Sans", "PingFang SC",
    "Microsoft YaHei", "Noto Sans CJK SC", sans-serif; font-variant-numeric: tabular-nums lining-nums; }
svg.figure text { fill: var(--ink); }
svg.figure .faint { fill: var(--faint); }
svg.figure .strong { font-weight: 600; }
svg.figure .halo { paint-order: stroke; stroke: var(--paper); stroke-width: 4px; stroke-linejoin: round; }
svg.figure .grid { stroke: var(--hair); stroke-width: 1; }
svg.figure .axis { stroke: var(--faint); stroke-width: 1; }
svg.figure .curve { fill: none; stroke-width: 1.75; stroke-linejoin: round; stroke-linecap: round; }
svg.figure .rule { stroke-width: 1.25; stroke-dasharray: 5 3; }
""" + "".join(
    f"svg.figure .line-{i} {{ stroke: var(--tone-{i}); }}\nsvg.figure .fill-{i} {{ fill: var(--tone-{i}); }}\n"
    for i in range(10)
)


def tag(name: str, content: str = "", /, **attributes: str | float | None) -> str:
    """One element; ``class_`` is the attribute class, ``text_anchor`` is text-anchor, numbers are rounded.

    ``content`` is markup already; attributes are escaped here.
    """
    words = "".join(f' {_name(key)}="{_number(value)}"' for key, value in attributes.items() if value is not None)
    return f"<{name}{words}>{content}</{name}>" if content else f"<{name}{words}/>"


def _name(key: str) -> str:
    # viewBox and the like keep their capitals
    return key.rstrip("_").replace("_", "-")


def _number(value: str | float) -> str:
    return escape(value) if isinstance(value, str) else f"{round(value, 2):g}" if abs(value) < 1e5 else f"{value:.0f}"


def words(x: float, y: float, text: str, class_: str | None = None, anchor: str | None = None) -> str:
    """A line of text with its baseline at ``y``; ``anchor`` is start, middle or end."""
    return tag("text", escape(text), x=x, y=y, class_=class_, text_anchor=anchor, lang=language(text))


def figure(title: str, width: float, height: float, marks: Iterable[str]) -> str:
    """An inline SVG of that size with its title for those who cannot see it."""
    return tag(
        "svg",
        f"<title>{escape(title)}</title>" + "".join(marks),
        class_="figure",
        role="img",
        aria_label=title,
        viewBox=f"0 0 {_number(width)} {_number(height)}",
    )


def legend(names: Iterable[tuple[str, int]], width: float) -> tuple[list[str], float]:
    """Swatches with names, broken into lines within ``width``; the marks and their height."""
    marks: list[str] = []
    x, y = 0.0, SIZE
    for name, tone in names:
        wide = 16 + ems(name) * SIZE + 18
        if x and x + wide - 18 > width:
            x, y = 0.0, y + LEADING
        marks.append(tag("rect", x=x, y=y - 9, width=10, height=10, rx=2, class_=f"fill-{tone}"))
        marks.append(words(x + 16, y, name))
        x += wide
    return marks, (y + 12 if marks else 0.0)
