"""Number formats: which numbers there are, and what happens to the others.

    float    (−1)^s · 1.m · 2^(e − bias);   the smallest exponent has no leading 1 (subnormal numbers)     IEEE 754
    integer  scale · q,   q = −2^(n−1) … 2^(n−1) − 1;   scale is chosen per block, here so that the largest number is 1

fp8 is that of Micikevicius et al. 2022, arXiv:2209.05433: e4m3 gives up infinities for one more power of two, e5m2 is
fp16 with a shorter mantissa. Everything here is exact: every number of every format is a Python float. No torch.
"""

import math
from dataclasses import dataclass
from typing import Any

from chainrule.core.device import SPELT
from chainrule.core.errors import ConfigError, nearest


@dataclass(frozen=True)
class Example:
    """Something that goes wrong in a format: three lines of Python, and what the last one prints."""

    what: str
    code: str
    prints: str


@dataclass(frozen=True, kw_only=True)
class FloatFormat:
    """Sign, ``exponent`` bits and ``mantissa`` bits. ``torch`` is its name there."""

    name: str
    torch: str
    exponent: int
    mantissa: int
    infinite: bool = True
    """Whether the largest exponent is kept for infinity; else only its last pattern is lost, to NaN."""

    @property
    def bits(self) -> int:
        """Width of a number."""
        return 1 + self.exponent + self.mantissa

    @property
    def bias(self) -> int:
        """What is taken off the exponent field."""
        return 2 ** (self.exponent - 1) - 1

    @property
    def largest(self) -> float:
        """The largest finite number."""
        return self.value(((1 << (self.exponent + self.mantissa)) - 1) - (2**self.mantissa if self.infinite else 1))

    @property
    def smallest_normal(self) -> float:
        """Below it numbers lose digits."""
        return 2.0 ** (1 - self.bias)

    @property
    def smallest(self) -> float:
        """The smallest number above 0, subnormal."""
        return 2.0 ** (1 - self.bias - self.mantissa)

    @property
    def epsilon(self) -> float:
        """The distance from 1 to the next number."""
        return 2.0**-self.mantissa

    def value(self, code: int) -> float:
        """The number of a bit pattern without its sign."""
        field, fraction = code >> self.mantissa, code & (2**self.mantissa - 1)
        if field == 0:
            return fraction * self.smallest
        return (1 + fraction * self.epsilon) * 2.0 ** (field - self.bias)

    def code(self, x: float) -> int:
        """The bit pattern of a finite number of this format, without its sign."""
        x = abs(x)
        if x < self.smallest_normal:
            return int(x / self.smallest)
        exponent = math.frexp(x)[1] - 1
        return (exponent + self.bias << self.mantissa) + int(x / 2.0 ** (exponent - self.mantissa)) - 2**self.mantissa

    def round(self, x: float) -> float:
        """The nearest number of the format, to even where two are as near; beyond the largest ∞, or the largest itself.

        >>> FORMATS["bf16"].round(0.1)
        0.10009765625
        """
        if x == 0 or not math.isfinite(x):
            return x
        exponent = max(math.frexp(x)[1] - 1, 1 - self.bias)
        step = 2.0 ** (exponent - self.mantissa)
        near = round(x / step) * step
        if abs(near) > self.largest:
            return math.copysign(math.inf if self.infinite else self.largest, x)  # e4m3: as torch and its paper do
        return near

    def neighbours(self, x: float) -> tuple[float, float]:
        """The numbers of the format just below and just above ``round(x)``."""
        near = self.round(x)
        sign, code = (-1, self.code(near)) if near < 0 else (1, self.code(near))
        inner = -self.smallest * sign if code == 0 else sign * self.value(code - 1)
        outer = sign * (self.value(code + 1) if abs(near) < self.largest else math.inf)
        return min(inner, outer), max(inner, outer)

    def pattern(self, x: float) -> str:
        """The bits of ``round(x)``: sign, exponent, mantissa.

        >>> FORMATS["fp16"].pattern(-2.0)
        '1 10000 0000000000'
        """
        near = self.round(x)
        code = self.code(near)
        field, fraction = code >> self.mantissa, code & (2**self.mantissa - 1)
        sign = int(math.copysign(1, near) < 0)
        return f"{sign} {field:0{self.exponent}b} {fraction:0{self.mantissa}b}"

    def facts(self) -> dict[str, Any]:
        """What to know of the format."""
        return {
            "bits": self.bits,
            "sign, exponent, mantissa": f"1, {self.exponent}, {self.mantissa}",
            "largest": self.largest,
            "smallest normal": self.smallest_normal,
            "smallest": self.smallest,
            "epsilon": self.epsilon,
            "decimal digits": round(self.mantissa * math.log10(2), 1),
            "whole numbers up to": int(min(2 ** (self.mantissa + 1), self.largest)),
            "beyond the largest": "infinity" if self.infinite else "the largest",
        }

    def examples(self) -> tuple[Example, ...]:
        """An underflow, an addition that is absorbed and a step that is lost, for the reader to run."""
        n = next(n for n in range(1, 99) if self.round(self.round(10.0**-n) ** 2) == 0)
        whole = 2.0 ** (self.mantissa + 1)
        step = 10.0 ** math.floor(math.log10(self.epsilon / 4))  # below 1 the numbers lie twice as close
        return (
            self._example("underflow: a product too small to be written is 0", f"1e-{n}", "x * x", 0.0),
            self._example(
                f"absorbed: {whole:.0f} + 1 is {whole:.0f}, so a sum stops growing", f"{whole:.0f}.0", "x + 1", whole
            ),
            self._example(f"lost step: a weight of 1 that learns {step:g} stays where it is", "1.0", f"x - {step:g}", 1.0),
        )

    def _example(self, what: str, x: str, then: str, gives: float) -> Example:
        narrow = self.bits < 16  # torch stores these but computes nothing in them: compute wider, and round
        shown = f"({then.replace('x', 'x.float()')}).to(x.dtype)" if narrow else then
        code = f"import torch\nx = torch.tensor({x}, dtype=torch.{self.torch})\nprint(float({shown}))"
        return Example(what, code, str(gives))


