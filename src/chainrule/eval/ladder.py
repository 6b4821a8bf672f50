"""The ladder: every model on one scale, from the uniform guess over n-grams and the Transformer up to the truth.

A contender is a name and a way to measure itself on documents. Models are built when their turn comes and let go
afterwards, so that a ladder of fourteen holds one of them in memory at a time.
"""

import gc
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from chainrule.core.masked import Model
from chainrule.core.model import LanguageModel
from chainrule.core.schema import dump
from chainrule.core.tokenizer import Tokenizer
from chainrule.eval import tables
from chainrule.eval.bpb import Measured, measure, measure_logp, uniform_logp
from chainrule.eval.results import Family, Rung

ORDERS = range(1, 7)
Built = tuple[LanguageModel, Tokenizer]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """Someone who climbs: ``measure`` takes texts and their languages; the parameters are counted when it does."""

    name: str
    family: Family
    measure: Callable[[Sequence[str], Sequence[str] | None], tuple[Measured, int | None]]
    order: int | None = None


@dataclass(frozen=True, kw_only=True)
class Climbed:
    """The rungs, and what each was measured as, by name, for comparisons in pairs."""

    rungs: tuple[Rung, ...]
    measured: dict[str, Measured]

    def text(self) -> str:
        """The ladder as a table for the terminal."""
        return tables.ladder(self.rungs).text()

    @property
    def notes(self) -> dict[str, tuple[str, ...]]:
        """What must be known to read each rung, by its name."""
        return {name: one.notes for name, one in self.measured.items()}

    def as_dict(self) -> list[dict[str, Any]]:
        """The ladder as plain data."""
        return [{**dump(rung), "notes": list(self.notes[rung.name])} for rung in self.rungs]

    def json(self) -> str:
        """The ladder for machines; an infinite value is null."""
        return json.dumps(self.as_dict(), ensure_ascii=False, indent=1, allow_nan=False)


def contender(
    name: str, family: Family, build: Callable[[], Built], *, order: int | None = None, force: bool = False
) -> Contender:
    """A model with its tokenizer, built when its turn comes."""

    def run(texts: Sequence[str], languages: Sequence[str] | None) -> tuple[Measured, int | None]:
        model, tokenizer = build()
        return measure(model, tokenizer, texts, languages, name=name, force=force), parameters(model)

    return Contender(name=name, family=family, measure=run, order=order)


def known(name: str, family: Family, logp: Callable[[str], float]) -> Contender:
    """Someone whose log p of a whole text is a function, such as the truth: ``world.logp``."""

    def run(texts: Sequence[str], languages: Sequence[str] | None) -> tuple[Measured, int | None]:
        return measure_logp(logp, texts, languages, name=name), None

    return Contender(name=name, family=family, measure=run)


def uniform() -> Contender:
    """Every byte, and the end, equally likely: log₂ 257 bits for each."""
    return known("uniform", "uniform", uniform_logp)


def truth(logp: Callable[[str], float]) -> Contender:
    """The language itself: what it pays is its entropy, and no model pays less in the long run."""
    return known("truth", "truth", logp)


def ngrams(family: Family, fit: Callable[[int], Built], orders: Iterable[int] = ORDERS) -> list[Contender]:
    """N-grams of each order over bytes or tokens; ``fit(order)`` counts one."""

    def one(order: int) -> Contender:
        return contender(f"{family} {order}-gram", family, lambda: fit(order), order=order)

    return [one(order) for order in orders]


def climb(
    contenders: Sequence[Contender],
    texts: Sequence[str],
    languages: Sequence[str] | None = None,
    *,
    progress: Callable[[Rung], None] | None = None,
) -> Climbed:
    """Measure all contenders on the same documents, in their order; ``progress`` hears of each as it is done."""
    rungs: list[Rung] = []
    measured: dict[str, Measured] = {}
    for one in contenders:
        result, size = one.measure(texts, languages)
        measured[one.name] = result
        rungs.append(_rung(one, result, size))
        gc.collect()
        if progress is not None:
            progress(rungs[-1])
    return Climbed(rungs=tuple(rungs), measured=measured)


def _rung(one: Contender, result: Measured, size: int | None) -> Rung:
    return Rung(
        name=one.name,
        family=one.family,
        order=one.order,
        parameters=size,
        bits_per_byte={key: bits if math.isfinite(bits) else None for key, bits in result.by_language.items()},
        tokens_per_s=result.tokens_per_s,
    )


def parameters(model: Model) -> int:
    """How many numbers a model was given by its data: its parameters or, where it has none, its tables of counts."""
    learned = sum(parameter.numel() for parameter in model.parameters())
    return learned or sum(buffer.numel() for buffer in model.buffers())
