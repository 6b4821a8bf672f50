"""The loop on its own: Ctrl-C at any moment ends in a saved step, and its rows are JSON whatever the numbers are."""

import json
import os
import signal

import pytest
import torch

from chainrule.core.datum import Batch
from chainrule.hub.fresh import fresh
from chainrule.logprobs.losses import cross_entropy
from chainrule.train.loop import PATIENCE, Diverged, Hooks, Interrupted, Settings, train
from chainrule.train.objective import Objective
from chainrule.train.optim import AdamW
from chainrule.train.schedule import Schedule


class OneBatch:
    """A stream of one batch."""

    def batches(self, step):
        return [Batch(torch.arange(8).view(2, 4), torch.ones(2, 4))]

    def describe(self):
        return {}


def loop(hooks: Hooks, *, steps: int, save_every: int = 99, spoilt: bool = False) -> None:
    model = fresh(vocab_size=11, context=8, n_layers=1, d_model=16, n_heads=2, n_kv_heads=2, d_ff=16, rope_theta=1e4,
                  tied=True, init="normal", seed=0)  # fmt: skip
    if spoilt:
        with torch.no_grad():
            model.norm.weight[0] = torch.nan
    settings = Settings(steps=steps, schedule=Schedule(), device=torch.device("cpu"), eval_every=99, save_every=save_every)
    train(Objective(model, cross_entropy), OneBatch(), AdamW(model, lr=0.01), settings, hooks)


def stop() -> dict:
    os.kill(os.getpid(), signal.SIGINT)
    return {}


@pytest.mark.parametrize("where", ["step", "evaluation", "save"])
def test_ctrl_c_at_the_last_step_is_heard_once_it_is_saved(where):
    saved: list[int] = []

    def log(row):
        if where == "step" and row.get("loss") is not None and row["step"] == 3:
            stop()

    def save(step):
        saved.append(step)
        if where == "save":
            stop()

    looks = iter([dict, stop if where == "evaluation" else dict])  # before the first step, and after the last
    hooks = Hooks(log=log, save=save, evaluate=lambda: next(looks)())
    with pytest.raises(Interrupted, match="stopped after step 3, which is saved"):
        loop(hooks, steps=3)
    assert saved == [3]


def test_ctrl_c_while_a_step_is_saved_stops_after_the_next_which_is_saved_too():
    saved: list[int] = []

    def save(step):
        saved.append(step)
        if step == 2:
            stop()

    with pytest.raises(Interrupted, match="stopped after step 3, which is saved"):
        loop(Hooks(log=lambda row: None, save=save, evaluate=dict), steps=9, save_every=2)
    assert saved == [2, 3]


def test_what_an_evaluation_finds_is_json_too():
    rows: list[dict] = []
    found = {"held_out_loss": float("nan"), "bits_per_byte": float("inf"), "sample": "words"}
    loop(Hooks(log=rows.append, save=lambda step: None, evaluate=lambda: found), steps=1)
    looks = [json.loads(json.dumps(row, allow_nan=False)) for row in rows if "sample" in row]
    assert looks == [{"step": n, "held_out_loss": None, "bits_per_byte": None, "sample": "words"} for n in (0, 1)]


def test_rows_of_steps_that_were_skipped_are_json_and_steps_are_counted_from_one():
    rows: list[dict] = []
    with pytest.raises(Diverged, match=rf"{PATIENCE} steps in a row up to {PATIENCE} were not finite") as stopped:
        loop(Hooks(log=rows.append, save=lambda step: None, evaluate=dict), steps=20, spoilt=True)
    assert stopped.value.step == 1
    read = [json.loads(json.dumps(row, allow_nan=False)) for row in rows[1:]]
    assert [row["step"] for row in read] == list(range(1, PATIENCE))
    assert all(row["skipped"] and row["loss"] is None and row["grad_norm"] is None for row in read)
