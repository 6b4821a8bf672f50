"""The bricks of a step: every kind of work a model does, with its size and how often it is done.

A brick knows its FLOPs and how many numbers it must move at least, weights apart from the rest. ``eval.devices`` say how fast
these go on paper (the roofline, Williams et al. 2009): time ≥ max(FLOPs / rate, bytes / bandwidth). ``eval.brick_times`` lays
each brick out and times it. Going back costs twice the way forward: a gradient for each of two factors. What has no way back
(``UPDATES``) stands for itself.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

from chainrule.eval.activations import Adapters
from chainrule.eval.anatomy import READERS, Anatomy, Attention, Matrix

UPDATES = ("adamw", "sgd", "clip", "sum", "table")
"""Elementwise work that has no way back."""


@dataclass(frozen=True)
class Product:
    """``tokens × d_in`` times a matrix ``d_out × d_in``; ``stacked`` experts of which each token passes ``active``.

    ``narrows``: its input is the stream, which autocast must first make narrow. ``packs``: whole numbers may hold its matrix.
    """

    tokens: int
    d_in: int
    d_out: int
    stacked: int = 1
    active: int = 1
    narrows: bool = True
    packs: bool = True

    @property
    def flops(self) -> float:
        """Multiplications and additions forward."""
        return 2.0 * self.tokens * self.active * self.d_in * self.d_out

    @property
    def weights(self) -> float:
        """Numbers of weights that are read: of experts, those that some token chose."""
        touched = self.stacked * (1 - (1 - self.active / self.stacked) ** self.tokens)
        return touched * self.d_in * self.d_out

    @property
    def moved(self) -> float:
        """Other numbers read and written."""
        return float(self.tokens * self.active * (self.d_in + self.d_out))


@dataclass(frozen=True)
class Scores:
    """``rows`` rows of ``new`` tokens attend to ``length`` keys, of which they see ``keys`` on average.

    ``cached``: keys and values stand in a cache, each head's together, and not token by token as they are made.
    """

    rows: int
    new: int
    length: int
    keys: float
    shape: Attention
    cached: bool = False

    @property
    def flops(self) -> float:
        """Multiplications and additions forward."""
        return 2.0 * self.rows * self.new * self.shape.heads * self._width * self.keys

    weights = 0.0

    @property
    def moved(self) -> float:
        """Queries and results, and the keys and values of all rows."""
        a = self.shape
        remembered = min(self.length, a.window or self.length) if self.new == 1 else self.length
        return self.rows * (self.new * a.heads * self._width + remembered * a.memory)

    @property
    def _width(self) -> int:
        """Of what a head compares and of what it adds up, together."""
        return sum(self.shape.decoding) if self.new == 1 else self.shape.d_key + self.shape.d_value


@dataclass(frozen=True)
class Pass:
    """Elementwise work on ``tokens`` vectors of ``width``: ``read`` numbers read and ``wrote`` written for each."""

    kind: str
    tokens: int
    width: int
    read: int
    wrote: int

    flops = 0.0
    weights = 0.0

    @property
    def moved(self) -> float:
        """Numbers read and written."""
        return float(self.tokens * self.width * (self.read + self.wrote))


@dataclass(frozen=True)
class Turn:
    """Rope: the queries of ``heads`` heads and the keys of ``groups``, each ``width`` wide, turned by their places."""

    rows: int
    new: int
    heads: int
    groups: int
    width: int

    flops = 0.0
    weights = 0.0

    @property
    def moved(self) -> float:
        """Numbers read and written."""
        return 2.0 * self.rows * self.new * (self.heads + self.groups) * self.width


@dataclass(frozen=True)
class Frame:
    """What a block does besides its bricks while ``rows`` rows get a token each: it calls modules, cuts and joins tensors.

    On paper that is nothing; where bricks are as small as these it is a good part of the time.
    """

    rows: int
    block: Any

    flops = weights = moved = 0.0


@dataclass(frozen=True)
class Orthogonal:
    """Muon's step for ``count`` matrices of one shape: momentum, and five Newton–Schulz iterations of three products."""

    count: int
    d_out: int
    d_in: int

    @property
    def flops(self) -> float:
        """Multiplications and additions."""
        r, c = min(self.d_out, self.d_in), max(self.d_out, self.d_in)
        return 5.0 * self.count * (4 * r * r * c + 2 * r**3)

    weights = 0.0

    @property
    def moved(self) -> float:
        """Gradients, momenta and weights, and what each iteration reads and writes."""
        return float(self.count * self.d_out * self.d_in * (8 + 5 * 4))


Brick = Product | Scores | Turn | Pass | Orthogonal | Frame


def bricks(
    anatomy: Anatomy, rows: int, new: int, length: int, *, words: int | None = None, cached: bool = False
) -> Counter[Brick]:
    """How often each brick is laid when ``rows`` rows read ``new`` tokens that end rows of ``length``.

    ``words`` is for how many tokens the scores of words are computed; None: for all. ``cached``: keys and values are stored.
    """
    tokens, d = rows * new, anatomy.d_model
    laid = inner_bricks(anatomy, rows, new, length, cached=cached)
    laid[Pass("embed", tokens, d, 1, 1)] += 1
    if cached:
        laid[Pass("place", rows, new, 1, 1)] += 1
    for matrix in anatomy.matrices:
        if matrix.part == "head":
            laid[_product(matrix, tokens if words is None else words)] += 1
    if anatomy.blocks:
        laid[Pass(anatomy.blocks[-1].norm.kind, tokens, d, 1, 1)] += 1
    return laid


