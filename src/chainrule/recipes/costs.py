"""What the stages of a run cost, and on which machine.

Costs are noted in the run's folder as its stages end or are interrupted: one that is gone on with counts it all.
"""

import json
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from chainrule.core.device import cpu_threads, format_name, pick_device
from chainrule.core.errors import CheckpointError
from chainrule.core.files import write_text
from chainrule.core.schema import dump, parse
from chainrule.eval.results import Cost, Machine
from chainrule.train.precision import pick_precision

FILE = "costs.json"
SETUP = "text and tokenizer"
"""What a ladder does before its first model, as a stage that costs time."""


def read_costs(folder: Path) -> list[Cost]:
    """What each stage of a run has cost so far; nothing where none has begun."""
    there = folder / FILE
    try:
        return [parse(Cost, row) for row in json.loads(there.read_text(encoding="utf-8"))] if there.exists() else []
    except ValueError as error:
        raise CheckpointError(f"{there} is damaged ({error}); remove it, and what is to come is counted alone") from error


def write_costs(costs: Iterable[Cost], folder: Path) -> None:
    """Note what the stages of a run have cost so far, whole or not at all."""
    write_text(folder / FILE, json.dumps([dump(cost) for cost in costs], indent=1))


@contextmanager
def noted(folder: Path, stage: str, *, spent: float = 0.0, tokens: Callable[[], int | None] = lambda: None) -> Iterator[None]:
    """Note in a run's folder what a stage costs, beside what it has cost before: at least ``spent``, in seconds.

    Of a process that was killed nobody noted the time; what it left may say how much that was. ``tokens`` says in the end how
    many the stage learns from.
    """
    began, costs = time.monotonic(), {cost.stage: cost for cost in read_costs(folder)}
    try:
        yield
    finally:
        known = costs.get(stage, Cost(stage=stage, seconds=0.0))
        seconds = max(known.seconds, spent) + time.monotonic() - began
        memory = max(known.memory_bytes or 0, memory_bytes())
        costs[stage] = Cost(stage=stage, seconds=round(seconds, 2), tokens=tokens(), memory_bytes=memory)
        write_costs(costs.values(), folder)


def machine(device: str = "auto", precision: str = "auto", threads: int | None = None) -> Machine:
    """Where a run of such a device, precision and number of threads computes, and in which format."""
    where = pick_device(device)
    found = pick_precision(precision, where)
    return Machine(
        device=str(where), threads=threads or cpu_threads(), python=platform.python_version(), torch=torch.__version__,
        dtype=precision if found.weights != torch.float32 else format_name(found.products),
    )  # fmt: skip


def memory_bytes() -> int:
    """The most memory this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
