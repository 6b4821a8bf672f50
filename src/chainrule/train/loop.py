"""The one loop: batches in, better weights out. It knows no model and no training method.

    for each step:   total, weight = Σ loss(micro-batch);   backward;   gradient / weight;   clip;   optimizer step

The sum of totals is divided by the sum of weights once, so the way a batch is split changes nothing.
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import nn

from chainrule.core.device import keep_freed_memory
from chainrule.core.errors import ChainruleError, DataError
from chainrule.data.streams import Stream
from chainrule.train.optim import Optimizer
from chainrule.train.precision import LossScale
from chainrule.train.progress import Progress
from chainrule.train.schedule import Schedule

PATIENCE = 10
"""So many steps in a row may be not finite before the run stops."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the loop needs to know besides model, data and optimizer."""

    steps: int
    schedule: Schedule
    clip: float = 1.0
    dtype: torch.dtype = torch.float32
    device: torch.device
    eval_every: int = 100
    save_every: int = 100
    label: str = "train"


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What happens beside the steps: ``log`` takes a row of metrics, ``save`` a step, ``evaluate`` gives held-out metrics.

    Without ``save`` nothing is kept of the run.
    """

    log: Callable[[dict[str, Any]], None]
    save: Callable[[int], Any] | None
    evaluate: Callable[[], dict[str, Any]]


class Interrupted(KeyboardInterrupt):
    """The user asked to stop, and a checkpoint has been written where the run keeps any."""


class Diverged(ChainruleError):
    """Loss or gradients were not finite for ``PATIENCE`` steps in a row, from ``step`` (counted from 1) on."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a step came to: its mean loss, the norm of its gradients before they were clipped, the schedule's factor, metrics.

    One that is not ``finite`` was skipped; ``overflow``: a smaller scale of the loss may be all that it takes.
    """

    loss: float
    norm: float
    finite: bool
    overflow: bool
    scale: float
    loss_scale: float | None
    tokens: int
    metrics: dict[str, float]
    seconds: float

    def row(self, step: int) -> dict[str, Any]:
        """The row of metrics after the step (from 0)."""
        return {
            "step": step + 1,
            "loss": self.loss,
            "scale": self.scale,
            "grad_norm": self.norm,
            "skipped": not self.finite,
            "tokens": self.tokens,
            **({} if self.loss_scale is None else {"loss_scale": self.loss_scale}),
            **self.metrics,
            "seconds": round(self.seconds, 4),
        }


def _known(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of metrics with None for each number that is not finite: JSON knows no NaN."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


def train(
    objective: nn.Module,
    stream: Stream,
    optimizer: Optimizer,
    settings: Settings,
    hooks: Hooks,
    *,
    start: int = 0,
    scaling: LossScale | None = None,
) -> None:
    """Run the steps from ``start``; ``scaling`` keeps fp16's gradients. Raises ``ChainruleError`` where it cannot go right.

    On Ctrl-C the step is finished, saved, and ``Interrupted`` raised.
    """
    keep_freed_memory()
    stepper = _Stepper(objective, stream, optimizer, settings, scaling)
    progress, patience = Progress(settings.steps, settings.label, start), _Patience()
    done = start
    if start == 0:
        hooks.log(_known({"step": 0} | hooks.evaluate()))
    with _stop_requests() as stopping:
        for step in range(start, settings.steps):
            outcome = stepper.step(step, first=step == start)
            patience.check(step, outcome)
            hooks.log(_known(outcome.row(step)))
            progress.update(step, outcome.loss, outcome.tokens)
            done = step + 1
            last = done == settings.steps
            if last:
                optimizer.finish()
            if done % settings.eval_every == 0 or last:
                hooks.log(_known({"step": done} | hooks.evaluate()))
            asked = stopping.is_set()  # looked at once: a step that is asked to be the last after this is not saved yet
            if hooks.save is not None and (done % settings.save_every == 0 or last or asked):
                hooks.save(done)
            if asked:
                break
        progress.close()
        if stopping.is_set():
            kept = "which is saved; the same command with --resume goes on" if hooks.save else "of which nothing is kept"
            raise Interrupted(f"stopped after step {done}, {kept}")


class _Stepper:
    """Makes one step after the other."""

    def __init__(
        self, objective: nn.Module, stream: Stream, optimizer: Optimizer, settings: Settings, scaling: LossScale | None
    ) -> None:
        self.objective, self.stream, self.optimizer = objective, stream, optimizer
        self.settings, self.scaling = settings, scaling
        self.parameters = [parameter for parameter in objective.parameters() if parameter.requires_grad]

    def step(self, step: int, *, first: bool) -> Outcome:
        """Gradients of all micro-batches, clipped, and the optimizer's step, which is skipped where they are not finite."""
        began, scaling, settings = time.monotonic(), self.scaling, self.settings
        loss, weight, tokens, metrics = _accumulate(self.objective, self.stream, step, settings, scaling)
        if first:
            _check_gradients(self.objective)
        norm = _scale_and_clip(self.parameters, weight * (scaling.scale if scaling else 1.0), settings.clip)
        finite = math.isfinite(loss) and math.isfinite(norm)
        scale, loss_scale = settings.schedule.scale(step, settings.steps), scaling.scale if scaling else None
        overflow = scaling is not None and math.isfinite(loss) and not scaling.spent
        if finite:
            self.optimizer.step(scale)
        else:
            self.optimizer.skip()
        if scaling is not None:
            scaling.update(finite)
        for parameter in self.parameters:
            parameter.grad = None
        return Outcome(
            loss=loss, norm=norm, finite=finite, overflow=overflow, scale=scale, loss_scale=loss_scale, tokens=tokens,
            metrics=metrics, seconds=time.monotonic() - began,
        )  # fmt: skip


