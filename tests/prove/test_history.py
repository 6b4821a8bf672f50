"""The long proof: the ladder of history as a user climbs it is in order, and the LSTM of equal size stays above the truth.

Keeps its numbers in docs/results.json.
"""

import subprocess
import sys
from typing import Any

import pytest

from chainrule.core.schema import dump
from chainrule.eval.findings import above_truth
from chainrule.eval.history import SPREAD, Milestone, average, chosen, read, slips
from tests.measured import keep_measured

EQUAL = ("LLaMA", "MoE")
"""Neighbours of which the second may pay more in a language: two trainings of one model differ by up to ``SPREAD`` in the mean."""


@pytest.mark.prove
def test_the_ladder_of_history_is_in_order(tmp_path):
    """In a process of its own: no signature is checked there, which would take its time."""
    subprocess.run([sys.executable, "-m", "chainrule", "ladder", "--runs", str(tmp_path)], check=True)
    found = read(tmp_path / "ladder")
    rungs = {one.key: kept(one) for one in found.milestones}
    run = {"dtype": found.machine.dtype, "held_out": found.held_out, "seconds": found.seconds, "rungs": rungs}
    keep_measured("ladder", found.machine.threads, run, on_world=True)
    assert [one.key for one in found.milestones] == list(chosen(None))
    assert [str(slip) for slip in slips(found) if (slip.before, slip.name) != EQUAL] == []
    assert all(slip.in_mean <= SPREAD for slip in slips(found))
    lstm, transformer = found.milestone("lstm"), found.milestone("transformer")
    assert lstm.rung.parameters == pytest.approx(transformer.rung.parameters, rel=0.05)
    assert average(lstm.rung) > average(transformer.rung)
    assert all(above_truth(found.rungs, lstm.rung, language) >= 0.05 for language in ("en", "zh"))


def kept(one: Milestone) -> dict[str, Any]:
    """What is kept of a rung: what it pays, its sizes, its training with its own speed, and its way; not how fast it was judged."""
    rung = {key: value for key, value in dump(one.rung).items() if key != "tokens_per_s"}
    training = None if one.training is None else {**dump(one.training), "tokens_per_s": one.training.tokens_per_s}
    return {**rung, "active": one.active, "training": training, "curve": dump(one.curve)}