@dataclass(frozen=True, kw_only=True)
class IntFormat:
    """Whole numbers of ``bits`` bits, times a scale that makes the largest 1."""

    name: str
    bits: int

    @property
    def largest(self) -> float:
        """The largest number, by the choice of the scale."""
        return 1.0

    @property
    def epsilon(self) -> float:
        """The distance between any two neighbours: the scale."""
        return 1 / (2 ** (self.bits - 1) - 1)

    def round(self, x: float) -> float:
        """The nearest number of the format; beyond the largest, the largest."""
        return self._level(x) * self.epsilon

    def neighbours(self, x: float) -> tuple[float, float]:
        """The numbers just below and just above ``round(x)``; at the ends, the end itself."""
        level, most = self._level(x), 2 ** (self.bits - 1) - 1
        return max(level - 1, -most - 1) * self.epsilon, min(level + 1, most) * self.epsilon

    def pattern(self, x: float) -> str:
        """The bits of ``round(x)`` in two's complement."""
        return f"{self._level(x) % 2**self.bits:0{self.bits}b}"

    def _level(self, x: float) -> int:
        most = 2 ** (self.bits - 1) - 1
        return round(max(-most - 1, min(most, x / self.epsilon)))

    def facts(self) -> dict[str, Any]:
        """What to know of the format."""
        most = 2 ** (self.bits - 1) - 1
        return {
            "bits": self.bits,
            "levels": f"{-most - 1} to {most}, times a scale",
            "scale": f"(largest of the block) / {most}",
            "largest": self.largest,
            "smallest": self.epsilon,
            "epsilon": self.epsilon,
            "beyond the largest": "the largest",
        }

    def examples(self) -> tuple[Example, ...]:
        """A small weight beside a large one, and steps that are lost."""
        most = 2 ** (self.bits - 1) - 1
        small = 0.4 / most
        code = f"scale = 1.0 / {most}\nq = round({{x}} / scale)\nprint(q * scale)"
        return (
            Example(
                f"underflow: beside a weight of 1, one of {small:.2g} is 0",
                code.format(x=f"{small:.2g}"),
                str(0 * self.epsilon),
            ),
            Example(
                f"lost step: a weight of 1 that learns {small:.2g} stays where it is",
                code.format(x=f"{1 - float(f'{small:.2g}'):g}"),
                str(most * (1.0 / most)),
            ),
        )


NumberFormat = FloatFormat | IntFormat

FORMATS: dict[str, NumberFormat] = {
    "fp32": FloatFormat(name="fp32", torch="float32", exponent=8, mantissa=23),
    "fp16": FloatFormat(name="fp16", torch="float16", exponent=5, mantissa=10),
    "bf16": FloatFormat(name="bf16", torch="bfloat16", exponent=8, mantissa=7),
    "fp8-e4m3": FloatFormat(name="fp8-e4m3", torch="float8_e4m3fn", exponent=4, mantissa=3, infinite=False),
    "fp8-e5m2": FloatFormat(name="fp8-e5m2", torch="float8_e5m2", exponent=5, mantissa=2),
    "int8": IntFormat(name="int8", bits=8),
    "int4": IntFormat(name="int4", bits=4),
}
ALIASES = {**SPELT, "e4m3": "fp8-e4m3", "e5m2": "fp8-e5m2"}


def number_format(name: str) -> NumberFormat:
    """The format of that name; raises ``ConfigError`` naming the nearest."""
    name = ALIASES.get(name, name)
    if name not in FORMATS:
        raise ConfigError(f"unknown number format {name!r}{nearest(name, FORMATS)}")
    return FORMATS[name]


def sheet(name: str, value: float = 0.1) -> dict[str, Any]:
    """All there is to say of a format, as plain data: facts, one value with its bits and neighbours, examples."""
    format = number_format(name)
    if not math.isfinite(value):
        raise ConfigError(f"--value {value:g} is no number that a format stores; give a finite one, such as 0.1")
    near = format.round(value)
    if not math.isfinite(near):
        raise ConfigError(f"{value:g} is beyond {format.name}, whose largest number is {format.largest:g}; give a smaller one")
    below, above = format.neighbours(value)
    return {
        "name": format.name,
        "facts": format.facts(),
        "value": {
            "asked": value,
            "stored": near,
            "error": near - value,
            "bits": format.pattern(value),
            "below": below,
            "above": above,
        },
        "examples": [vars(example) for example in format.examples()],
    }


def sheet_text(name: str, value: float = 0.1) -> str:
    """``sheet`` for a person."""
    data = sheet(name, value)
    of, width = data["value"], max(len(key) for key in data["facts"])
    lines = [data["name"], *(f"  {key:<{width}}  {_number(fact)}" for key, fact in data["facts"].items()), ""]
    lines += [
        f"{of['asked']!r} is stored as {of['stored']!r}, off by {of['error']:.3g}",
        f"  bits  {of['bits']}",
        f"  the number below is {of['below']!r}, the one above {of['above']!r}",
    ]
    for example in data["examples"]:
        code = "\n".join(f"    {line}" for line in example["code"].splitlines())
        lines += ["", example["what"], f"{code}      # {example['prints']}"]
    return "\n".join(lines)


def _number(fact: Any) -> str:
    return f"{fact:.9g}" if isinstance(fact, float) else str(fact)
