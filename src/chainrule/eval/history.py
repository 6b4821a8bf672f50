"""The ladder of history: what each idea of the field brought, in bits per byte on one text.

    uniform → unigram → bigram → Kneser–Ney → neural n-gram → RNN → LSTM → Transformer → LLaMA → experts → the truth

and beside it, where they are asked for, the branches of the tree: GRU, encoder–decoder, BERT, T5. Every rung is measured on the
same documents, so that decades stand on one scale. A rung here is a ``results.Rung`` with what it took to get there. ``write``
stores them all as ``ladder.json`` and ``read`` gives them back. No torch here.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Literal

from chainrule.core.errors import DataError, nearest
from chainrule.core.files import read_json_object, write_text
from chainrule.core.schema import dump, parse
from chainrule.eval import findings
from chainrule.eval.results import Machine, Rung
from chainrule.pages.table import Table
from chainrule.pages.text import compact, fixed, percent

FILE = "ladder.json"


@dataclass(frozen=True, kw_only=True)
class Era:
    """When an idea came, and what was new about it."""

    year: int | None
    new: str
    paper: str = ""


ERAS: Mapping[str, Era] = {
    "uniform": Era(year=None, new="nothing is known: every byte is as likely as any other"),
    "unigram": Era(year=1948, new="frequent tokens are likelier", paper="Shannon"),
    "bigram": Era(year=1948, new="the token before says something of the next", paper="Shannon"),
    "kneser-ney": Era(
        year=1995, new="longer contexts, and what to believe of one seldom seen", paper="Kneser & Ney; Chen & Goodman 1998"
    ),
    "neural-ngram": Era(
        year=2003,
        new="tokens are points, so a new context is near known ones",
        paper="Bengio et al.; word2vec by Mikolov et al. 2013",
    ),
    "rnn": Era(year=2010, new="one state for all that was read, instead of the last n tokens", paper="Mikolov et al."),
    "lstm": Era(year=2012, new="gates: the state is added to, so that a gradient lives", paper="Sundermeyer et al."),
    "gru": Era(year=2014, new="two gates do for three", paper="Cho et al."),
    "transformer": Era(
        year=2017, new="attention: every token is looked up, none must fit into a state", paper="Vaswani et al."
    ),
    "encoder-decoder": Era(
        year=2017, new="two stacks: one reads the text so far both ways, the other writes on", paper="Vaswani et al."
    ),
    "bert": Era(
        year=2018,
        new="both sides are read and hidden words guessed; asked in order, it sees one side alone",
        paper="Devlin et al.",
    ),
    "t5": Era(year=2020, new="two stacks, where a place is how far away it is", paper="Raffel et al."),
    "llama": Era(year=2023, new="RMSNorm, rope, gated mlps: order is a rotation", paper="Touvron et al."),
    "moe": Era(
        year=2024,
        new="many mlps, of which a router chooses few: more parameters at equal work; norms of q and k",
        paper="Mixtral; OLMoE; DeepSeek-V3; Shazeer et al. 2017",
    ),
    "truth": Era(year=None, new="the distribution the text was drawn from: nobody can be better"),
}
"""The rungs in the order of history, by the names that ``--rungs`` takes."""
BRANCHES = ("gru", "encoder-decoder", "bert", "t5")
"""The rungs beside the line: a variant, and what does not learn to go on from left to right; nobody expects them in order."""
NEURAL = ("neural-ngram", "rnn", "lstm", "transformer", *BRANCHES, "llama", "moe")


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a rung learned from, and how long it took: all its steps, and word vectors where it began from some.

    Tables have no steps, and their time is that of the one count of all lengths that they share.
    """

    tokens: int
    seconds: float
    steps: int | None = None

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens learned from in a second."""
        return self.tokens / self.seconds if self.seconds > 0 else None


@dataclass(frozen=True, kw_only=True)
class Milestone:
    """A rung of history: its key in ``ERAS``, how it was measured, the parameters a token meets, its training and its way.

    ``curve`` is (training tokens, bits per byte) on some of the held-out documents.
    """

    key: str
    rung: Rung
    active: int | None = None
    training: Training | None = None
    curve: tuple[tuple[int, float], ...] = ()
    seconds: float = 0.0
    """Everything for it: reading, training, measuring."""


@dataclass(frozen=True, kw_only=True)
class History:
    """The whole ladder, on one text."""

    name: str
    source: str
    seed: int
    chainrule: str
    machine: Machine
    vocab_size: int
    documents: int
    """So many documents were read in training."""
    held_out: int
    seconds: float
    milestones: tuple[Milestone, ...]
    floor: float | None = None
    """What the truth pays on the documents of the curves."""
    commands: tuple[str, ...] = ()
    version: Literal[1] = 1

    @property
    def rungs(self) -> list[Rung]:
        """The rungs alone."""
        return [milestone.rung for milestone in self.milestones]

    def milestone(self, key: str) -> Milestone | None:
        """The one of that name, if it was measured."""
        return next((one for one in self.milestones if one.key == key), None)

    def text(self) -> str:
        """The ladder for the terminal: the table, what must be known to read it, whether it is in order."""
        return "\n\n".join([table(self).text(), *notes(self), verdict(self)])


def chosen(names: str | None, *, branches: bool = False, known: bool = True) -> tuple[str, ...]:
    """The rungs that a list with commas names, in the order of history; the line for None. ``known``: the truth of the text is.

    ``branches`` are added to either.
    """
    possible = [key for key in ERAS if known or key != "truth"]
    beside = BRANCHES if branches else ()
    if names is None:
        return tuple(key for key in possible if key in beside or key not in BRANCHES)
    asked = [name.strip() for name in names.split(",") if name.strip()]
    for name in asked:
        if name in ERAS and name not in possible:
            raise DataError(f"--rungs names {name!r}, but nobody knows the truth of a text; leave it out, or leave out --text")
        if name not in ERAS:
            raise DataError(f"--rungs names {name!r}, which is no rung{nearest(name, ERAS)}")
    if not asked:
        raise DataError(f"--rungs names none; give some of {', '.join(ERAS)}")
    return tuple(key for key in ERAS if key in asked or key in beside)


def table(history: History, *, years: bool = True) -> Table:
    """A row for every rung; without ``years`` it is narrow enough for a page."""
    rungs = history.rungs
    spoken = findings.languages(rungs)
    distances = [language for language in spoken if findings.truth(rungs, language) is not None]
    mixed = any(_chooses(one) for one in history.milestones)
    names = [
        "model",
        *["year"] * years,
        "parameters",
        *["active"] * mixed,
        *(f"bits/byte {findings.spoken(language)}" for language in spoken),
        *(f"above truth {findings.spoken(language)}" for language in distances),
        "training",
        "tokens/s",
    ]
    rows = [
        [
            one.rung.name,
            *[str(ERAS[one.key].year or "")] * years,
            compact(one.rung.parameters),
            *[compact(one.active) if _chooses(one) else ""] * mixed,
            *(fixed(bits(one.rung, language)) for language in spoken),
            *(_above(rungs, one.rung, language) for language in distances),
            _seconds(one.training.seconds) if one.training else "—",
            compact(one.training.tokens_per_s) if one.training else "—",
        ]
        for one in history.milestones
    ]
    strong = frozenset(i for i, one in enumerate(history.milestones) if one.key in (*NEURAL, "truth"))
    return Table(names=names, rows=rows, numbers=frozenset(range(1, len(names))), strong=strong)


def _chooses(one: Milestone) -> bool:
    """Whether a token meets fewer parameters than there are."""
    return one.active not in (None, one.rung.parameters)


def bits(rung: Rung, language: str) -> float:
    """A rung's bits per byte, infinite where it rules the text out."""
    paid = rung.bits_per_byte.get(language)
    return float("inf") if paid is None else paid


