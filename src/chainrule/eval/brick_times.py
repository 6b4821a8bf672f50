"""Each brick of a step laid out on this machine and timed, so that a whole step can be foretold without running it.

    a step = Σ over bricks of (times it is laid) · (its own time)

A brick is laid several times before any is taken back, as the layers of a model are, with tensors as large as the model's:
so it meets the allocator as the model does. Weights and memories are laid so often that they fill what the model fills, up
to more than any cache holds: a model comes back to a matrix only after all the others. Medians of several tries: others use
the machine too.

For few rows a block does many small things, each once and then long not again: what they need, the program's own code too,
has left the fastest caches by then, and timed in a row they are quicker. So the block is timed too, as small as it can be,
while between its products as much is read as the model reads there, and as much else before it is read again; what it takes
longer than its bricks is its ``Frame``'s.
"""

import contextlib
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from chainrule.core.errors import ConfigError
from chainrule.core.shapes import Tensor
from chainrule.eval.anatomy import attention_of
from chainrule.eval.bricks import UPDATES, Brick, Frame, Orthogonal, Pass, Product, Scores, Turn, block_bricks
from chainrule.layers.attention import attend
from chainrule.layers.cache import KVCache
from chainrule.layers.linear import linear
from chainrule.layers.norm import LayerNorm, NoNorm, OffsetRMSNorm, RMSNorm, UnitRMSNorm
from chainrule.layers.rope import Rope

NORMS = {norm.kind: norm for norm in (RMSNorm(), OffsetRMSNorm(), UnitRMSNorm(), LayerNorm(), NoNorm())}
MOST = 8
"""Elementwise work is laid at most so often in one try: its inputs were written just before."""
LEAST = 16
"""The width of everything in a block that is to be as small as it can be."""
COLD = 64e6
"""Bytes that no processor's cache holds."""
NUMBERS = 1e8
"""About so many random numbers are drawn in a second, to lay bricks with."""


@dataclass(frozen=True)
class Laid:
    """One brick on the floor: ``work(*inputs)`` is its forward pass, ``learned`` what its backward pass fills besides."""

    work: Callable[..., Tensor | tuple[Tensor, ...]]
    inputs: tuple[Tensor, ...]
    learned: tuple[Tensor, ...] = ()


@dataclass
class BrickTimes:
    """Seconds of bricks, remembered. ``footprint``: bytes the model passes between two visits to one of its matrices;
    ``mixed``: products in bf16 under autocast; ``learn``: forward and backward; ``clock``: what gives the time."""

    footprint: float
    mixed: bool = False
    learn: bool = True
    tries: int = 5
    clock: Callable[[], float] = time.perf_counter
    known: dict[Brick, float] = field(default_factory=dict)

    def total(self, laid: Mapping[Brick, int]) -> float:
        """Seconds of so many of each brick."""
        return sum(n * self.seconds(brick, n) for brick, n in laid.items())

    def seconds(self, brick: Brick, n: int = 1) -> float:
        """Seconds of one brick, timed the first time it is asked for."""
        if brick not in self.known:
            self.known[brick] = self._frame(brick, n) if isinstance(brick, Frame) else self._time(brick, self.often(brick, n))
        return self.known[brick]

    def _frame(self, frame: Frame, n: int) -> float:
        """Seconds of the least block of this kind with the reading of matrices between, less those of its bricks in a row."""
        block, products, least = least_block(frame)
        x, others, reading = torch.ones(1, 1024), cycle(self.between(n * len(products)).unbind()), 0.0

        def read(*_: object) -> None:
            nonlocal reading
            other = next(others)
            reading += self._clocked(lambda: F.linear(x, other))

        for product in products:
            product.register_forward_pre_hook(read)

        def once() -> float:
            nonlocal reading
            reading = 0.0
            return self._once([block] * MOST, []) - reading

        return self._median(once) / MOST - sum(count * self._time(brick, MOST) for brick, count in least.items())

    def between(self, products: int) -> Tensor:
        """A matrix to read before each of so many products, together as large as the model: none is near at its turn."""
        rows = math.ceil(min(self.footprint, COLD) / products / (4 * 1024))
        return torch.ones(products, rows, 1024)

    def often(self, brick: Brick, n: int) -> int:
        """How often a brick that a model has ``n`` times is laid in one try."""
        size = 4 * (brick.weights + brick.moved)
        return max(n, math.ceil(min(self.footprint, COLD) / size)) if isinstance(brick, Product | Scores) else min(n, MOST)

    def goes_back(self, brick: Brick) -> bool:
        """Whether its backward pass is timed too."""
        return self.learn and not _is_update(brick)

    def _time(self, brick: Brick, n: int) -> float:
        if _is_update(brick):
            update = _update(brick, torch.bfloat16 if self.mixed else torch.float32)
            often = MOST if isinstance(brick, Pass) and brick.kind == "sum" else 1
            return self._median(lambda: self._clocked(update)) / often
        return self._time_laid([self._lay(brick) for _ in range(n)])

    def _time_laid(self, laid: list[Laid]) -> float:
        """Seconds of one of those laid."""
        grads = [[torch.randn_like(tensor) for tensor in self._forward(laid[0])]] * len(laid) if self.learn else []
        return self._median(lambda: self._once(laid, grads)) / len(laid)

    def _median(self, once: Callable[[], float]) -> float:
        once()
        return statistics.median(once() for _ in range(self.tries))

    def _once(self, laid: list[Laid], grads: list[list[Tensor]]) -> float:
        """Seconds of all the way forward and, with gradients, all the way back; without, nothing is kept on the way."""
        if not self.learn:
            return self._clocked(lambda: self._read(laid))
        for one in laid:
            for tensor in (*one.inputs, *one.learned):
                tensor.grad = None
        began = self.clock()
        out = [self._forward(one) for one in laid]
        for tensors, given in zip(reversed(out), grads, strict=True):
            torch.autograd.backward(tensors, given)
        return self.clock() - began

    @torch.inference_mode()
    def _read(self, laid: list[Laid]) -> None:
        for one in laid:
            self._forward(one)

    def _clocked(self, work: Callable[[], object]) -> float:
        began = self.clock()
        work()
        return self.clock() - began

    def _forward(self, one: Laid) -> tuple[Tensor, ...]:
        with torch.autocast("cpu", torch.bfloat16) if self.mixed else contextlib.nullcontext():
            out = one.work(*one.inputs)
        return out if isinstance(out, tuple) else (out,)

    def _lay(self, brick: Brick) -> Laid:
        narrow = torch.bfloat16 if self.mixed else torch.float32
        if isinstance(brick, Product):
            return _product(brick, torch.float32 if brick.narrows else narrow, self.learn)
        if isinstance(brick, Scores):
            return _scores(brick, narrow, self.learn)
        if isinstance(brick, Turn):
            return _turn(brick, narrow, self.learn)
        assert isinstance(brick, Pass)
        return _pass(brick, narrow, self.learn)