class _Patience:
    """Counts the steps in a row that were not finite for no reason that mends itself."""

    def __init__(self) -> None:
        self.bad = 0

    def check(self, step: int, outcome: Outcome) -> None:
        """After a step (from 0); raises ``Diverged`` where these are too many."""
        self.bad = 0 if outcome.finite else self.bad + (not outcome.overflow)
        if self.bad >= PATIENCE:
            raise Diverged(
                f"{self.bad} steps in a row up to {step + 1} were not finite (loss {outcome.loss}); lower the learning rate",
                step + 2 - self.bad,
            )


def _accumulate(
    objective: nn.Module, stream: Stream, step: int, settings: Settings, scaling: LossScale | None
) -> tuple[float, float, int, dict[str, float]]:
    """Gradients of the summed loss of all micro-batches; returns (mean loss, weight, tokens, metrics)."""
    total = weight = 0.0
    tokens = 0
    sums: dict[str, float] = {}
    for batch in stream.batches(step):
        batch = batch.to(settings.device)
        with torch.autocast(settings.device.type, settings.dtype, enabled=settings.dtype != torch.float32):
            loss = objective(batch)
        (loss.total if scaling is None else loss.total * scaling.scale).backward()
        total += float(loss.total.detach())
        weight += float(loss.weight)
        tokens += batch.tokens.numel()
        for key, value in loss.metrics.items():
            sums[key] = sums.get(key, 0.0) + float(value)
    if not weight > 0:
        raise DataError(f"the batch of step {step + 1} has nothing to learn: every token of it is masked")
    return total / weight, weight, tokens, {key: value / weight for key, value in sums.items()}


def _scale_and_clip(parameters: list[nn.Parameter], weight: float, clip: float) -> float:
    """Divide the gradients by the weight and bring their norm under ``clip``; returns the norm before."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = float(torch.nn.utils.get_total_norm(gradients)) / weight
    torch._foreach_mul_(gradients, min(1.0, clip / (norm + 1e-6)) / weight)
    return norm


def _check_gradients(objective: nn.Module) -> None:
    """Every parameter to be learned has a gradient at the first step."""
    idle = [name for name, parameter in objective.named_parameters() if parameter.requires_grad and parameter.grad is None]
    if idle:
        raise ChainruleError(f"{len(idle)} parameters get no gradient (such as {idle[0]}); freeze them or use them in the loss")


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets, once; a second Ctrl-C stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def ask(number: int, frame: FrameType | None) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
