"""Where the proofs keep what they measured: docs/results.json, each under a name of its own."""

from pathlib import Path
from typing import Any

from chainrule.core.schema import dump
from chainrule.eval.record import keep
from chainrule.recipes.costs import machine
from chainrule.world import VERSION

RESULTS = Path(__file__).parents[1] / "docs" / "results.json"


def keep_measured(name: str, threads: int, numbers: dict[str, Any], *, on_world: bool = False) -> None:
    """Write the numbers down beside the machine and the threads that they were measured with, and the world's version."""
    where = {key: value for key, value in dump(machine()).items() if key != "dtype"}  # every proof chooses its own
    world = {"world": str(VERSION)} if on_world else {}
    keep(RESULTS, name, {"machine": where | {"threads": threads}, **world, **numbers})