def least_block(frame: Frame) -> tuple[Laid, list[nn.Linear], Counter[Brick]]:
    """A frame's block with all its widths the least; its matrices; and its bricks then."""
    attention, mlp = replace(frame.block.attention, d_head=LEAST), replace(frame.block.mlp, d_ff=LEAST)
    block, shape = replace(frame.block, attention=attention, mlp=mlp), attention_of(attention)
    layer, rows, cache = block.build(LEAST), frame.rows, KVCache(frame.rows, LEAST, (attention.memory,))
    cache.longest, slot = LEAST, torch.zeros(rows, 1, dtype=torch.long)
    tables = Rope().tables(slot, attention.d_rotary, LEAST) if block.position.kind == "rope" else None
    laid = Laid(lambda x: layer(x, tables, None, partial(cache.store, 0, slot), None), (_numbers(rows, 1, LEAST),))
    least = block_bricks(block, shape, rows, 1, LEAST, LEAST, cached=True)
    products = [module for module in layer.modules() if isinstance(module, nn.Linear)]
    for product in products:
        least[Product(rows, product.in_features, product.out_features)] += 1
    return laid, products, least


def _is_update(brick: Brick) -> bool:
    return isinstance(brick, Orthogonal) or (isinstance(brick, Pass) and brick.kind in UPDATES)


def _numbers(*shape: int, dtype: torch.dtype = torch.float32, learn: bool = False) -> Tensor:
    return torch.randn(*shape).to(dtype).requires_grad_(learn)


def _product(brick: Product, dtype: torch.dtype, learn: bool) -> Laid:
    if brick.stacked > 1:
        raise ConfigError("the time of experts cannot be foretold here: it depends on which are chosen; take a model without")
    module = linear(brick.d_in, brick.d_out)
    module.weight = nn.Parameter(_numbers(brick.d_out, brick.d_in), requires_grad=learn)
    return Laid(module, (_numbers(1, brick.tokens, brick.d_in, dtype=dtype, learn=learn),), (module.weight,))


def _scores(brick: Scores, dtype: torch.dtype, learn: bool) -> Laid:
    a, mask = brick.shape, None
    if brick.new == brick.length and (a.window or brick.length) < brick.length:
        distance = torch.arange(brick.new)[:, None] - torch.arange(brick.length)
        mask = ((distance >= 0) & (distance < (a.window or 0)))[None]
    q = _numbers(brick.rows, brick.new, a.heads, a.d_key, dtype=dtype, learn=learn)
    if brick.cached:
        room = brick.length + 1
        k, v = (_numbers(brick.rows, a.groups, room, c, dtype=dtype)[:, :, : brick.length] for c in (a.d_key, a.d_value))
        return Laid(lambda q, k, v: attend(q.transpose(1, 2), k, v, mask), (q, k, v))
    k, v = (_numbers(brick.rows, brick.length, a.groups, c, dtype=dtype, learn=learn) for c in (a.d_key, a.d_value))
    return Laid(lambda q, k, v: attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask), (q, k, v))


