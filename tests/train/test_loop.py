"""The loop on its own: Ctrl-C at any moment ends in a saved step, and its rows are JSON whatever the numbers are."""

import json
import os
import signal

import pytest
import torch

from chainrule.core.datum import Batch
from chainrule.hub.fresh import fresh
from chainrule.logprobs.losses import cross_entropy
from chainrule.train.loop import PATIENCE, Diverged, Hooks, Interrupted, Settings, _scale_and_clip, train
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


def graded(*gradients: list[float]) -> list[torch.nn.Parameter]:
    """Parameters with these gradients, and one that has none."""
    parameters = [torch.nn.Parameter(torch.zeros(len(gradient))) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    return [*parameters, torch.nn.Parameter(torch.zeros(2))]


def test_gradients_above_the_clip_keep_their_direction_and_come_down_to_it():
    parameters = graded([6.0, 0.0], [0.0, -8.0, 0.0])
    assert _scale_and_clip(parameters, 2.0, 1.0) == 5.0  # the norm of (3, 0, 0, -4, 0), before it is clipped
    found = torch.cat([parameter.grad for parameter in parameters[:-1]])
    torch.testing.assert_close(found, torch.tensor([0.6, 0.0, 0.0, -0.8, 0.0]))
    assert found.norm() <= 1.0
    assert parameters[-1].grad is None


@pytest.mark.parametrize("clip", [6.0, 1e9, float("inf")])
def test_gradients_below_the_clip_are_divided_by_the_weight_alone(clip):
    parameters = graded([6.0, 0.0], [0.0, -8.0, 0.0])
    assert _scale_and_clip(parameters, 2.0, clip) == 5.0
    assert [parameter.grad.tolist() for parameter in parameters[:-1]] == [[3.0, 0.0], [0.0, -4.0, 0.0]]
