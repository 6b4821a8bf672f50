"""What is expected of this machine stands beside what is best; where nothing is expected the plan says why."""

import importlib.util
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from chainrule.core.device import pick_device
from chainrule.core.schema import dump
from chainrule.eval.anatomy import take_apart
from chainrule.eval.bricks import Scores, update_bricks
from chainrule.eval.devices import device
from chainrule.eval.expected import Timing, decode_bricks, expect, prefill_bricks, step_bricks
from chainrule.eval.memory import Setting
from chainrule.eval.plan import plan
from chainrule.eval.plan_text import plan_text
from chainrule.models.decoder import Decoder, DecoderConfig
from tests.eval.test_plan import BLOCKS, D, V

SETTING = Setting(rows=1, length=16)
pytestmark = pytest.mark.skipif(pick_device().type != "cpu", reason="bricks are timed on a CPU alone")


def planned(name: str, setting: Setting = SETTING, **limit):
    anatomy = take_apart(Decoder(DecoderConfig(vocab_size=V, context=64, d_model=D, blocks=(BLOCKS[name],))), name)
    return expect(plan(anatomy, setting, device("laptop")), Timing(anatomy, setting, device("laptop"), **limit))


def seconds_of(row) -> list[float | None]:
    """What is expected of a row."""
    return [value for key, value in dump(row).items() if key.startswith("expected")]


def test_expected_stands_beside_the_best_in_text_and_data():
    made = planned("llama")
    rows = {row.way: row for row in made.training}
    assert min(rows[way].expected_seconds for way in ("full, fp32", "full, mixed bf16")) > 0
    assert min(seconds_of(made.inference[0])) > 0
    others = [row for row in (*made.training, *made.inference) if not any(seconds_of(row))]
    assert all(row.not_expected.startswith("timed are ") for row in others)
    assert len(others) == 3 + 3
    said = plan_text(made)
    assert "expected: its bricks timed here, which took" in said
    assert "not timed, bf16; int8; int4: timed are weights in fp32" in said


def test_a_plan_of_another_device_expects_nothing():
    anatomy = take_apart(Decoder(DecoderConfig(vocab_size=V, context=64, d_model=D, blocks=(BLOCKS["llama"],))), "llama")
    assert "expected" not in plan_text(plan(anatomy, SETTING, device("laptop")))


@pytest.mark.parametrize(
    ("name", "setting", "limit", "why"),
    [
        ("experts", SETTING, {}, "the time of experts depends on which are chosen"),
        ("latent", SETTING, {}, "only attention by grouped queries"),
        ("sinks", SETTING, {}, "only attention by grouped queries"),
        ("llama", replace(SETTING, ranks=2), {}, "what several devices send"),
        ("llama", replace(SETTING, checkpointing=True), {}, "computed again"),
        ("llama", SETTING, {"limit": 0.0}, "and 0 s are the most"),
    ],
)
def test_where_nothing_is_expected_one_line_says_why(name, setting, limit, why):
    made = planned(name, setting, **limit)
    assert made.timing_seconds == 0
    assert not any(any(seconds_of(row)) for row in (*made.training, *made.inference))
    lines = [line for line in plan_text(made).splitlines() if why in line]
    assert [line.split(":")[0] for line in lines] == [
        "not timed, full, fp32; full, mixed bf16",
        "not timed, fp32",
    ]


def test_what_does_not_fit_is_not_timed():
    anatomy = take_apart(Decoder(DecoderConfig(vocab_size=V, context=64, d_model=D, blocks=(BLOCKS["llama"],))), "llama")
    small = replace(device("laptop"), memory_bytes=1e3)
    made = expect(plan(anatomy, SETTING, small), Timing(anatomy, SETTING, small))
    assert {row.not_expected for row in made.training[:2]} == {"it does not fit"}
    assert made.timing_seconds == 0


def test_a_token_after_others_meets_a_cache_and_a_step_does_not():
    anatomy = take_apart(Decoder(DecoderConfig(vocab_size=V, context=64, d_model=D, blocks=(BLOCKS["llama"],))), "llama")
    for laid, cached in (
        (decode_bricks(anatomy, 2, 16), True),
        (prefill_bricks(anatomy, 2, 16), True),
        (step_bricks(anatomy, SETTING), False),
    ):
        assert {brick.cached for brick in laid if isinstance(brick, Scores)} == {cached}


def test_micro_batches_take_their_own_time_each_and_share_one_update():
    anatomy = take_apart(Decoder(DecoderConfig(vocab_size=V, context=64, d_model=D, blocks=(BLOCKS["llama"],))), "llama")
    once, often = (step_bricks(anatomy, replace(SETTING, micro_batches=n)) for n in (1, 1000))
    update = update_bricks(anatomy, SETTING.optimizer)
    assert often == Counter({brick: n if brick in update else 1000 * n for brick, n in once.items()})
    one, many = (planned("llama", replace(SETTING, micro_batches=n)).training[0].expected_seconds for n in (1, 1000))
    assert many > 20 * one


def test_the_benchmark_tells_what_is_more_than_a_tenth_off(capsys):
    spec = importlib.util.spec_from_file_location("benchmark", Path(__file__).parents[2] / "benchmarks" / "plan.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    assert [benchmark.report("wide", "write", guess, 1.0, "ms") for guess in (0.89, 0.91, 1.09, 1.11)] == [
        False,
        True,
        True,
        False,
    ]
    assert capsys.readouterr().out.count("more than 10% off") == 2
