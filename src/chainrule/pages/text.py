"""Text on paper and in the terminal: escaping, widths, and numbers as a person would write them.

A Chinese character is two terminal columns wide and one em on paper; a Latin letter is one column and about half an
em. Tables align by columns, figures leave room by ems.
"""

import html
import math
import re
import unicodedata
from collections.abc import Callable

_UNPRINTABLE = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_HAN = re.compile("[\u3400-\u9fff\uf900-\ufaff]")
_NARROW = frozenset("ijlIt.,:;'|!()[]fr ")
_BROAD = frozenset("mwMWQO@%—…")
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def escape(text: str) -> str:
    """The text as HTML and XML may hold it; characters that neither allows become U+FFFD.

    >>> escape('<a href="x">&')
    '&lt;a href=&quot;x&quot;&gt;&amp;'
    """
    return html.escape(_UNPRINTABLE.sub("\ufffd", text), quote=True)


def columns(text: str) -> int:
    """How many terminal columns a text takes.

    >>> columns("仙II-212")
    8
    """
    return sum(_columns(character) for character in text)


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def pad(text: str, width: int, *, right: bool = False) -> str:
    """The text filled with spaces to ``width`` columns; ``right`` pushes it to the right."""
    space = " " * (width - columns(text))
    return space + text if right else text + space


def clip(text: str, width: float, measure: Callable[[str], float] = columns) -> str:
    """The text, or as much of it as leaves room for an ellipsis within ``width`` columns (or ems)."""
    if measure(text) <= width:
        return text
    while text and measure(text) > width - 1:
        text = text[:-1]
    return text.rstrip() + "…"


def ems(text: str) -> float:
    """About how wide a text is on paper, in multiples of its size."""
    return sum(_em(character) for character in text)


def _em(character: str) -> float:
    if _columns(character) != 1:
        return _columns(character) / 2
    return 0.38 if character in _NARROW else 0.92 if character in _BROAD else 0.68 if character.isupper() else 0.6


def language(text: str) -> str | None:
    """``zh-Hans`` for a text that is mostly Chinese, so that a browser picks the right shapes; else None."""
    han = len(_HAN.findall(text))
    return "zh-Hans" if han and han * 4 >= sum(character.isalpha() for character in text) else None


def fixed(value: float | None, digits: int = 3) -> str:
    """A number with ``digits`` decimals and a true minus sign; — where there is none, ∞ where it is not finite.

    >>> fixed(-1.5, 2), fixed(None), fixed(float("inf"))
    ('−1.50', '—', '∞')
    """
    if value is None or math.isnan(value):
        return "—"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    text = f"{value:,.{digits}f}"
    return ("−" + text[1:] if text.strip("-0.,") else text[1:]) if text.startswith("-") else text


def percent(share: float | None, digits: int = 1) -> str:
    """A share as percent: 0.123 is ``12.3 %``."""
    return _with_unit(fixed(None if share is None else 100 * share, digits), "%")


def compact(value: float | None, digits: int = 3) -> str:
    """A number in few characters, of so many digits: 3,700,000 is ``3.7 M``.

    >>> [compact(value) for value in (0, 0.25, 999, 1234)]
    ['0', '0.25', '999', '1.23\\u202fk']
    """
    if value is None or not math.isfinite(value):
        return fixed(value)
    power = min(4, int(math.log10(max(abs(value), 1)) / 3 + 1e-9))
    rounded = float(f"{value / 1000**power:.{digits}g}")
    if abs(rounded) == 1000 and power < 4:
        rounded, power = rounded / 1000, power + 1
    return _with_unit(f"{rounded:g}".replace("-", "−"), ("", "k", "M", "G", "T")[power])


def scientific(value: float) -> str:
    """One digit times a power of ten, for what is too small or too large to write out.

    >>> scientific(1e-9), scientific(-3e-5)
    ('10⁻⁹', '−3·10⁻⁵')
    """
    digit, _, power = f"{value:.0e}".replace("-", "−").partition("e")
    raised = f"10{str(int(power.replace('−', '-'))).translate(_RAISED)}"
    return raised if digit == "1" else f"−{raised}" if digit == "−1" else f"{digit}·{raised}"


def size(size_bytes: float | None, digits: int = 3) -> str:
    """A number of bytes by powers of ten, as disks and the time of reading them are given.

    >>> [size(size_bytes) for size_bytes in (512, 4.02e9)]
    ['512\\u202fB', '4.02\\u202fGB']
    """
    if size_bytes is None:
        return "—"
    text = compact(size_bytes, digits)
    return f"{text}B" if text[-1].isalpha() else _with_unit(text, "B")


def timing(seconds: float | None) -> str:
    """Seconds as they are measured, in three digits of s, ms or µs.

    >>> [timing(seconds) for seconds in (1230.4, 0.0123)]
    ['1230\\u202fs', '12.3\\u202fms']
    """
    if seconds is None:
        return "—"
    rounded = float(f"{seconds:.3g}")
    power, unit = (1.0, "s") if rounded >= 1 else (1e-3, "ms") if rounded >= 1e-3 else (1e-6, "µs")
    return _with_unit(f"{rounded / power:g}", unit)


def duration(seconds: float | None) -> str:
    """Seconds as a person says them: ``8.3 s``, ``4 min 30 s``, ``1 h 05 min``."""
    if seconds is None:
        return "—"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes} min {rest:02d} s" if rest else f"{minutes} min"


def _with_unit(number: str, unit: str) -> str:
    # a narrow no-break space between number and unit
    return f"{number}\u202f{unit}" if unit and number[-1].isdigit() else number
