"""The long proof: the quickstart as a user runs it, with every goal it states. Writes docs/results.json."""

import json
from pathlib import Path

import pytest

from chainrule.core.schema import dump
from chainrule.eval.findings import checks
from chainrule.recipes.quickstart import Plan, quickstart

ROOT = Path(__file__).parents[2]


@pytest.mark.prove
def test_the_quickstart_meets_its_goals(tmp_path):
    results = quickstart(Plan(runs=tmp_path))
    found = checks(results)
    summary = {
        "quickstart": {
            "machine": dump(results.machine),
            "world": results.world,
            "seconds": round(sum(cost.seconds for cost in results.costs)),
            "bits_per_byte": {rung.name: dict(rung.bits_per_byte) for rung in results.ladder},
            "checks": [dump(check) for check in found],
        }
    }
    (ROOT / "docs" / "results.json").write_text(json.dumps(summary, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    assert [check for check in found if not check.met] == []