def _above(rungs: Sequence[Rung], rung: Rung, language: str) -> str:
    above = findings.above_truth(rungs, rung, language)
    return "" if rung.family == "truth" else percent(above, 0 if above and above >= 1 else 1)


def _seconds(seconds: float) -> str:
    return f"{fixed(seconds, 1 if seconds < 10 else 0)} s"  # all in one unit, so that a column compares at a glance


def notes(history: History) -> list[str]:
    """What must be known to read the table."""
    lines = [
        f"All but uniform (over bytes) read the same {history.vocab_size:,} BPE tokens, n-grams too; "
        f"all are measured on the same {history.held_out:,} documents."
    ]
    counted = [one for one in history.milestones if one.rung.family == "tokens" and one.training]
    if counted and counted[0].training:
        tokens = compact(counted[0].training.tokens)
        lines.append(f"The n-grams were counted at once, of {tokens} tokens: the training of each is that of all.")
    trained = [one for one in history.milestones if one.key in NEURAL and one.training]
    line = [one.training for one in trained if one.key not in BRANCHES and one.training]
    if line:
        tokens = compact(line[0].tokens)
        who = "Each neural model of the line" if any(one.key in BRANCHES for one in trained) else "Each neural model"
        lines.append(f"{who} learned from {tokens} tokens of {history.documents:,} documents, in the same order.")
    if any(one.key in BRANCHES[1:] for one in trained):
        lines.append(
            "Beside the line: an encoder–decoder reads what stands before a part of the text and writes the part, and BERT "
            "guesses each next word with nothing after it. Their bits are those of whole texts too, from about as many tokens."
        )
    if any(one.key in ("transformer", "llama", "moe") for one in trained):
        lines.append(
            "The Transformers of the line begin where their parts allow it: with learned places by attending to what is alike, "
            "with rope by looking back and copying; a plain start needs more tokens to get there."
        )
    return lines


