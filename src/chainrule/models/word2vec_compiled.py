"""word2vec one place after another: a loop that numba compiles, as the published program is compiled C.

    g = lr (t − σ(a · u_w)),   s ← s + g u_w,   u_w ← u_w + g a       for the real word (t = 1), then for each drawn one (t = 0)

where a is the mean of the v of those that predict, and s, which begins at 0, is added to each of them in the end. In CBOW all
words near a place predict the word at it; in skip-gram that word predicts each word near it, alone: it is a mean of one.

The loss is that of ``word2vec``. But every real word has drawn words of its own, and a step sees the one before it, so none has
to be cut. A vector stays in the processor's cache while it is needed: much where a place is little work, as in CBOW.

Compiling takes about two seconds, once a process, and leaves no file behind. numba reads the functions themselves, which the
tests' checker of shapes must therefore not wrap: ``no_type_check``. A row of a table is passed as its number, for a view costs
more, and to a function of its own: where nothing else can change that number, many columns are taken at once.
"""

from math import exp
from typing import no_type_check

import numpy as np
from numba import njit

from chainrule.core.shapes import Float, Tensor
from chainrule.models.word2vec_places import Epoch, Ints, Reals
from chainrule.models.word_vectors import Floats

compiled = njit(nogil=True, fastmath={"reassoc", "contract", "nsz"})
"""Threads run side by side; sums may be taken in any order, but what is not finite stays so, and is found in the end."""


def learn_places(v: Float[Tensor, "v d"], u: Float[Tensor, "v d"], epoch: Epoch, i: int, lr: float, *, cbow: bool) -> None:
    """The steps of the i-th places of an epoch, in place and in their order, all at one rate."""
    here = epoch.here(i)
    ids, line = epoch.ids[here].numpy(), epoch.line[here].numpy()
    read(v.numpy(), u.numpy(), ids, line, epoch.window, epoch.negatives, epoch.drawn, epoch.first, epoch.rng(i), lr, cbow)


@compiled
@no_type_check
def read(
    v: Floats, u: Floats, ids: Ints, line: Ints, window: int, negatives: int, drawn: Reals, first: Ints,
    rng: np.random.Generator, lr: float, cbow: bool,
) -> None:  # fmt: skip
    """Learn from all places but ``window`` at both ends, which are there to be looked at."""
    near, words = np.empty(2 * window, np.int64), np.empty(1 + negatives, np.int64)
    a, s = np.empty(v.shape[1], np.float32), np.empty(v.shape[1], np.float32)
    for i in range(window, len(ids) - window):
        reach, count = 1 + int(rng.random() * window), 0
        for j in range(i - reach, i + reach + 1):
            if j != i and line[j] == line[i] >= 0:
                near[count] = ids[j]
                count += 1
        if cbow and count:
            words[0] = ids[i]
            draw(words, drawn, first, rng)
            step(v, u, near[:count], words, lr, a, s)
        if not cbow:
            for j in range(count):
                words[0] = near[j]
                draw(words, drawn, first, rng)
                step(v, u, ids[i : i + 1], words, lr, a, s)


@compiled
@no_type_check
def draw(words: Ints, drawn: Reals, first: Ints, rng: np.random.Generator) -> None:
    """Draw all but the first of ``words``: one is the first whose sum in ``drawn`` is above a number from 0 to 1."""
    for i in range(1, len(words)):
        x = rng.random()
        word = first[int(x * len(first))]
        while drawn[word] <= x:
            word += 1
        words[i] = word


@compiled
@no_type_check
def step(v: Floats, u: Floats, predict: Ints, words: Ints, lr: float, a: Floats, s: Floats) -> None:
    """One step down the loss: the words ``predict`` learn to tell the first of ``words`` from the rest; a and s are written."""
    a[:], s[:] = 0, 0
    for word in predict:
        add(a, v, word)
    for k in range(len(a)):
        a[k] /= len(predict)
    for i in range(len(words)):
        tell(a, s, u, words[i], np.float32(i == 0), np.float32(lr))
    for word in predict:
        add_to(v, word, s)


@compiled
@no_type_check
def tell(a: Floats, s: Floats, u: Floats, word: int, target: float, lr: float) -> None:
    """One word more that a has to tell: u of the word moves now, and what a has to move is added to s."""
    score = np.float32(0)
    for k in range(len(a)):
        score += a[k] * u[word, k]
    g = np.float32(lr * (target - 1 / (1 + exp(-score))))
    for k in range(len(a)):
        s[k] += g * u[word, k]
        u[word, k] += g * a[k]


@compiled
@no_type_check
def add(x: Floats, table: Floats, word: int) -> None:
    """Add the row of a word to x."""
    for k in range(len(x)):
        x[k] += table[word, k]


@compiled
@no_type_check
def add_to(table: Floats, word: int, x: Floats) -> None:
    """Add x to the row of a word."""
    for k in range(len(x)):
        table[word, k] += x[k]
