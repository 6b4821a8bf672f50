"""Word vectors: a word is a point, and words that are used alike lie close.

A ``WordVectors`` is a list of words with a matrix, one row a word; nearness is the cosine. The file is word2vec's text format,
which gensim and fastText read too:

    3 2
    king 0.1 0.2
    ...
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chainrule.core.errors import DataError, RequestError
from chainrule.core.files import read_text, write_text

Floats = NDArray[np.float32]
WORD = re.compile(r"[一-鿿㐀-䶿]|[^\W_]+(?:['’][^\W_]+)*")
"""A word is a run of letters and digits, apostrophes inside it included; a Chinese character is a word of its own."""


def sentences(text: str, *, segmented: bool = False) -> Iterator[list[str]]:
    """The words of each line, in lower case; ``segmented``: they are what stands between spaces, as it is.

    >>> list(sentences("The cat's hat.\\n今天 2 PM"))
    [['the', "cat's", 'hat'], ['今', '天', '2', 'pm']]
    """
    for line in text.splitlines():
        if words := line.split() if segmented else WORD.findall(line.lower()):
            yield words


@dataclass(frozen=True)
class WordVectors:
    """Words and their vectors, ``matrix`` v d."""

    words: list[str]
    matrix: Floats
    index: dict[str, int] = field(init=False, repr=False, compare=False)
    """The row of each word."""

    def __post_init__(self) -> None:
        if len(self.words) != len(self.matrix):
            raise DataError(f"{len(self.words)} words come with {len(self.matrix)} vectors; there must be one for each")
        object.__setattr__(self, "index", {word: i for i, word in enumerate(self.words)})

    @property
    def unit(self) -> Floats:
        """The vectors at length one (a zero vector stays zero)."""
        return self._unit

    @cached_property
    def _unit(self) -> Floats:
        return self.matrix / np.maximum(np.linalg.norm(self.matrix, axis=1, keepdims=True), 1e-12)

    def row(self, word: str) -> int:
        """The row of a word; raises ``RequestError`` where it has no vector, naming the nearest in spelling."""
        if word not in self.index:
            from difflib import get_close_matches

            close = get_close_matches(word, self.words[:50_000], n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise RequestError(
                f"{word!r} has no vector among the {len(self.words):,} words{hint} (words of texts learned here are lower case)"
            )
        return self.index[word]

    def similarity(self, a: str, b: str) -> float:
        """The cosine between two words."""
        return float(self.unit[self.row(a)] @ self.unit[self.row(b)])

    def near(self, word: str, k: int = 10) -> list[tuple[str, float]]:
        """The ``k`` words nearest to a word, with their cosines."""
        return self.nearest([word], [], k)

    def nearest(self, plus: Sequence[str], minus: Sequence[str], k: int = 10) -> list[tuple[str, float]]:
        """The words nearest to Σ plus − Σ minus, none of these among them: king − man + woman ≈ queen."""
        if k < 1:
            raise RequestError(f"k is {k}; it must be 1 or more")
        given = [self.row(word) for word in (*plus, *minus)]
        signs = np.array([1.0] * len(plus) + [-1.0] * len(minus), np.float32)
        target = signs @ self.unit[given]
        cosines = self.unit @ (target / max(float(np.linalg.norm(target)), 1e-12))
        cosines[given] = -np.inf
        best = np.argsort(-cosines, kind="stable")[: min(k, len(self.words) - len(set(given)))]
        return [(self.words[i], float(cosines[i])) for i in best]

    def save(self, path: str | Path) -> None:
        """Write the word2vec text format, whole or not at all."""
        rows = (f"{word} {' '.join(f'{x:.9g}' for x in row)}\n" for word, row in zip(self.words, self.matrix, strict=True))
        write_text(Path(path), f"{len(self.words)} {self.matrix.shape[1]}\n" + "".join(rows))

    @classmethod
    def load(cls, path: str | Path) -> "WordVectors":
        """Read the word2vec text format; raises ``DataError`` naming the line that is not in it."""
        head, *rows = read_text(Path(path)).rstrip("\n").split("\n")
        match = re.fullmatch(r"(\d+) (\d+) ?", head)
        if not match:
            raise DataError(
                f"{path} begins {head[:40]!r}; a file of word vectors begins with two numbers, words and width "
                f"(to learn vectors from a text, say word2vec:{path})"
            )
        n, d = int(match[1]), int(match[2])
        if len(rows) != n:
            raise DataError(f"{path} announces {n} words but holds {len(rows)}; it is cut off or damaged, copy it again")
        words, matrix = [], np.empty((n, d), np.float32)
        for i, row in enumerate(rows):
            word, *numbers = row.rstrip(" ").split(" ")
            words.append(word)
            matrix[i] = _numbers(numbers, d, f"{path}:{i + 2}")
        return cls(words, matrix)


def _numbers(numbers: list[str], d: int, where: str) -> list[float]:
    try:
        vector = [float(number) for number in numbers]
    except ValueError:
        vector = []
    if len(vector) != d or not np.isfinite(vector).all():
        raise DataError(f"{where} is not a word and {d} finite numbers: it holds {' '.join(numbers)[:60]!r}")
    return vector
