"""word2vec: vectors of words, learned by telling real neighbours from drawn ones.

    skip-gram   L = − Σ_{o near c} [ log σ(v_c · u_o) + k E_{n ~ noise} log σ(− v_c · u_n) ]
    CBOW        the same with the mean of the v around a place for v_c, and the word at that place for o

Mikolov et al. 2013, arXiv:1301.3781 and 1310.4546: every word has a vector v as reader and u as neighbour; near means at most
``window`` words away in the same line, the reach drawn anew for each place; frequent words are left out at random (with f the
share of a word and s = ``sample`` it stays with probability √(s/f) + s/f); noise(w) ∝ count(w)^¾; the rate falls linearly.

**A block is a matrix product.** In skip-gram a block of consecutive places is scored against all words within its reach and
against drawn words that the whole block shares (Ji et al. 2016, arXiv:1604.04661):

    S = A Bᵀ,    L = Σ W ⊙ softplus(± S),    G = ∂L/∂S = W ⊙ (σ(S) − T),    ∂L/∂A = G B,    ∂L/∂B = Gᵀ A
    H = ∂²L/∂S² = W ⊙ σ(S) ⊙ (1 − σ(S))

where T is 1 at neighbours and W says how often each score counts: 1 at neighbours, k/K of its neighbours for each of K shared
drawn words, 0 elsewhere. So one pass is a few matrix products instead of a dot product at a time. CBOW scores a place once, so
only its drawn words are such a product; means of what is near, and what comes back to it, are sums of rows. A step that this
makes longer than it would be one word after another is cut by the curvature that H gives (``descend``).

``by="place"`` takes the steps one after another instead, in a compiled loop (``word2vec_compiled``): CBOW is faster so, and
takes them so unless it is told otherwise.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from chainrule.core.errors import ConfigError, DataError, MissingExtra
from chainrule.core.shapes import Float, Int, Tensor
from chainrule.models.word2vec_places import Blocks, Epoch, Ints, Places
from chainrule.models.word_vectors import WordVectors


@dataclass(frozen=True, kw_only=True)
class Word2Vec:
    """How vectors are learned; the defaults are those of the published program, but for where vectors begin.

    They begin wider, uniform within ±½/√d and not ±½/d: u's steps are as long as the v they follow, and a small text, which has
    few steps, teaches more that way (``docs/log.md``).
    """

    method: Literal["skip_gram", "cbow"] = "skip_gram"
    by: Literal["block", "place"] | None = None
    """Whether places take their steps in blocks, as products of matrices, or alone, in a loop that numba compiles.

    None: in whichever way the method is faster, skip-gram in blocks and CBOW by place.
    """
    d_model: int = 100
    window: int = 5
    negatives: int = 5
    """Drawn words for each real neighbour."""
    sample: float = 1e-3
    """Words more frequent than this share are left out now and then; 0 keeps all."""
    min_count: int = 5
    epochs: int = 5
    lr: float = 0.025
    last_lr: float = 0.0001
    threads: int = 1
    seed: int = 0

    @property
    def alone(self) -> bool:
        """Whether a place takes its step alone."""
        return (self.by or ("block" if self.method == "skip_gram" else "place")) == "place"

    def __post_init__(self) -> None:
        for name in ("d_model", "window", "negatives", "min_count", "epochs", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name!r} is {getattr(self, name)}; it must be 1 or more")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"'seed' is {self.seed}; it must be from 0 to 2^63 − 1")
        if self.sample < 0 or not 0 < self.last_lr <= self.lr:
            raise ConfigError(
                f"sample={self.sample}, lr={self.lr}, last_lr={self.last_lr} do not fit; "
                "it needs sample >= 0 and 0 < last_lr <= lr"
            )


Heard = Callable[[int, float], None]
"""Hears the number of each epoch that is done, and the loss in its last blocks."""


def learn_words(sentences: Iterable[Sequence[str]], settings: Word2Vec, heard: Heard | None = None) -> WordVectors:
    """Vectors of the words that occur ``min_count`` times or more, the most frequent first."""
    lines = [list(line) for line in sentences]
    counts = Counter(word for line in lines for word in line)
    kept = sorted(
        (word for word, count in counts.items() if count >= settings.min_count), key=lambda word: (-counts[word], word)
    )
    if len(kept) < 2:
        raise DataError(
            f"{len(counts)} different words, {len(kept)} of them at least min_count={settings.min_count} times; "
            "give more text, or set min_count lower"
        )
    index = {word: i for i, word in enumerate(kept)}
    ids = [np.array([index[word] for word in line if word in index], np.int64) for line in lines]
    return WordVectors(kept, learn_vectors(ids, len(kept), settings, heard).numpy())


def learn_vectors(
    documents: Sequence[Ints], vocab_size: int, settings: Word2Vec, heard: Heard | None = None
) -> Float[Tensor, "v d"]:
    """The vectors v of ids 0 … ``vocab_size`` − 1 from documents of them; on one thread the same seed gives the same ones."""
    places = Places.of(documents, vocab_size)
    generator = torch.Generator().manual_seed(settings.seed)
    v = (torch.rand(vocab_size, settings.d_model, generator=generator) - 0.5) / settings.d_model**0.5
    u = torch.zeros_like(v)
    loss = skip_gram_loss if settings.method == "skip_gram" else cbow_loss
    learn, alone = steps(settings), settings.alone
    with one_thread_each(), ThreadPoolExecutor(settings.threads) as pool:
        for number in range(settings.epochs):
            seed, sample = (settings.seed, number), settings.sample
            epoch = places.epoch(seed, window=settings.window, negatives=settings.negatives, sample=sample, alone=alone)
            # threads change the tables without waiting for each other: Hogwild (Niu et al. 2011, arXiv:1106.5730)
            list(pool.map(partial(at_rate, learn, v, u, settings, epoch, number), range(len(epoch))))
            if heard is not None:
                heard(number + 1, float(loss(v, u, epoch[len(epoch) - 1])))
    if not v.isfinite().all():
        raise ConfigError(f"the vectors grew without bound; lower lr={settings.lr}, or negatives={settings.negatives}")
    return v


Steps = Callable[[Tensor, Tensor, Epoch, int, float], None]
"""Takes the steps of the i-th places of an epoch on v and u, in place, at a rate."""


def steps(settings: Word2Vec) -> Steps:
    """What takes the steps; raises ``MissingExtra`` where they are to be compiled and numba is not there."""
    if not settings.alone:
        step = skip_gram if settings.method == "skip_gram" else cbow
        return lambda v, u, epoch, i, lr: step(v, u, epoch[i], lr)
    try:
        from chainrule.models.word2vec_compiled import learn_places
    except ImportError as error:
        raise MissingExtra("numba", "words", "by=place" if settings.by else "method=cbow without by=block") from error
    return partial(learn_places, cbow=settings.method == "cbow")


@torch.inference_mode()
def at_rate(
    learn: Steps, v: Float[Tensor, "v d"], u: Float[Tensor, "v d"], settings: Word2Vec, epoch: Epoch, number: int, i: int
) -> None:
    """The steps of the i-th places of the epoch ``number``, at the rate of that moment."""
    done = (number + i / len(epoch)) / settings.epochs
    learn(v, u, epoch, i, max(settings.last_lr, settings.lr * (1 - done)))


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Products as small as these gain nothing from being split among torch's own threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def skip_gram_loss(v: Float[Tensor, "v d"], u: Float[Tensor, "v d"], blocks: Blocks) -> Float[Tensor, ""]:
    """The skip-gram loss of some blocks, in nats per neighbour; log σ(x) = − softplus(− x)."""
    span, near = blocks.span()
    a = v[blocks.middle].view(*near.shape[:2], -1)
    weight = near.sum(2, keepdim=True) * blocks.weight  # a place draws for each of its neighbours
    loss_near, loss_noise = F.softplus(-(a @ u[span].mT)), F.softplus(a @ u[blocks.noise].mT)
    return ((loss_near * near).sum() + (loss_noise * weight).sum()) / near.sum().clamp(min=1)


def cbow_loss(v: Float[Tensor, "v d"], u: Float[Tensor, "v d"], blocks: Blocks) -> Float[Tensor, ""]:
    """The CBOW loss of some blocks, in nats per word predicted."""
    around = blocks.around()
    counts = around.counts[:, None]
    a = around.sum(v[blocks.row]) / counts.clamp(min=1)
    predicts = (counts > 0).float()  # a place with nothing near predicts nothing
    loss_word = F.softplus(-dot(a, u[blocks.middle]))
    loss_noise = F.softplus(by_block(a, blocks) @ u[blocks.noise].mT).sum(2) * blocks.weight
    return ((loss_word + loss_noise.view_as(loss_word)) * predicts).sum() / predicts.sum().clamp(min=1)


def skip_gram(v: Float[Tensor, "v d"], u: Float[Tensor, "v d"], blocks: Blocks, lr: float) -> None:
    """One step down ``skip_gram_loss``, in place: each place predicts the words near it."""
    span, near = blocks.span()
    middle = by_block(blocks.middle, blocks)
    a, b_near, b_noise = F.embedding(middle, v), F.embedding(span, u), F.embedding(blocks.noise, u)
    slope_near, curve_near = slopes(a @ b_near.mT, 1.0, near)
    slope_noise, curve_noise = slopes(a @ b_noise.mT, 0.0, near.sum(2, keepdim=True) * blocks.weight)
    slope = slope_near @ b_near + slope_noise @ b_noise
    curve = curve_near @ dot(b_near, b_near) + curve_noise @ dot(b_noise, b_noise)
    a_squared = dot(a, a)
    descend(v, middle, slope, curve, lr)
    descend(u, span, slope_near.mT @ a, curve_near.mT @ a_squared, lr)
    descend(u, blocks.noise, slope_noise.mT @ a, curve_noise.mT @ a_squared, lr)


def cbow(v: Float[Tensor, "v d"], u: Float[Tensor, "v d"], blocks: Blocks, lr: float) -> None:
    """One step down ``cbow_loss``, in place: the mean of what is near a place predicts its word.

    As in the published program, each word near takes the whole of the mean's slope, not its share of it.
    """
    around, readers = blocks.around(), blocks.readers()
    counts = around.counts[:, None]
    a = around.sum(F.embedding(blocks.row, v)).div_(counts.clamp(min=1))
    b_word, b_noise = F.embedding(blocks.middle, u), F.embedding(blocks.noise, u)
    predicts = (counts > 0).float()
    slope_word, curve_word = slopes(dot(a, b_word), 1.0, predicts)
    slope_noise, curve_noise = slopes(by_block(a, blocks) @ b_noise.mT, 0.0, by_block(predicts, blocks) * blocks.weight)
    slope = (slope_noise @ b_noise).view_as(a).addcmul_(slope_word, b_word)
    curve = (curve_noise @ dot(b_noise, b_noise)).view_as(curve_word).addcmul_(curve_word, dot(b_word, b_word))
    a_squared = dot(a, a)
    descend(v, blocks.row, readers.sum(slope), readers.sum(curve), lr)
    descend(u, blocks.middle, slope_word * a, curve_word * a_squared, lr)
    descend(u, blocks.noise, slope_noise.mT @ by_block(a, blocks), curve_noise.mT @ by_block(a_squared, blocks), lr)


def by_block(of: Tensor, blocks: Blocks) -> Tensor:
    """What belongs to each place, (p, …), as (n, l, …)."""
    return of.unflatten(0, (len(blocks.noise), -1))


def slopes(scores: Tensor, target: float, weight: Tensor) -> tuple[Tensor, Tensor]:
    """G and H, the loss's first and second derivative by each score: W ⊙ (σ(S) − T) and W ⊙ σ(S) ⊙ (1 − σ(S))."""
    p = scores.sigmoid_()
    curve = (p - p.square()).mul_(weight)
    return p.sub_(target).mul_(weight), curve


def dot(x: Float[Tensor, "*n d"], y: Float[Tensor, "*n d"]) -> Float[Tensor, "*n one"]:
    """The product of each pair of vectors."""
    return torch.linalg.vecdot(x, y)[..., None]


def descend(
    table: Float[Tensor, "v d"],
    words: Int[Tensor, "*n"],
    slope: Float[Tensor, "*n d"],
    curve: Float[Tensor, "*n one"],
    lr: float,
) -> None:
    """Take ``lr`` × slope off the vector of each word, all that it has in these blocks, but no more than half a Newton step.

    One after another its steps would each see the last and shrink; together they could overshoot. ``curve`` bounds the loss's
    curvature, and it is half a step because the vectors on the other side of the score move as well.
    """
    words, step = words.flatten(), slope.flatten(0, -2)
    curvature = torch.zeros(len(table)).scatter_add_(0, words, curve.flatten())
    rate = -lr / (2 * lr * curvature).clamp_(min=1)
    # scatter_add_ of an expanded index adds whole rows, several times faster than index_add_
    table.scatter_add_(0, words[:, None].expand_as(step), step.mul_(rate[words][:, None]))
