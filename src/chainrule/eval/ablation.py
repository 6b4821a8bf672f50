"""The ablations: a deep decoder with and without each of its parts, and what becomes of its gradients and of its bits per byte.

What is lost is bits per byte against the whole model, at the same steps on the same text from the same seed. ``write`` stores
it all as ``ablation.json`` and ``read`` gives it back. No torch here.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from chainrule.core.errors import DataError, nearest
from chainrule.core.files import write_text
from chainrule.core.schema import dump, parse
from chainrule.eval import findings
from chainrule.eval.history import parsed
from chainrule.eval.results import Machine
from chainrule.pages.table import Table
from chainrule.pages.text import compact, duration, fixed

FILE = "ablation.json"
PARTS = {
    "residual": "x ← f(norm(x)) instead of x ← x + f(norm(x)): every layer says the stream anew",
    "norm": "x ← x + f(x): nothing keeps the scale of what a layer reads",
    "position": "no rope: order is known from the causal mask alone",
}
"""The parts that can be left out, and what is left then."""
Norms = tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Ablated:
    """One model: without which part (None: whole), what it pays, and the gradient norm of every layer before and after.

    ``diverged_at`` is the first step of those that were not finite, where the training broke off for it; such a model pays
    None. ``curve`` is (step, training loss in nats a token).
    """

    without: str | None
    parameters: int
    steps: int
    skipped: int
    seconds: float
    bits_per_byte: Mapping[str, float | None]
    start: Norms
    end: Norms
    curve: tuple[tuple[int, float], ...] = ()
    diverged_at: int | None = None

    @property
    def name(self) -> str:
        """The model's name in tables and figures."""
        return "whole" if self.without is None else f"without {self.without}"


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """All models, the whole one first."""

    name: str
    source: str
    seed: int
    chainrule: str
    machine: Machine
    layers: int
    d_model: int
    tokens: int
    seconds: float
    models: tuple[Ablated, ...]
    commands: tuple[str, ...] = ()
    version: Literal[1] = 1

    def text(self) -> str:
        """The ablations for the terminal."""
        return "\n\n".join([f"{self.layers} layers, {self.d_model} wide, on {self.source}", table(self).text(), *notes(self)])


def chosen(names: str) -> tuple[str, ...]:
    """The parts that a list with commas names, in the order of ``PARTS``."""
    asked = [name.strip() for name in names.split(",") if name.strip()]
    for name in asked:
        if name not in PARTS:
            raise DataError(f"--ablate names {name!r}{nearest(name, PARTS)}; it leaves out {', '.join(PARTS)}")
    if not asked:
        raise DataError(f"--ablate names no part; give some of {', '.join(PARTS)}")
    return tuple(part for part in PARTS if part in asked)


def table(ablation: Ablation) -> Table:
    """A row for every model."""
    spoken = list(ablation.models[0].bits_per_byte)
    names = [
        "model",
        "parameters",
        *(f"bits/byte {findings.spoken(language)}" for language in spoken),
        *(f"lost {findings.spoken(language)}" for language in spoken),
        "first/last gradient, start",
        "end",
        "training",
    ]
    rows = [
        [
            one.name,
            compact(one.parameters),
            *(paid(one, language) for language in spoken),
            *("" if one.without is None else fixed(lost_bits(ablation, one, language)) for language in spoken),
            compact(ratio(one.start)),
            compact(ratio(one.end)),
            duration(one.seconds),
        ]
        for one in ablation.models
    ]
    return Table(names=names, rows=rows, numbers=frozenset(range(1, len(names))), strong=frozenset({0}))


def paid(one: Ablated, language: str) -> str:
    """A model's bits per byte, or where its training broke off."""
    return f"diverged at {one.diverged_at}" if one.diverged_at is not None else fixed(one.bits_per_byte[language])


def lost_bits(ablation: Ablation, one: Ablated, language: str) -> float | None:
    """Bits per byte more than the whole model pays; None for that itself, and where one of the two diverged."""
    whole, bits = ablation.models[0].bits_per_byte[language], one.bits_per_byte[language]
    return None if one.without is None or whole is None or bits is None else bits - whole


def ratio(norms: Norms) -> float | None:
    """The first layer's gradient norm as a multiple of the last one's."""
    first, last = norms[0], norms[-1]
    return first / last if first is not None and last else None


def notes(ablation: Ablation) -> list[str]:
    """What must be known to read the table, and which trainings broke off."""
    lines = [
        f"Every model learned from the same {compact(ablation.tokens)} tokens in the same order, from the same seed. "
        "The gradient is that of a layer's parameters: the first layer's norm as a multiple of the last one's."
    ]
    for one in ablation.models:
        if one.diverged_at is not None:
            lines.append(f"{one.name} diverged: from step {one.diverged_at} on, loss or gradients were not finite.")
        elif one.skipped:
            lines.append(f"{one.name}: {one.skipped} of {one.steps} steps were not finite and skipped.")
    return lines


def write(ablation: Ablation, folder: Path) -> Path:
    """Store the ablations in ``folder``, whole or not at all; the file's path."""
    path = folder / FILE
    write_text(path, json.dumps(dump(ablation), ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    return path


def read(path: Path) -> Ablation:
    """The ablations that ``write`` stored, from their file or its folder."""
    return parse(Ablation, parsed(path / FILE if path.is_dir() else path))
