"""What a step is expected to take on this CPU: its bricks are laid out and timed one by one, and their times added up.

    a training step    every brick forward and back, for each micro-batch; and the optimizer's
    reading the rows   every brick forward, keys and values stored
    one more token     every brick of one token a row, whose keys and values are a cache's

On paper (``eval.roofline``) stands the least that it can take; ``benchmarks/plan.py`` compares what is expected with steps.
Timing takes a few times as long as a step, so it is refused where that would be long, and where the bricks do not tell it all.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from chainrule.core.device import pick_device
from chainrule.eval.anatomy import Anatomy
from chainrule.eval.brick_times import NUMBERS, BrickTimes
from chainrule.eval.bricks import Brick, bricks, learning_bricks, update_bricks
from chainrule.eval.devices import Device
from chainrule.eval.memory import Setting, cache_bytes
from chainrule.eval.plan import InferenceRow, Plan, TrainingRow, way_of
from chainrule.eval.roofline import PRODUCTS, brick_time

LIMIT = 20.0
"""So many seconds may be spent on timing one model's bricks."""
SLOWNESS = 2.0
"""So many times what paper says does a brick take, about: good enough to reckon how long timing will take."""
Clock = Callable[[], float]
Row = TypeVar("Row", TrainingRow, InferenceRow)


def expect(plan: Plan, timing: "Timing") -> Plan:
    """A plan of this machine with what is expected beside the least, or with the reason in a row of which nothing is."""
    ways = {way_of(replace(timing.setting, precision=precision)): precision for precision in ("fp32", "mixed")}
    inference = tuple(_reading(row, timing) for row in plan.inference)
    training = tuple(_step(row, timing, ways.get(row.way)) for row in plan.training)
    return replace(plan, training=training, inference=inference, timing_seconds=timing.spent)


def _reading(row: InferenceRow, timing: "Timing") -> InferenceRow:
    if row.format != "fp32":
        return replace(row, not_expected="timed are weights in fp32")
    return _timed(row, {"expected_decode_seconds": timing.decode, "expected_prefill_seconds": timing.prefill})


def _step(row: TrainingRow, timing: "Timing", precision: str | None) -> TrainingRow:
    if precision is None or row.seconds is None:
        return replace(row, not_expected="timed are steps of all weights in fp32, or mixed where this processor is fast at it")
    return _timed(row, {"expected_seconds": partial(timing.step, precision)})


def _timed(row: Row, works: Mapping[str, Callable[[], float | str]]) -> Row:
    """The row with the seconds of each work, or with the first reason why there are none."""
    if not row.fits:
        return replace(row, not_expected="it does not fit")
    for name, work in works.items():
        seconds = work()
        if isinstance(seconds, str):
            return replace(row, not_expected=seconds)
        row = replace(row, **{name: seconds})
    return row


@dataclass
class Timing:
    """The bricks of one model and setting, timed as long as time is left. ``spent``: seconds of timing so far."""

    anatomy: Anatomy
    setting: Setting
    device: Device
    limit: float = LIMIT
    spent: float = 0.0

    def step(self, precision: str) -> float | str:
        """Seconds of a training step, or why there are none."""
        times = step_times(self.anatomy, mixed=precision == "mixed")
        once = batch_bricks(self.anatomy, self.setting) + update_bricks(self.anatomy, self.setting.optimizer)
        seconds = self._seconds(times, once, PRODUCTS[precision])
        return seconds if isinstance(seconds, str) else times.total(step_bricks(self.anatomy, self.setting))

    def prefill(self) -> float | str:
        """Seconds of reading the rows, or why there are none."""
        return self._seconds(self._reading(), prefill_bricks(self.anatomy, self.setting.rows, self.setting.length), "fp32")

    def decode(self) -> float | str:
        """Seconds of one more token a row, or why there are none."""
        return self._seconds(self._reading(), decode_bricks(self.anatomy, self.setting.rows, self.setting.length), "fp32")

    def _reading(self) -> BrickTimes:
        return reading_times(self.anatomy, self.setting.rows, self.setting.length)

    def _seconds(self, times: BrickTimes, laid: Counter[Brick], format: str) -> float | str:
        reason = untimed(self.anatomy, self.setting)
        if reason is not None:
            return reason
        needed = seconds_of_timing(times, laid, self.device, format)
        if self.spent + needed > self.limit:
            return f"timing its bricks would take about {needed:.0f} s, and {self.limit:.0f} s are the most for all"
        began, total = self.spent - time.perf_counter(), 0.0
        for brick, n in laid.items():
            total += n * times.seconds(brick, n)
            self.spent = began + time.perf_counter()
            if self.spent > self.limit:
                return f"timing its bricks took more than the {self.limit:.0f} s that are the most for all"
        return total


