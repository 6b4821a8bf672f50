"""Each brick of a step laid out on this machine and timed, so that a whole step can be foretold without running it.

    a step = Σ over bricks of (times it is laid) · (its own time)

A brick is laid several times before any is taken back, as the layers of a model are, with tensors as large as the model's:
so it meets the allocator as the model does. Weights and memories are laid so often that they fill what the model fills, up
to more than any cache holds: a model comes back to a matrix only after all the others. Medians of several tries: others use
the machine too.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from chainrule.core.errors import ConfigError
from chainrule.core.shapes import Tensor
from chainrule.eval.bricks import Brick, Orthogonal, Pass, Product, Scores
from chainrule.layers.attention import attend
from chainrule.layers.cache import KVCache
from chainrule.layers.norm import LayerNorm, NoNorm, OffsetRMSNorm, RMSNorm, UnitRMSNorm
from chainrule.layers.rope import Rope

NORMS = {norm.kind: norm for norm in (RMSNorm(), OffsetRMSNorm(), UnitRMSNorm(), LayerNorm(), NoNorm())}
MOST = 8
"""Elementwise work is laid at most so often in one try: its inputs were written just before."""
UPDATES = ("adamw", "sgd", "clip", "sum", "table")
"""Elementwise work that has no way back."""
COLD = 64e6
"""Bytes that no processor's cache holds."""


@dataclass(frozen=True)
class Laid:
    """One brick on the floor: ``work(*inputs)`` is its forward pass, ``learned`` what its backward pass fills besides."""

    work: Callable[..., Tensor]
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
            size = 4 * (brick.weights + brick.moved)
            often = max(n, math.ceil(min(self.footprint, COLD) / size)) if isinstance(brick, Product | Scores) else min(n, MOST)
            self.known[brick] = self._time(brick, often)
        return self.known[brick]

    def _time(self, brick: Brick, n: int) -> float:
        steps = isinstance(brick, Orthogonal) or (isinstance(brick, Pass) and brick.kind in UPDATES)
        if steps:
            update = _update(brick, torch.bfloat16 if self.mixed else torch.float32)
            often = MOST if isinstance(brick, Pass) and brick.kind == "sum" else 1
            return self._median(lambda: self._clocked(update)) / often
        laid = [self._lay(brick) for _ in range(n)]
        grads = [torch.randn_like(self._forward(one)) for one in laid[:1]] * n if self.learn else []
        return self._median(lambda: self._once(laid, grads)) / n

    def _median(self, once: Callable[[], float]) -> float:
        once()
        return statistics.median(once() for _ in range(self.tries))

    def _once(self, laid: list[Laid], grads: list[Tensor]) -> float:
        """Seconds of all the way forward and, with gradients, all the way back."""
        for one in laid:
            for tensor in (*one.inputs, *one.learned):
                tensor.grad = None
        began = self.clock()
        with torch.set_grad_enabled(self.learn):
            out = [self._forward(one) for one in laid]
            for tensor, grad in zip(reversed(out), grads, strict=False):
                tensor.backward(grad)
        return self.clock() - began

    def _clocked(self, work: Callable[[], object]) -> float:
        began = self.clock()
        work()
        return self.clock() - began

    def _forward(self, one: Laid) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.mixed):
            return one.work(*one.inputs)

    def _lay(self, brick: Brick) -> Laid:
        narrow = torch.bfloat16 if self.mixed else torch.float32
        if isinstance(brick, Product):
            return _product(brick, torch.float32 if brick.narrows else narrow, self.learn)
        if isinstance(brick, Scores):
            return _scores(brick, narrow, self.learn)
        assert isinstance(brick, Pass)
        return _pass(brick, narrow, self.learn)


def _numbers(*shape: int, dtype: torch.dtype = torch.float32, learn: bool = False) -> Tensor:
    return torch.randn(*shape).to(dtype).requires_grad_(learn)


def _product(brick: Product, dtype: torch.dtype, learn: bool) -> Laid:
    if brick.stacked > 1:
        raise ConfigError("the time of experts cannot be foretold here: it hangs on which are chosen; take a model without")
    weight = _numbers(brick.d_out, brick.d_in, learn=learn)
    return Laid(F.linear, (_numbers(brick.tokens, brick.d_in, dtype=dtype, learn=learn), weight))


def _scores(brick: Scores, dtype: torch.dtype, learn: bool) -> Laid:
    a, mask = brick.shape, None
    if brick.new == brick.length and (a.window or brick.length) < brick.length:
        distance = torch.arange(brick.new)[:, None] - torch.arange(brick.length)
        mask = ((distance >= 0) & (distance < (a.window or 0)))[None]
    q = _numbers(brick.rows, brick.new, a.heads, a.d_key, dtype=dtype, learn=learn)
    k = _numbers(brick.rows, brick.length, a.groups, a.d_key, dtype=dtype, learn=learn)
    v = _numbers(brick.rows, brick.length, a.groups, a.d_value, dtype=dtype, learn=learn)
    return Laid(lambda q, k, v: attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), mask), (q, k, v))


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
    if brick.kind == "turn":
        tables = Rope().tables(torch.arange(n)[None], 2 * max(width // 2, 1), n)
        x = _numbers(1, n, 1, width, dtype=narrow, learn=learn)
        return Laid(lambda x: tables.turn(x, x[:, :, :0])[0], (x,))
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
    wide = stacked.lerp_(momentum, 0.95).to(dtype)
    wide = wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(5):
        gram = wide @ wide.mT
        wide = 3.4445 * wide + (-4.7750 * gram + 2.0315 * gram @ gram) @ wide
    weights.mul_(0.9999)
    weights.add_(wide.to(weights.dtype) * -0.01)
