"""How good are word vectors? Two old questions: do they find words as alike as people do, and do they know analogies?

    similarity   Spearman's ρ between the cosines of pairs of words and people's judgements      WordSim-353, Finkelstein 2002
    analogies    a is to b as c is to d: is d the word nearest to b − a + c?                     Mikolov 2013, arXiv:1301.3781

Words are looked up as they are spelt, then in lower case. What has no vector is not asked, and is counted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from chainrule.core.errors import DataError
from chainrule.core.files import read_text

AT_ONCE = 512
"""So many questions are compared with all words at once."""


class Vectors(Protocol):
    """Words with their vectors: ``unit`` v d holds them at length one, ``index`` says which row is whose."""

    @property
    def words(self) -> Sequence[str]:
        """The words, row by row."""
        ...

    @property
    def index(self) -> Mapping[str, int]:
        """The row of each word."""
        ...

    @property
    def unit(self) -> NDArray[np.float32]:
        """The vectors at length one."""
        ...


@dataclass(frozen=True, kw_only=True)
class Similarity:
    """Spearman's ρ over the pairs that have vectors; ``unknown`` counts the others."""

    rho: float
    pairs: int
    unknown: int


@dataclass(frozen=True, kw_only=True)
class Analogies:
    """(right, asked) for each section of the questions; ``unknown`` counts questions with a word that has no vector."""

    sections: Mapping[str, tuple[int, int]]
    unknown: int

    @property
    def right(self) -> int:
        """Questions answered with the very word."""
        return sum(right for right, _ in self.sections.values())

    @property
    def asked(self) -> int:
        """Questions whose four words all have vectors."""
        return sum(asked for _, asked in self.sections.values())


def similarity(vectors: Vectors, path: str | Path) -> Similarity:
    """Score pairs with people's judgements: lines of two words and a number, apart by tabs; ``#`` begins a comment.

    Raises ``DataError`` for a line of another form, or where fewer than two pairs have vectors.
    """
    rows = judgements(path)
    known = [(_row(vectors, a), _row(vectors, b), score) for a, b, score in rows]
    both = [(a, b, score) for a, b, score in known if a is not None and b is not None]
    if len(both) < 2:
        raise DataError(f"{len(both)} of the {len(rows)} pairs in {path} have vectors; learn them from more text")
    cosines = [float(vectors.unit[a] @ vectors.unit[b]) for a, b, _ in both]
    return Similarity(rho=spearman(cosines, [score for *_, score in both]), pairs=len(both), unknown=len(rows) - len(both))


def judgements(path: str | Path) -> list[tuple[str, str, float]]:
    """The pairs of a file with people's judgements, as ``similarity`` reads it."""
    return [_pair(line, f"{path}:{number}") for number, line in _lines(path) if not line.startswith("#")]


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Pearson's correlation of the ranks; equal values share the mean of their ranks, and a constant has no correlation (0).

    >>> spearman([1, 2, 3], [10, 30, 20])
    0.5
    """
    a, b = _ranks(x), _ranks(y)
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size else 0.0


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    _, place, count = np.unique(np.asarray(values, np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[place]


def analogies(vectors: Vectors, path: str | Path) -> Analogies:
    """Ask a file of questions: four words a line, in sections that begin with ``: name``.

    Raises ``DataError`` for a line of another form, or where no question can be asked.
    """
    sections: dict[str, list[list[int]]] = {}
    unknown = 0
    for name, words in questions(path):
        rows = [row for word in words if (row := _row(vectors, word)) is not None]
        if len(rows) == 4:
            sections.setdefault(name, []).append(rows)
        else:
            unknown += 1
    if not sections:
        raise DataError(f"none of the {unknown} questions in {path} has vectors for all its words; learn them from more text")
    answered = {name: (_right(vectors, np.array(asked)), len(asked)) for name, asked in sections.items()}
    return Analogies(sections=answered, unknown=unknown)


def questions(path: str | Path) -> list[tuple[str, list[str]]]:
    """(section, four words) of every question in a file, as ``analogies`` reads it."""
    asked: list[tuple[str, list[str]]] = []
    name = "questions"
    for number, line in _lines(path):
        if line.startswith(":"):
            name = line[1:].strip()
            continue
        words = line.split()
        if len(words) != 4:
            raise DataError(f"{path}:{number} is {line[:60]!r}; a question is four words: a is to b as c is to d")
        asked.append((name, words))
    return asked


def _right(vectors: Vectors, questions: NDArray[np.int64]) -> int:
    """How many of the questions, each the rows of a, b, c and d, have d as the word nearest to b − a + c."""
    right = 0
    for some in np.array_split(questions, -(-len(questions) // AT_ONCE)):
        a, b, c, d = some.T
        cosines = (vectors.unit[b] - vectors.unit[a] + vectors.unit[c]) @ vectors.unit.T
        np.put_along_axis(cosines, some[:, :3], -np.inf, axis=1)  # the words of the question are no answers
        right += int((cosines.argmax(1) == d).sum())
    return right


def _row(vectors: Vectors, word: str) -> int | None:
    return vectors.index.get(word, vectors.index.get(word.lower()))


def _lines(path: str | Path) -> list[tuple[int, str]]:
    """The lines that hold something, numbered from 1."""
    return [(number, line) for number, line in enumerate(read_text(Path(path)).splitlines(), 1) if line.strip()]


def _pair(line: str, where: str) -> tuple[str, str, float]:
    try:
        a, b, score = line.split("\t")
        return a, b, float(score)
    except ValueError:
        raise DataError(f"{where} is {line[:60]!r}; a line is two words and a number, apart by tabs") from None
