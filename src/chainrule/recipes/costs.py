"""What the stages of a run cost, and on which machine.

Costs are noted in the run's folder as its stages end or are interrupted: one that is gone on with counts it all.
"""

import json
import platform
import resource
import sys
from collections.abc import Iterable
from pathlib import Path

import torch

from chainrule.core.device import cpu_threads, pick_device, pick_dtype
from chainrule.core.errors import CheckpointError
from chainrule.core.files import write_text
from chainrule.core.schema import dump, parse
from chainrule.eval.results import Cost, Machine
from chainrule.hub.weights import format_name

FILE = "costs.json"


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


def machine() -> Machine:
    """Where this runs."""
    device = pick_device()
    dtype = format_name(pick_dtype("auto", device))
    return Machine(
        device=str(device), threads=cpu_threads(), dtype=dtype, python=platform.python_version(), torch=torch.__version__
    )


def memory_bytes() -> int:
    """The most memory this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
