"""The quickstart's figures in twenty seconds: how much is learned in so few steps, which any slip in the training would move.

As a user runs it, in a process of its own; the whole of it, with the goals, is run by ``make prove``. A bound is what was
measured, a twentieth wider.
"""

import subprocess
import sys

import pytest

from chainrule.eval.findings import above_truth
from chainrule.eval.results import Results, read

FEW = {"steps": 60, "sft-steps": 30, "counted": 1500, "documents": 20, "questions": 8}


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Results:
    runs = tmp_path_factory.mktemp("runs")
    code = "import sys; from chainrule.cli import main; sys.exit(main())"
    few = [word for name, number in FEW.items() for word in (f"--{name}", str(number))]
    subprocess.run([sys.executable, "-c", code, "quickstart", "--runs", str(runs), *few], check=True, capture_output=True)
    return read(runs / "quickstart")


def test_so_few_steps_bring_the_model_so_near_to_the_truth(learned):
    model = next(rung for rung in learned.ladder if rung.name == "Transformer")
    above = {language: above_truth(learned.ladder, model, language) for language in ("en", "zh")}
    print(above, learned.order, learned.next)
    assert above["en"] < 1.2