def _turn(brick: Turn, dtype: torch.dtype, learn: bool) -> Laid:
    tables = Rope().tables(torch.arange(brick.new)[None], brick.width, brick.new)
    heads = (brick.heads, brick.groups)
    q, k = (_numbers(brick.rows, brick.new, n, brick.width, dtype=dtype, learn=learn) for n in heads)
    return Laid(tables.turn, (q, k))


def _pass(brick: Pass, narrow: torch.dtype, learn: bool) -> Laid:
    n, width = brick.tokens, brick.width
    wide = _numbers(n, width, learn=learn)
    if brick.kind in NORMS:
        norm: nn.Module = NORMS[brick.kind].build(width).requires_grad_(learn)
        return Laid(norm, (wide,), tuple(norm.parameters()))
    if brick.kind == "add":
        return Laid(torch.add, (wide, _numbers(n, width, dtype=narrow, learn=learn)))
    if brick.kind == "gate":
        pair = (_numbers(n, width, dtype=narrow, learn=learn), _numbers(n, width, dtype=narrow, learn=learn))
        return Laid(lambda gate, up: F.silu(gate) * up, pair)
    if brick.kind == "bend":
        return Laid(lambda x: F.gelu(x, approximate="tanh"), (_numbers(n, width, dtype=narrow, learn=learn),))
    if brick.kind in ("place", "store"):
        return _remembering(brick)
    if brick.kind == "embed":
        table, ids = _numbers(max(n, 1), width, learn=learn), torch.randint(max(n, 1), (n,))
        return Laid(lambda table: F.embedding(ids, table), (table,))
    if brick.kind == "loss":
        targets = torch.randint(width, (n,))
        scores = _numbers(n, width, dtype=narrow, learn=learn)
        return Laid(lambda scores: F.cross_entropy(scores.float(), targets, reduction="none"), (scores,))
    raise ConfigError(f"the time of {brick.kind!r} cannot be measured")


def _remembering(brick: Pass) -> Laid:
    """Finding new tokens their place in a cache and their angles, once a pass; storing keys and values, once a layer."""
    rows, new = brick.tokens, brick.width
    if brick.kind == "place":
        tokens, rope = torch.zeros(rows, new, dtype=torch.long), Rope()

        def place(x: Tensor) -> Tensor:
            cache = KVCache(rows, new, ())
            where = cache.layout(tokens, None)
            cache.append(where, plain=True)
            rope.tables(where.position, 64, new)
            return x

        return Laid(place, (torch.zeros(1),))
    cache, slot = KVCache(rows, 1, (((1, new), (1, new)),)), torch.zeros(rows, 1, dtype=torch.long)
    return Laid(lambda x: cache.store(0, slot, x, x)[0], (_numbers(rows, 1, 1, new),))


def _update(brick: Any, dtype: torch.dtype) -> Callable[[], object]:
    """One step of an optimizer on random gradients."""
    if isinstance(brick, Orthogonal):
        shape = (brick.count, min(brick.d_out, brick.d_in), max(brick.d_out, brick.d_in))
        weights, momentum, gradient = (torch.randn(shape) for _ in range(3))
        return lambda: _orthogonal_step(weights, momentum, gradient, dtype)
    if brick.kind == "sum":
        pairs = [(torch.randn(brick.tokens, brick.width), torch.randn(brick.tokens, brick.width)) for _ in range(MOST)]
        return lambda: [a + b for a, b in pairs][:0]
    if brick.kind == "table":
        table = torch.randn(brick.width)
        return lambda: table.add_(torch.zeros(brick.width)) if brick.read > 1 else torch.zeros(brick.width)
    size = 1 << 20  # parameters come in tensors of about a million
    sizes = [size] * (brick.width // size) + [brick.width % size] * bool(brick.width % size)
    parameters = [nn.Parameter(torch.randn(n)) for n in sizes]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    if brick.kind == "clip":
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        return lambda: torch._foreach_mul_(gradients, float(torch.nn.utils.get_total_norm(gradients) * 0 + 1))
    kind = torch.optim.AdamW if brick.kind == "adamw" else torch.optim.SGD
    return kind(parameters, lr=1e-3, fused=True).step


def _orthogonal_step(weights: Tensor, momentum: Tensor, gradient: Tensor, dtype: torch.dtype) -> None:
    """What Muon does to a stack of matrices (``train.optim``), for its time."""
    stacked = gradient.clone()
    momentum.lerp_(stacked, 0.05)
    wide = stacked.lerp_(momentum, 0.95)
    wide = (wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)).to(dtype)
    for _ in range(5):
        gram = wide @ wide.mT
        wide = 3.4445 * wide + (-4.7750 * gram + 2.0315 * gram @ gram) @ wide
    weights.mul_(0.9999)
    weights.add_(wide.to(weights.dtype) * -0.01)
