"""What a run found, as plain data: everything a report shows, and nothing it would have to compute again.

``write`` stores it as ``results.json`` and ``read`` gives it back. Languages are keys such as ``en`` and ``zh``; a run
on a user's own text has the one language ``text``, and no truth to measure against. Where a number would be infinite
(a text that a model rules out) it is None, for JSON has no infinity. No torch here.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from chainrule.core.errors import DataError
from chainrule.core.files import read_json, write_text
from chainrule.core.schema import dump, parse

VERSION = 1
FILE = "results.json"
LANGUAGES = {"en": "English", "zh": "中文", "text": "the text"}
Family = Literal["uniform", "bytes", "tokens", "model", "truth"]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Bits per byte of held-out text in a language, after so many training tokens."""

    name: str
    points: tuple[tuple[int, float], ...]
    language: str


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One step of the ladder: a model's size, bits per byte by language, and speed of scoring."""

    name: str
    family: Family
    bits_per_byte: Mapping[str, float | None]
    order: int | None = None
    parameters: int | None = None
    tokens_per_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The difference in bits per byte, ``first`` minus ``second``, with its interval over documents."""

    first: str
    second: str
    language: str
    difference: float
    low: float
    high: float
    documents: int
    confidence: float = 0.95


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a model wrote at a stage of its training, after a prompt."""

    stage: str
    language: str
    text: str
    prompt: str = ""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn of a conversation that the finished model had; one of the role ``end`` tells why it went no further."""

    role: str
    text: str


@dataclass(frozen=True, kw_only=True)
class ChatScore:
    """How many questions of a kind a system answered exactly."""

    system: str
    role: Literal["majority", "ngram", "before", "after"]
    language: str
    kind: str
    right: int
    asked: int


@dataclass(frozen=True, kw_only=True)
class Odds:
    """log p of two orders of one sentence under a model, in nats; None where it rules a sentence out."""

    name: str
    family: Family
    plain: float | None
    fronted: float | None

    @property
    def nats(self) -> float | None:
        """log p(plain) − log p(fronted)."""
        return None if self.plain is None or self.fronted is None else self.plain - self.fronted


@dataclass(frozen=True, kw_only=True)
class OrderProbe:
    """Which of two orders of a sentence is likelier, and by how much, in truth and under each model."""

    plain: str
    fronted: str
    expected: float
    odds: tuple[Odds, ...]


@dataclass(frozen=True, kw_only=True)
class NextPhrase:
    """A continuation, its true probability, and the model's."""

    text: str
    truth: float
    model: float


@dataclass(frozen=True, kw_only=True)
class NextProbe:
    """The true top continuations of a prompt against the model's."""

    prompt: str
    language: str
    phrases: tuple[NextPhrase, ...]
    top: tuple[str, ...]

    @property
    def deviation(self) -> float:
        """The largest difference between a probability and the truth."""
        return max((abs(phrase.model - phrase.truth) for phrase in self.phrases), default=0.0)

    @property
    def same(self) -> bool:
        """Whether the model's own top continuations are the true ones, in any order."""
        return set(self.top) == {phrase.text for phrase in self.phrases}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a stage took: seconds, the tokens that went through, and the most memory the process had held by its end.

    A stage that needs less than one before it has the memory of that one.
    """

    stage: str
    seconds: float
    tokens: int | None = None
    memory_bytes: int | None = None

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens a second."""
        return None if self.tokens is None or self.seconds <= 0 else self.tokens / self.seconds


@dataclass(frozen=True, kw_only=True)
class SeedResult:
    """The outcome of one seed, when several were run: bits per byte and chat accuracy by language."""

    seed: int
    bits_per_byte: Mapping[str, float]
    chat_accuracy: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Where it ran, for every number of seconds means nothing without it."""

    device: str
    threads: int
    dtype: str
    python: str
    torch: str


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The model that was trained, in a line."""

    parameters: int
    vocab_size: int
    shape: str


@dataclass(frozen=True, kw_only=True)
class Goals:
    """What the run set out to show; shares are of 1, ``odds`` is in nats."""

    ngram_above: float = 0.30
    gap_closed: float = 0.75
    above_truth: float = 0.10
    chat: float = 0.90
    baseline: float = 0.30
    odds: float = 0.30
    next: float = 0.03
    seconds: float = 600.0
    memory_bytes: float = 4e9


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything one run found. Absent parts (no chats, no truth) are empty and the report leaves them out."""

    name: str
    source: str
    seed: int
    chainrule: str
    machine: Machine
    model: ModelFacts
    ladder: tuple[Rung, ...]
    costs: tuple[Cost, ...]
    world: str | None = None
    curves: tuple[Curve, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    samples: tuple[Sample, ...] = ()
    chats: tuple[ChatScore, ...] = ()
    dialogues: tuple[tuple[Turn, ...], ...] = ()
    order: OrderProbe | None = None
    next: tuple[NextProbe, ...] = ()
    seeds: tuple[SeedResult, ...] = ()
    goals: Goals = Goals()
    commands: tuple[str, ...] = ()
    version: Literal[1] = VERSION


def write(results: Results, folder: Path) -> Path:
    """Store the results in ``folder`` as ``results.json``, whole or not at all; the file's path."""
    path = folder / FILE
    try:
        text = json.dumps(dump(results), ensure_ascii=False, indent=1, allow_nan=False)
    except ValueError as error:
        raise DataError(f"results hold a number that is not finite ({error}); write None for it") from error
    write_text(path, text + "\n")
    return path


def read(path: Path) -> Results:
    """The results that ``write`` stored, from their file or its folder."""
    path = path / FILE if path.is_dir() else path
    return parse(Results, read_json(path, "run the recipe again"))
