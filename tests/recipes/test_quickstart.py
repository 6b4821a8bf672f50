"""The quickstart in its smallest form: every stage runs, the report is whole, and nothing is overwritten."""

import json

import pytest

from chainrule.cli import main
from chainrule.core.errors import ConfigError
from chainrule.eval.results import read
from chainrule.hub.load import load
from chainrule.recipes.quickstart import Plan, quickstart
from chainrule.train.recipe import Fresh

SMALL = Fresh(n_layers=2, d_model=32, n_heads=4, d_ff=32)


def plan(tmp_path, **more):
    settings = {
        "runs": tmp_path,
        "steps": 6,
        "sft_steps": 4,
        "vocab_size": 1000,
        "held_out": 12,
        "questions": 8,
        "counted": 400,
        "shape": SMALL,
    }
    return Plan(**(settings | more))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return folder, quickstart(plan(folder))


def test_every_stage_leaves_its_numbers(done):
    _, results = done
    names = [rung.name for rung in results.ladder]
    assert names[0] == "uniform"
    assert names[-2:] == ["Transformer", "truth"]
    assert len(names) == 15
    assert {score.role for score in results.chats} == {"majority", "ngram", "before", "after"}
    assert [cost.stage for cost in results.costs] == [
        "world and n-grams",
        "pretraining",
        "fine-tuning",
        "evaluation and report",
    ]
    assert results.order is not None
    assert results.order.odds[-1].nats == pytest.approx(results.order.expected, abs=1e-3)
    assert {curve.language for curve in results.curves} == {"en", "zh"}
    assert len(results.next) == 2


def test_no_model_is_better_than_the_truth(done):
    _, results = done
    for language in ("en", "zh"):
        floor = results.ladder[-1].bits_per_byte[language]
        assert all((rung.bits_per_byte[language] or 99) >= floor for rung in results.ladder)


def test_the_run_can_be_used(done):
    folder, results = done
    assert read(folder / "quickstart") == results
    html = (folder / "quickstart" / "report.html").read_text(encoding="utf-8")
    assert "<svg" in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    lm = load(folder / "quickstart")
    assert isinstance(lm.chat([{"role": "user", "content": "3 + 4 = ?"}], max_tokens=4), str)


def test_a_finished_run_is_not_replaced_unless_asked(done):
    folder, _ = done
    with pytest.raises(ConfigError, match="exists already"):
        quickstart(plan(folder))


def test_an_interrupted_run_goes_on(done):
    folder, results = done
    again = quickstart(plan(folder), resume=True)
    assert again.ladder[-2].bits_per_byte == results.ladder[-2].bits_per_byte


def test_the_users_own_text_takes_the_same_road(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("The cat sat on the mat.\nThe dog ran to the park and sat there too.\n" * 120)
    results = quickstart(plan(tmp_path, name="mine", text=text))
    assert results.world is None
    assert [rung.family for rung in results.ladder][-1] == "model"
    assert not results.chats
    assert (tmp_path / "mine" / "report.html").exists()
    assert main(["generate", str(tmp_path / "mine"), "The", "--max-tokens", "3"]) == 0


def test_results_are_plain_json(done):
    folder, _ = done
    json.loads((folder / "quickstart" / "results.json").read_text(encoding="utf-8"))
