"""The long proof: the quickstart as a user runs it, with every goal it states. Keeps its numbers in docs/results.json."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from chainrule.eval.findings import checks
from chainrule.eval.record import keep, record
from chainrule.eval.results import read

ROOT = Path(__file__).parents[2]


@pytest.mark.prove
def test_the_quickstart_meets_its_goals(tmp_path):
    """In a process of its own: no signature is checked there, which would take its time. Ten minutes are those of the clock."""
    code = "import sys; from chainrule.cli import main; sys.exit(main())"
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", code, "quickstart", "--runs", str(tmp_path)], check=True)
    wall = time.monotonic() - began
    results = read(tmp_path / "quickstart")
    keep(ROOT / "docs" / "results.json", "quickstart", record(results) | {"wall_seconds": round(wall, 1)})
    assert wall < 600
    assert [check for check in checks(results) if not check.met] == []
