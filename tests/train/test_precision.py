"""Narrow training: what fp16 loses without a loss scale, and runs that end in the same bits in every format."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from chainrule.core.datum import Batch
from chainrule.core.device import pick_device, pick_dtype
from chainrule.core.errors import ChainruleError, DeviceError
from chainrule.core.loss import Loss
from chainrule.hub.fresh import fresh
from chainrule.logprobs.losses import cross_entropy
from chainrule.train.checkpoint import Circumstances, load_checkpoint, save_checkpoint
from chainrule.train.loop import PATIENCE, Hooks, Settings, train
from chainrule.train.objective import Objective
from chainrule.train.optim import AdamW
from chainrule.train.precision import LossScale, Precision, pick_precision
from chainrule.train.recipe import Bytes, Fresh, Optimizing, Recipe, Text
from chainrule.train.run import run_recipe
from chainrule.train.schedule import Schedule

CPU = torch.device("cpu")
BATCH = Batch(torch.arange(8).view(2, 4) % 11, torch.ones(2, 4))
NOW = Circumstances("recipe", "data", 1, "torch.float16", False, "cpu", torch.__version__)


class Rows:
    """The same batch for ever."""

    def batches(self, step):
        return [BATCH]

    def describe(self):
        return {}


def tiny():
    return fresh(vocab_size=11, context=8, n_layers=2, d_model=16, n_heads=2, n_kv_heads=2, d_ff=16, rope_theta=1e4,
                 tied=True, init="normal", seed=0)  # fmt: skip


def faint(model, batch: Batch) -> Loss:
    """Cross entropy, a hundred millionth of it: its gradients are below fp16's smallest number."""
    loss = cross_entropy(model, batch)
    return Loss(loss.total * 1e-8, loss.weight, {"real": loss.total.detach()})


def run(model, optimizer, *, loss=cross_entropy, scaling=None, steps=30, start=0, save=lambda step: None) -> list[dict]:
    rows: list[dict] = []
    settings = Settings(steps=steps, schedule=Schedule(), dtype=torch.float16, device=CPU, eval_every=99, save_every=6)
    hooks = Hooks(log=rows.append, save=save, evaluate=dict)
    train(Objective(model, loss), Rows(), optimizer, settings, hooks, start=start, scaling=scaling)
    return [row for row in rows if "loss" in row]


def test_a_gradient_too_small_for_fp16_is_lost_without_a_scale_and_kept_with_one():
    lost, kept = tiny(), tiny()
    before = lost.embed_tokens.weight.clone()
    run(lost, AdamW(lost, lr=0.05), loss=faint)
    rows = run(kept, AdamW(kept, lr=0.05), loss=faint, scaling=LossScale(2.0**20))
    assert torch.equal(lost.embed_tokens.weight, before)
    assert rows[-1]["real"] < 0.7 * rows[0]["real"]


def test_scaled_gradients_are_those_of_fp32_once_the_scale_is_taken_off():
    narrow, wide = tiny(), tiny()
    rows = run(narrow, AdamW(narrow, lr=0.01), scaling=LossScale(64.0), steps=1)
    cross_entropy(wide, BATCH).total.backward()
    norm = torch.nn.utils.get_total_norm([parameter.grad for parameter in wide.parameters()]) / 6
    assert rows[0]["grad_norm"] == pytest.approx(float(norm), rel=1e-2)


def test_an_overflow_skips_the_step_and_halves_the_scale_until_gradients_fit():
    model = tiny()
    rows = run(model, AdamW(model, lr=0.01), scaling=LossScale(2.0**40), steps=60)
    skipped = [row["skipped"] for row in rows]
    first = skipped.index(False)
    assert first > PATIENCE
    assert not any(skipped[first:])
    assert [row["loss_scale"] for row in rows[: first + 1]] == [2.0 ** (40 - i) for i in range(first + 1)]
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_a_scale_does_not_hide_a_loss_that_is_no_number():
    model = tiny()
    with torch.no_grad():
        model.norm.weight[0] = torch.nan
    with pytest.raises(ChainruleError, match="not finite"):
        run(model, AdamW(model, lr=0.01), scaling=LossScale())