SPREAD = 0.02
"""Trainings of one model from other seeds end up so far apart, in the mean of the languages: less tells no rungs apart."""


@dataclass(frozen=True)
class Slip:
    """A rung that pays more than the one before it: in which languages, and how much of it in their mean (0.01 is 1 %)."""

    name: str
    before: str
    languages: tuple[str, ...]
    in_mean: float

    def __str__(self) -> str:
        mean_too = f", {percent(self.in_mean)} in the mean" if self.in_mean > 0 else ""
        return f"{self.name} pays more than {self.before} in {' and '.join(map(findings.spoken, self.languages))}{mean_too}"


def slips(history: History) -> list[Slip]:
    """Wherever a rung of the line pays more than the one before it."""
    rungs = [one.rung for one in history.milestones if one.key not in BRANCHES]
    spoken = findings.languages(rungs)
    seen: list[Slip] = []
    for before, after in pairwise(rungs):
        worse = tuple(language for language in spoken if bits(after, language) > bits(before, language))
        if worse:
            seen.append(Slip(after.name, before.name, worse, average(after) / average(before) - 1))
    return seen


def average(rung: Rung) -> float:
    """The mean of a rung's bits per byte over the languages."""
    return mean(bits(rung, language) for language in rung.bits_per_byte)


def verdict(history: History) -> str:
    """Whether every rung is at least as good as the one before it: in every language, in their mean, or up to ``SPREAD``."""
    seen = slips(history)
    if not seen:
        rung = "rung of the line" if any(one.key in BRANCHES for one in history.milestones) else "rung"
        return f"In order: every {rung} pays at most as much as the one before it, in every language."
    text = "; ".join(map(str, seen))
    worst = max(slip.in_mean for slip in seen)
    if worst > SPREAD:
        return f"Not in order: {text}."
    how = (
        "in the mean of the languages" if worst <= 0 else f"up to what two trainings of one model differ by, {percent(SPREAD)}"
    )
    return f"In order {how}: {text}."


def write(history: History, folder: Path) -> Path:
    """Store the ladder in ``folder``, whole or not at all; the file's path."""
    path = folder / FILE
    write_text(path, json.dumps(dump(history), ensure_ascii=False, indent=1, allow_nan=False) + "\n")
    return path


def read(path: Path) -> History:
    """The ladder that ``write`` stored, from its file or its folder."""
    path = path / FILE if path.is_dir() else path
    return parse(History, parsed(path))


def parsed(path: Path) -> dict[str, object]:
    """A JSON file's object; a ``DataError`` says where it is none."""
    return read_json_object(path, "begin the run that wrote it again, with --force")
