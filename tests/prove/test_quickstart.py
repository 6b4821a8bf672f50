"""The long proof: the quickstart as a user runs it, with every goal it states. Keeps its numbers in docs/results.json."""

from pathlib import Path

import pytest

from chainrule.eval.findings import checks
from chainrule.eval.record import keep, record
from chainrule.recipes.quickstart import Plan, quickstart

ROOT = Path(__file__).parents[2]


@pytest.mark.prove
def test_the_quickstart_meets_its_goals(tmp_path):
    results = quickstart(Plan(runs=tmp_path))
    keep(ROOT / "docs" / "results.json", "quickstart", record(results))
    assert [check for check in checks(results) if not check.met] == []