def test_the_scale_grows_after_so_many_good_steps():
    model = tiny()
    rows = run(model, AdamW(model, lr=0.01), scaling=LossScale(4.0, every=3), steps=8)
    assert [row["loss_scale"] for row in rows] == [4, 4, 4, 8, 8, 8, 16, 16]


def test_a_run_in_fp16_goes_on_from_its_checkpoint_to_the_same_bits(tmp_path):
    whole = tiny()
    optimizer, scaling = AdamW(whole, lr=0.01), LossScale(2.0**24, every=4)

    def save(step):
        save_checkpoint(tmp_path, step, whole, optimizer, NOW, keep=9, scaling=scaling)

    rows = run(whole, optimizer, scaling=scaling, steps=18, save=save)
    cut, again = tiny(), LossScale(every=4)
    second = AdamW(cut, lr=0.01)
    step = load_checkpoint(tmp_path / "step-00000006", cut, second, NOW, scaling=again)
    rest = run(cut, second, scaling=again, steps=18, start=step)
    assert [row["loss_scale"] for row in rest] == [row["loss_scale"] for row in rows[6:]]
    assert len({row["loss_scale"] for row in rows}) > 3
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), cut.parameters(), strict=True))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_pure_bf16_keeps_everything_narrow_and_resumes_to_the_same_bits(tmp_path, optimizer):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat and the dog ran to the park. " * 60)
    recipe = Recipe(
        model=Fresh(n_layers=2, d_model=16, n_heads=2, d_ff=16), tokenizer=Bytes(), data=Text(path=str(text)), steps=8,
        context=16, batch_rows=4, save_every=4, threads=1, precision="pure_bf16", optimizer=Optimizing(kind=optimizer), keep=9,
    )  # fmt: skip
    whole = run_recipe(recipe, "whole", runs=tmp_path)
    assert {parameter.dtype for parameter in whole.model.parameters()} == {torch.bfloat16}
    shutil.copytree(whole.folder, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-00000008")
    run_recipe(recipe, "cut", runs=tmp_path, resume=True)
    a, b = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "cut"))
    assert {tensor.dtype for tensor in a.values()} == {torch.bfloat16}
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_each_precision_is_what_its_name_says():
    assert pick_precision("fp32", CPU) == Precision(torch.float32)
    assert pick_precision("bf16", CPU) == Precision(torch.bfloat16)
    assert pick_precision("pure_bf16", CPU) == Precision(torch.float32, torch.bfloat16)
    assert Precision(torch.float16).scale() is not None
    assert Precision(torch.bfloat16).scale() is None
    with pytest.raises(DeviceError, match="fp16 on a CPU is slower"):
        pick_precision("fp16", CPU)
    with pytest.raises(DeviceError, match="did you mean 'bf16'"):
        pick_dtype("bf61", CPU)


def test_a_device_that_is_not_here_is_refused_with_what_is_missing():
    with pytest.raises(DeviceError, match="unknown device 'tpu'"):
        pick_device("tpu")
    for name in ("cpu:", "cpu:x", "cpu:01", "cpu:-1", "cpu:²"):
        with pytest.raises(
            DeviceError, match=f"unknown device '{name}': after the colon stands a number, as in cuda:0; or say cpu"
        ):
            pick_device(name)
    with pytest.raises(DeviceError, match="'cpu:1' is not here: a machine has one cpu"):
        pick_device("cpu:1")
    assert pick_device("cpu:0") == torch.device("cpu:0")
    if not torch.backends.mps.is_available():
        with pytest.raises(DeviceError, match="MPS needs a Mac"):
            pick_device("mps")
    if not torch.cuda.is_available():
        missing = "built without CUDA" if torch.version.cuda is None else "no CUDA device is visible"
        with pytest.raises(DeviceError, match=missing):
            pick_device("cuda")
