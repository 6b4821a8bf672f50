"""What is kept of a measured run for everybody to read: its numbers without its texts and figures, in ``docs/results.json``.

Every proof keeps its record under a name of its own; writing one leaves the others as they are.
"""

import json
from pathlib import Path
from typing import Any

from chainrule.core.files import read_json_object, write_text
from chainrule.core.schema import dump
from chainrule.eval.findings import checks
from chainrule.eval.results import ChatScore, OrderProbe, Results


def record(results: Results) -> dict[str, Any]:
    """The numbers of a run as plain data: bits per byte, chats, odds, costs, and which goals were met."""
    return {
        "machine": dump(results.machine),
        "world": results.world,
        "seconds": round(sum(cost.seconds for cost in results.costs)),
        "bits_per_byte": {rung.name: dict(rung.bits_per_byte) for rung in results.ladder},
        "chats": _chats(results.chats),
        "order": None if results.order is None else _order(results.order),
        "costs": {cost.stage: {key: value for key, value in dump(cost).items() if key != "stage"} for cost in results.costs},
        "checks": [dump(check) for check in checks(results)],
    }


def keep(path: Path, name: str, record: dict[str, Any]) -> None:
    """Write a record into a file of records, under its name; the others stay."""
    others = read_json_object(path, "mend it, or remove it") if path.exists() else {}
    write_text(path, json.dumps({**others, name: record}, ensure_ascii=False, indent=1) + "\n")


def _chats(scores: tuple[ChatScore, ...]) -> dict[str, dict[str, dict[str, dict[str, int]]]]:
    """Questions answered exactly, of those asked: by who answered (before and after SFT, the baselines), language and kind."""
    found: dict[str, dict[str, dict[str, dict[str, int]]]] = {}
    for one in scores:
        found.setdefault(one.role, {}).setdefault(one.language, {})[one.kind] = {"right": one.right, "asked": one.asked}
    return found


def _order(probe: OrderProbe) -> dict[str, Any]:
    """The log-odds of the two orders under every model, in nats, and the true ones."""
    return {"expected": probe.expected, "nats": {one.name: one.nats for one in probe.odds}}
