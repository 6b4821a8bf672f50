"""The quickstart's figures in twenty seconds: how much is learned in so few steps, which any slip in the training would move.

The whole of it, with the goals, is run by ``make prove``. A bound is what was measured and a twentieth more.
"""

from pathlib import Path

import pytest

from chainrule.eval.results import Results
from chainrule.recipes.quickstart import Plan, quickstart

STEPS = 60


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> Results:
    few = {"steps": STEPS, "sft_steps": 20, "held_out": 40, "questions": 4, "counted": 3000}
    return quickstart(Plan(runs=Path(tmp_path_factory.mktemp("runs")), **few))


def test_sixty_steps_bring_the_model_so_near_to_the_truth(learned):
    model, truth = (next(rung for rung in learned.ladder if rung.name == name) for name in ("Transformer", "truth"))
    above = {language: model.bits_per_byte[language] / truth.bits_per_byte[language] - 1 for language in ("en", "zh")}
    print(above)
    assert above["en"] < 1
    assert above["zh"] < 1


def test_the_odds_of_beginnings_are_learned_first(learned):
    assert learned.order is not None
    nats = {one.name: one.nats for one in learned.order.odds}
    print(nats["Transformer"], [(w.off) if hasattr(w, "off") else w for w in getattr(learned, "next", ())][:3])
