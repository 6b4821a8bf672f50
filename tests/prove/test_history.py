"""The long proof: the ladder of history as a user climbs it is in order, and the LSTM of equal size stays above the truth.

Keeps its numbers in docs/results.json.
"""

import pytest
import torch

from chainrule.core.schema import dump
from chainrule.eval.findings import above_truth
from chainrule.eval.history import SPREAD, average, chosen, slips
from chainrule.recipes.history import Plan, history
from tests.measured import keep_measured


@pytest.mark.prove
def test_the_ladder_of_history_is_in_order(tmp_path):
    found = history(Plan(runs=tmp_path))
    rungs = {one.key: dump(one.rung) for one in found.milestones}
    keep_measured("ladder", torch.get_num_threads(), {"rungs": rungs}, on_world=True)
    assert [one.key for one in found.milestones] == list(chosen(None))
    assert [str(slip) for slip in slips(found) if slip.in_mean > SPREAD] == []
    lstm, transformer = found.milestone("lstm"), found.milestone("transformer")
    assert lstm.rung.parameters == pytest.approx(transformer.rung.parameters, rel=0.05)
    assert average(lstm.rung) > average(transformer.rung)
    assert all(above_truth(found.rungs, lstm.rung, language) >= 0.05 for language in ("en", "zh"))