def inner_bricks(anatomy: Anatomy, rows: int, new: int, length: int, *, cached: bool = False) -> Counter[Brick]:
    """The part of ``bricks`` that stands in the blocks, which is laid again where activations are computed again."""
    laid: Counter[Brick] = Counter(_product(matrix, rows * new) for matrix in anatomy.inside)
    for block, attention in zip(anatomy.blocks, anatomy.attentions, strict=True):
        laid += block_bricks(block, attention, rows, new, length, anatomy.d_model, cached=cached)
        if cached and new == 1:
            laid[Frame(rows, block)] += 1
    return laid


def adapter_bricks(anatomy: Anatomy, adapters: Adapters, tokens: int) -> Counter[Brick]:
    """Two thin products beside every matrix that has an adapter, and their sum with what the matrix says."""
    laid: Counter[Brick] = Counter()
    for m in adapters.beside(anatomy.inside):
        laid[Product(tokens, m.d_in, adapters.rank, m.stacked, m.active)] += 1
        laid[Product(tokens, adapters.rank, m.d_out, m.stacked, m.active)] += 1
        laid[Pass("add", tokens * m.active, m.d_out, 2, 1)] += 1
    return laid


def _product(matrix: Matrix, tokens: int) -> Product:
    narrows = matrix.name not in ("o_proj", "down_proj")
    return Product(tokens, matrix.d_in, matrix.d_out, matrix.stacked, matrix.active, narrows, matrix.packs)


def block_bricks(
    block: Any, attention: Attention, rows: int, new: int, length: int, d: int, *, cached: bool = False
) -> Counter[Brick]:
    """The bricks of one block but its matrices: scores, rope, norms, residual sums and bends."""
    tokens = rows * new
    keys = attention.keys(length) if new == length else float(attention.seen(length - 1))
    laid: Counter[Brick] = Counter({Scores(rows, new, length, keys, attention, cached): 1})
    if block.attention.kind == "grouped_query" and block.position.kind == "rope":
        laid[Turn(rows, new, attention.heads, attention.groups, attention.d_key)] += 1
    if cached:
        laid[Pass("store", tokens, attention.memory // 2, 2, 2)] += 1
    laid[Pass(block.norm.kind, tokens, d, 1, 1)] += 4 if block.kind == "sandwich" else 2
    laid[Pass("add", tokens, d, 2, 1)] += 0 if block.kind == "bare" else 2
    mlp = block.mlp
    if mlp.kind == "mixture_of_experts":
        laid[Pass("gate", tokens * mlp.router.k, mlp.d_ff, 2, 1)] += 1
        laid[Pass("add", tokens * mlp.router.k, d, 2, 1)] += 2  # rows to experts and back
        laid[Pass("gate", tokens, mlp.d_shared, 2, 1)] += bool(mlp.d_shared)
    else:
        laid[Pass("gate" if mlp.kind == "gated" else "bend", tokens, mlp.d_ff, 1 + (mlp.kind == "gated"), 1)] += 1
    return +laid


def learning_bricks(anatomy: Anatomy, tokens: int, *, frozen: bool = False) -> Counter[Brick]:
    """What only training lays, besides going back over ``bricks``: the loss, and sums of gradients.

    Where several read the stream their gradients are added up; an embedding's gradient, unless it is ``frozen``, is a table
    mostly of zeros.
    """
    laid: Counter[Brick] = Counter()
    laid[Pass("loss", tokens, anatomy.vocab_size, 1, 1)] += 1
    if not frozen:
        laid[Pass("table", 1, anatomy.vocab_size * anatomy.d_model, 1 + anatomy.tied, 1)] += 1
    for block in anatomy.blocks:
        laid[Pass("sum", tokens, anatomy.d_model, 2, 1)] += sum(READERS[part.kind] for part in (block.attention, block.mlp))
    return laid


def update_bricks(anatomy: Anatomy, optimizer: str) -> Counter[Brick]:
    """What an optimizer does with all parameters: clip their gradients, then AdamW, or Muon for the matrices inside."""
    laid: Counter[Brick] = Counter()
    laid[Pass("clip", 1, anatomy.total, 2, 1)] += 1
    inside = Counter((m.stacked, m.d_out, m.d_in) for m in anatomy.inside)
    if optimizer != "muon":
        laid[Pass("adamw", 1, anatomy.total, 4, 3) if optimizer == "adamw" else Pass("sgd", 1, anatomy.total, 2, 1)] += 1
        return laid
    for (experts, d_out, d_in), count in inside.items():
        laid[Orthogonal(count * experts, d_out, d_in)] += 1
    rest = anatomy.total - sum(count * experts * d_out * d_in for (experts, d_out, d_in), count in inside.items())
    laid[Pass("adamw", 1, rest, 4, 3)] += 1
    return laid