def untimed(anatomy: Anatomy, setting: Setting) -> str | None:
    """Why bricks do not tell the time of this model in this setting; None where they do."""
    where = pick_device().type
    if where != "cpu":
        return f"bricks are timed on a CPU, and this machine computes on {where}"
    if setting.ranks * setting.tensor > 1:
        return "what several devices send each other cannot be timed on one"
    if setting.checkpointing:
        return "activations computed again are not among the bricks"
    if any(matrix.stacked > 1 for matrix in anatomy.matrices):
        return "the time of experts depends on which are chosen"
    if any(attention.latent or attention.written for attention in anatomy.attentions):
        return "only attention by grouped queries without caps and sinks is among the bricks"
    return None


def seconds_of_timing(times: BrickTimes, laid: Counter[Brick], device: Device, format: str) -> float:
    """About how long it takes to make what the bricks read, and to time them."""
    total = 0.0
    for brick, n in laid.items():
        often, numbers = times.often(brick, n), brick.weights + brick.moved
        once = brick_time(brick, device, format, 4.0, 4.0) * (3.0 if times.goes_back(brick) else 1.0)
        total += often * (numbers / NUMBERS + (times.tries + 1) * SLOWNESS * once)
    return total


def step_times(anatomy: Anatomy, *, mixed: bool, clock: Clock = time.perf_counter) -> BrickTimes:
    """Times of training's bricks: between two visits to a matrix lie all weights, gradients and both states."""
    return BrickTimes(16.0 * anatomy.total, mixed=mixed, tries=3, clock=clock)


def reading_times(anatomy: Anatomy, rows: int, length: int, *, clock: Clock = time.perf_counter) -> BrickTimes:
    """Times of bricks of reading and writing: between two visits to a matrix lie all weights and the cache."""
    return BrickTimes(4.0 * anatomy.total + rows * cache_bytes(anatomy, length, 4.0), learn=False, tries=3, clock=clock)


def step_bricks(anatomy: Anatomy, setting: Setting) -> Counter[Brick]:
    """All that a training step lays: its batches one after the other, and one update."""
    batches = Counter({brick: setting.micro_batches * n for brick, n in batch_bricks(anatomy, setting).items()})
    return batches + update_bricks(anatomy, setting.optimizer)


def batch_bricks(anatomy: Anatomy, setting: Setting) -> Counter[Brick]:
    """What a training step lays for the rows that it computes at once."""
    return bricks(anatomy, setting.rows, setting.length, setting.length) + learning_bricks(anatomy, setting.tokens)


def prefill_bricks(anatomy: Anatomy, rows: int, length: int) -> Counter[Brick]:
    """All that reading rows into a cache lays, up to the scores after their last tokens."""
    return bricks(anatomy, rows, length, length, words=rows, cached=True)


def decode_bricks(anatomy: Anatomy, rows: int, length: int) -> Counter[Brick]:
    """All that one more token lays in each of the rows, which then are so long."""
    return bricks(anatomy, rows, 1, length, cached=True)
