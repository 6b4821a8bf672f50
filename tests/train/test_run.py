"""Runs: stopped at any moment and gone on with, they end in the same bits; and the loop says when it cannot learn."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from chainrule.core.datum import Batch
from chainrule.core.errors import ChainruleError, CheckpointError, ConfigError, DataError
from chainrule.hub.fresh import fresh
from chainrule.hub.load import load
from chainrule.logprobs.losses import cross_entropy
from chainrule.train.loop import Hooks, Interrupted, Settings, train
from chainrule.train.material import prepare
from chainrule.train.objective import Objective
from chainrule.train.optim import AdamW, Averaged, Muon, orthogonal, split_parameters
from chainrule.train.progress import Progress
from chainrule.train.recipe import (
    Bytes,
    Fresh,
    FreshConfig,
    Optimizing,
    Recipe,
    Start,
    Text,
    parse_recipe,
    read_recipe,
    write_recipe,
)
from chainrule.train.run import _Log, evaluate, run_recipe
from chainrule.train.schedule import Schedule

TINY = {"n_layers": 2, "d_model": 16, "n_heads": 2, "d_ff": 16}
WORDS = "the cat sat on the mat and the dog ran to the park. "


def recipe(path: Path, **more) -> Recipe:
    settings = {
        "steps": 12,
        "context": 16,
        "batch_rows": 4,
        "save_every": 4,
        "eval_every": 6,
        "threads": 1,
        "precision": "fp32",
    }
    parts = {"model": Fresh(**TINY), "tokenizer": Bytes(), "data": Text(path=str(path))}
    return Recipe(**(parts | settings | more))


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(WORDS * 60)
    return path


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_learns_and_writes_its_folder(text, tmp_path):
    run = run_recipe(recipe(text, steps=40), "a", runs=tmp_path)
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 40
    assert losses[-1] < losses[0] - 1
    assert abs(rows[0]["held_out_loss"] - 5.55) < 0.2  # ln 257: it knows nothing at step 0
    assert {"recipe.yaml", "metrics.jsonl", "model", "checkpoints"} <= {path.name for path in run.folder.iterdir()}
    assert parse_recipe((run.folder / "recipe.yaml").read_text()) == recipe(text, steps=40)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_the_result_can_be_the_mean_of_the_last_weights(text, tmp_path, optimizer):
    steps = {"optimizer": Optimizing(kind=optimizer), "steps": 6, "save_every": 1, "keep": 9}
    plain = run_recipe(recipe(text, **steps), "plain", runs=tmp_path)
    mean = run_recipe(recipe(text, **steps, average=0.5), "mean", runs=tmp_path)
    kept = "checkpoints/step-0000000{}/model.safetensors"
    last = [load_file(plain.folder / kept.format(n)) for n in (4, 5, 6)]
    for name, found in load_file(mean.folder / kept.format(6)).items():
        torch.testing.assert_close(found, sum(one[name] for one in last) / 3, rtol=0, atol=1e-6)
    assert not same(weights(plain.folder), weights(mean.folder))
    looks = [json.loads(line).get("held_out_loss") for line in (mean.folder / "metrics.jsonl").read_text().splitlines()]
    model = mean.model.eval()
    stream = prepare(recipe(text, **steps)).held_out
    assert looks[-1] == pytest.approx(
        evaluate(Objective(model, cross_entropy), stream, torch.device("cpu"), torch.float32)["held_out_loss"]
    )


def test_a_mean_goes_on_to_the_same_bits(text, tmp_path):
    wanted = recipe(text, steps=8, save_every=2, keep=9, average=0.75)
    whole = run_recipe(wanted, "whole", runs=tmp_path)
    for stopped in (2, 6):  # before the mean begins, and in its midst
        cut = tmp_path / f"cut{stopped}"
        shutil.copytree(whole.folder, cut)
        for n in range(stopped + 2, 9, 2):
            shutil.rmtree(cut / "checkpoints" / f"step-{n:08d}")
        run_recipe(wanted, cut.name, runs=tmp_path, resume=True)
        assert same(weights(cut), weights(whole.folder))


def test_a_step_that_was_skipped_counts_for_the_mean(text):
    model = fresh(vocab_size=257, context=16, n_kv_heads=None, rope_theta=1e4, tied=True, init="normal", seed=0, **TINY)
    inner = AdamW(model, lr=0.1)
    averaged = Averaged(inner, model, skipped=1)
    for finite in (True, False, True):
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        averaged.step(1.0) if finite else averaged.skip()
        if finite:
            last = [parameter.detach().clone() for parameter in model.parameters()]
        else:
            kept = last
    averaged.finish()
    for parameter, one, two in zip(model.parameters(), kept, last, strict=True):
        torch.testing.assert_close(parameter.detach(), (one + two) / 2)


def test_the_balance_of_a_recipe_is_in_the_loss_that_a_run_learns_by(text, tmp_path):
    """In one step of a mixture: balance times the imbalance is added to what is learned, and not to what is held out."""
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "tie_word_embeddings": True}
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    mixture = FreshConfig(config={"model_type": "mixtral", **shape, "num_key_value_heads": 2, **experts})
    rows, routers = {}, {}
    for balance in (0.0, 0.5, 1.0):
        run = run_recipe(recipe(text, model=mixture, balance=balance, steps=1), f"balance{balance}", runs=tmp_path)
        before, rows[balance], after = map(json.loads, (run.folder / "metrics.jsonl").read_text().splitlines())
        routers[balance] = {name: tensor for name, tensor in weights(run.folder).items() if "block_sparse_moe.gate" in name}
        rows[balance]["held_out_loss"] = before["held_out_loss"]
        assert after["step"] == 1
    plain = rows[0.0]
    assert "imbalance" not in plain
    for balance in (0.5, 1.0):
        row = rows[balance]
        assert row["imbalance"] >= 1.99  # k = 2 where experts are used alike, more where they are not
        assert row["loss"] - plain["loss"] == pytest.approx(balance * row["imbalance"], abs=1e-5)
        assert row["held_out_loss"] == plain["held_out_loss"]
        assert len(routers[balance]) == 2
        assert not any(torch.equal(routers[balance][name], routers[0.0][name]) for name in routers[0.0])


def test_another_optimizers_state_and_a_damaged_checkpoint_are_refused(text, tmp_path):
    run = run_recipe(recipe(text, steps=4), "a", runs=tmp_path)
    for change in ({"average": 0.5}, {"optimizer": Optimizing(kind="adamw")}):
        with pytest.raises(CheckpointError, match="the state of another optimizer"):
            run_recipe(recipe(text, steps=8, **change), "a", runs=tmp_path, resume=True, force=True)
    (run.folder / "checkpoints" / "step-00000004" / "state.json").write_text('{"st')
    with pytest.raises(CheckpointError, match="is damaged"):
        run_recipe(recipe(text, steps=4), "a", runs=tmp_path, resume=True)


@pytest.mark.parametrize(
    ("override", "because"),
    [
        ("steps=[", "is not YAML"), ("data={kind: [1]}", "has kind"), ("threads=-1", "threads"), ("micro_rows=0", "micro_rows"),
        ("seed=-1", "seed"), ("optimizer.adam_lr=-1", "adam_lr > 0"), ("optimizer.betas=[2,3]", "betas from 0 to below 1"),
        ("data.documents=-1", "data.documents"), ("data.day=2024-02-30", r"'data\.day=2024-02-30' is not YAML: day is out of"),
    ],
)  # fmt: skip
def test_values_that_cannot_be_are_refused_with_the_recipe(override, because):
    with pytest.raises(ConfigError, match=because):
        read_recipe("pretrain_world", [override])


def test_a_day_that_no_month_has_is_refused_with_the_recipe_that_says_it():
    with pytest.raises(ConfigError, match="mine is not YAML: day is out of range for month"):
        parse_recipe("data: {kind: world_chats, day: 2024-02-30}", where="mine")
    with pytest.raises(ConfigError, match="mine is not YAML"):
        parse_recipe("[" * 5000, where="mine")


def test_a_share_of_the_steps_is_a_share(text):
    with pytest.raises(ConfigError, match=r"'average' is 3; it is a share"):
        recipe(text, average=3)


@pytest.mark.parametrize(
    "more",
    [
        {"optimizer": Optimizing(kind="muon")},
        {"optimizer": Optimizing(kind="adamw")},
        {"precision": "bf16"},
    ],
    ids=["muon", "adamw", "bf16"],
)
def test_a_resumed_run_ends_in_the_same_bits(text, tmp_path, more):
    wanted = recipe(text, keep=9, **more)
    whole = run_recipe(wanted, "whole", runs=tmp_path)
    shutil.copytree(whole.folder, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "model")
    for step in (8, 12):
        shutil.rmtree(tmp_path / "cut" / "checkpoints" / f"step-{step:08d}")
    (tmp_path / "cut" / "checkpoints" / ".step-00000008.1.part").mkdir()  # what a kill in the middle of a write leaves
    cut = run_recipe(wanted, "cut", runs=tmp_path, resume=True)
    assert same(weights(whole.folder), weights(cut.folder))
    rows = [json.loads(line) for line in (cut.folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "loss" in row] == list(range(1, 13))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_run_on_two_threads_goes_on_to_the_same_bits(text, tmp_path, optimizer):
    shape = Fresh(**TINY | {"d_model": 64})  # wide enough that its products are shared out
    stepping = Optimizing(kind=optimizer)
    wanted = recipe(text, threads=2, steps=3, save_every=1, context=64, batch_rows=8, keep=9, model=shape, optimizer=stepping)
    whole = run_recipe(wanted, "whole", runs=tmp_path)
    assert torch.get_num_threads() == 2
    shutil.copytree(whole.folder, tmp_path / "cut")
    for step in (2, 3):
        shutil.rmtree(tmp_path / "cut" / "checkpoints" / f"step-{step:08d}")
    cut = run_recipe(wanted, "cut", runs=tmp_path, resume=True)
    assert same(weights(whole.folder), weights(cut.folder))


def apart(wanted: Recipe, name: str, runs: Path, **how: bool) -> list[str]:
    """The command that makes a run in a process of its own."""
    code = (
        "from pathlib import Path\nfrom chainrule.train.recipe import parse_recipe\nfrom chainrule.train.run import run_recipe\n"
        f"run_recipe(parse_recipe({write_recipe(wanted)!r}), {name!r}, runs=Path({str(runs)!r}), **{how})"
    )
    return [sys.executable, "-c", code]


@pytest.mark.prove
def test_a_compiled_run_goes_on_to_the_same_bits(text, tmp_path):
    """In processes of their own: what checks the shapes in signatures here cannot be compiled."""
    wanted = recipe(text, steps=6, save_every=3, keep=9, compile=True)
    subprocess.run(apart(wanted, "whole", tmp_path), check=True)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "model")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-00000006")
    subprocess.run(apart(wanted, "cut", tmp_path, resume=True), check=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_a_killed_process_goes_on_to_the_same_bits(text, tmp_path):
    from chainrule.train.run import locked

    wanted = recipe(text, steps=40, save_every=3)
    process = subprocess.Popen(apart(wanted, "killed", tmp_path), stderr=subprocess.DEVNULL)
    folder = tmp_path / "killed" / "checkpoints"
    limit = time.monotonic() + 60
    while not (folder.exists() and list(folder.glob("step-*"))) and time.monotonic() < limit:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL  # it was still at work
    assert not (tmp_path / "killed" / "model").exists()
    with locked(tmp_path / "killed"):  # the kill let the lock go
        pass
    killed = run_recipe(wanted, "killed", runs=tmp_path, resume=True)
    whole = run_recipe(wanted, "whole", runs=tmp_path)
    assert same(weights(whole.folder), weights(killed.folder))


def test_ctrl_c_ends_the_step_saves_it_and_goes_on_to_the_same_bits(text, tmp_path, monkeypatch):
    update = Progress.update

    def press(self, step, loss, tokens):
        update(self, step, loss, tokens)
        if step + 1 == 5:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "update", press)
        with pytest.raises(Interrupted, match="stopped after step 5, which is saved"):
            run_recipe(recipe(text), "cut", runs=tmp_path)
    assert max(path.name for path in (tmp_path / "cut" / "checkpoints").iterdir()) == "step-00000005"
    cut = run_recipe(recipe(text), "cut", runs=tmp_path, resume=True)
    assert same(weights(cut.folder), weights(run_recipe(recipe(text), "whole", runs=tmp_path).folder))


def test_changed_circumstances_are_refused_unless_forced(text, tmp_path):
    run_recipe(recipe(text), "a", runs=tmp_path)
    mixed = r".* or go on with --force to a mixed model: its steps so far stay as they were learned"
    with pytest.raises(CheckpointError, match=rf"\(the recipe\){mixed}"):
        run_recipe(recipe(text, clip=0.5), "a", runs=tmp_path, resume=True)
    run_recipe(recipe(text, clip=0.5), "a", runs=tmp_path, resume=True, force=True)
    assert parse_recipe((tmp_path / "a" / "recipe.yaml").read_text()).clip == 0.5
    with pytest.raises(CheckpointError, match=r"dtype was torch\.float32, is torch\.bfloat16"):
        run_recipe(recipe(text, clip=0.5, precision="bf16"), "a", runs=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match=rf"\(the recipe; threads was 1, is 2\){mixed}"):
        run_recipe(recipe(text, clip=0.5, threads=2), "a", runs=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="compile was False, is True"):
        run_recipe(recipe(text, clip=0.5, compile=True), "a", runs=tmp_path, resume=True)
    text.write_text(text.read_text().replace("cat", "cow"))
    with pytest.raises(CheckpointError, match=rf"\(the recipe; the data\){mixed}"):
        run_recipe(recipe(text, clip=0.5), "a", runs=tmp_path, resume=True)
    with pytest.raises(CheckpointError, match="no run to go on with"):
        run_recipe(recipe(text), "b", runs=tmp_path, resume=True)


def test_a_run_that_is_further_than_its_recipe_goes_is_no_run_of_it(text, tmp_path):
    run = run_recipe(recipe(text, steps=4), "a", runs=tmp_path)
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match=r"step-00000004 has made 4 steps, and the recipe has steps=2; set steps to 4 or"):
        run_recipe(recipe(text, steps=2), "a", runs=tmp_path, resume=True, force=True)
    assert {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()} == before


def test_only_where_nothing_else_has_changed_it_is_a_matter_of_last_bits(text, tmp_path):
    run_recipe(recipe(text, steps=1), "a", runs=tmp_path)
    path = tmp_path / "a" / "checkpoints" / "step-00000001" / "state.json"
    state = json.loads(path.read_text())
    state["circumstances"] |= {"threads": 2, "torch": "2.0"}
    path.write_text(json.dumps(state))
    told = r"\(threads was 2, is 1; torch was 2\.0, is .*\); .* or accept other last bits with --force$"
    with pytest.raises(CheckpointError, match=told):
        run_recipe(recipe(text, steps=1), "a", runs=tmp_path, resume=True)
    run_recipe(recipe(text, steps=1), "a", runs=tmp_path, resume=True, force=True)


def test_a_run_refused_before_its_first_step_leaves_nothing_and_replaces_nothing(text, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("the cat sat")
    with pytest.raises(DataError, match="less than one context"):
        run_recipe(recipe(short), "new", runs=tmp_path / "first" / "runs")
    assert not (tmp_path / "first").exists()
    done = run_recipe(recipe(text, steps=2), "old", runs=tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        run_recipe(recipe(tmp_path / "nowhere"), "old", runs=tmp_path, force=True)
    assert (done.folder / "model" / "model.safetensors").exists()


def test_a_run_killed_before_its_first_checkpoint_begins_anew_on_resume(text, tmp_path):
    for name in ("early", "later"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ".lock").touch()
    (tmp_path / "later" / "recipe.yaml").write_text("version: 1")
    whole = run_recipe(recipe(text, steps=2), "whole", runs=tmp_path)
    for name in ("early", "later"):
        assert same(weights(run_recipe(recipe(text, steps=2), name, runs=tmp_path, resume=True).folder), weights(whole.folder))


def test_a_finished_model_without_checkpoints_is_not_trained_away_by_resume(text, tmp_path):
    done = run_recipe(recipe(text, steps=2), "a", runs=tmp_path)
    shutil.rmtree(done.folder / "checkpoints")
    before = weights(done.folder)
    with pytest.raises(CheckpointError, match="holds a finished model and no checkpoint"):
        run_recipe(recipe(text, steps=2), "a", runs=tmp_path, resume=True)
    assert same(weights(done.folder), before)
    run_recipe(recipe(text, steps=3), "a", runs=tmp_path, resume=True, force=True)
    assert len((done.folder / "metrics.jsonl").read_text().splitlines()) == 5  # three steps and two looks


@pytest.mark.parametrize("more", [{}, {"force": True}, {"resume": True}, {"resume": True, "force": True}])
def test_a_folder_that_is_no_run_is_never_emptied(text, tmp_path, more):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"holds precious\.txt, but no run"):
        run_recipe(recipe(text, steps=2), "mine", runs=tmp_path, **more)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["precious.txt"]


@pytest.mark.parametrize("more", [{}, {"force": True}, {"resume": True}])
def test_what_a_kill_left_half_written_is_no_hindrance(text, tmp_path, more):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".lock").touch()
    (tmp_path / "a" / ".recipe.yaml.17.part").write_text("ver")
    run = run_recipe(recipe(text, steps=1), "a", runs=tmp_path, **more)
    assert not (run.folder / ".recipe.yaml.17.part").exists()


def test_a_run_on_another_version_of_the_world_does_not_go_on(tmp_path, monkeypatch):
    from chainrule.train import run as module
    from chainrule.train.recipe import World

    wanted = recipe(tmp_path, data=World(documents=4), steps=2)
    done = run_recipe(wanted, "a", runs=tmp_path)
    assert json.loads((done.folder / "data.json").read_text())["world"] == module.VERSION
    run_recipe(wanted, "a", runs=tmp_path, resume=True)
    monkeypatch.setattr(module, "VERSION", module.VERSION + 1)
    with pytest.raises(CheckpointError, match=r"world was \d+, is \d+"):
        run_recipe(wanted, "a", runs=tmp_path, resume=True)


def test_a_run_on_ones_own_text_knows_no_world(text, tmp_path):
    done = run_recipe(recipe(text, steps=1), "a", runs=tmp_path)
    assert "world" not in json.loads((done.folder / "data.json").read_text())


def test_a_checkpoint_written_on_an_accelerator_is_gone_on_with_on_the_cpu(text, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")  # what a run on a GPU writes
    run_recipe(recipe(text, steps=2), "a", runs=tmp_path)
    again = run_recipe(recipe(text, steps=4), "a", runs=tmp_path, resume=True, force=True)
    assert (again.folder / "checkpoints" / "step-00000004").exists()


def test_a_checkpoint_that_lacks_a_tensor_is_refused(text, tmp_path):
    from safetensors.torch import save_file

    run = run_recipe(recipe(text, steps=2), "a", runs=tmp_path)
    path = run.folder / "checkpoints" / "step-00000002" / "model.safetensors"
    tensors = load_file(path)
    del tensors["norm.weight"]
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"lacks norm\.weight"):
        run_recipe(recipe(text, steps=2), "a", runs=tmp_path, resume=True)


def test_a_model_with_a_template_of_its_own_is_fine_tuned_with_it(text, tmp_path):
    from chainrule.hub.lm import LM
    from chainrule.hub.load import load
    from chainrule.tokenizers.chat import ChatTemplate
    from chainrule.train.recipe import Chats, Start

    run = run_recipe(recipe(text, steps=1), "base", runs=tmp_path)
    own = "{% for m in messages %}{{ m.role[0] + ':' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
    LM(run.model, run.tokenizer, ChatTemplate(own, run.tokenizer)).save(tmp_path / "chatty")
    row = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]}
    (tmp_path / "chats.jsonl").write_text(f"{json.dumps(row)}\n" * 3)
    tiny = {"steps": 1, "context": 16, "batch_rows": 1, "threads": 1, "precision": "fp32"}
    start = Start(path=str(tmp_path / "chatty"))
    tuned = run_recipe(Recipe(model=start, data=Chats(path=str(tmp_path / "chats.jsonl")), **tiny), "tuned", runs=tmp_path)
    assert tuned.template is not None
    assert load(tuned.folder).template.source == own
    more = run_recipe(Recipe(model=start, data=Text(path=str(text)), **tiny), "more", runs=tmp_path)
    assert load(more.folder).template.source == own  # pretraining on does not take its words away
    base = Start(path=str(tmp_path / "base"))
    with pytest.raises(ConfigError, match="no chat template"):
        run_recipe(Recipe(model=base, data=Chats(path=str(tmp_path / "chats.jsonl")), **tiny), "none", runs=tmp_path)


def test_a_run_in_micro_batches_has_the_losses_and_gradients_of_one_in_whole_batches(text, tmp_path):
    wanted = {"steps": 3, "optimizer": Optimizing(kind="adamw")}
    runs = [run_recipe(recipe(text, **wanted, micro_rows=n), str(n), runs=tmp_path) for n in (None, 1)]
    logs = [[json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()] for run in runs]
    for key in ("loss", "grad_norm"):
        whole, cut = ([row[key] for row in rows if key in row] for rows in logs)
        assert cut == pytest.approx(whole, rel=1e-4)
        assert cut[0] == pytest.approx(whole[0], rel=1e-6)  # of the very same weights


class Rows:
    """A stream of one step's batches."""

    def __init__(self, *batches: Batch) -> None:
        self.micro = batches

    def batches(self, step):
        return self.micro

    def describe(self):
        return {}


def tiny():
    return fresh(vocab_size=11, context=8, n_layers=2, d_model=16, n_heads=2, n_kv_heads=2, d_ff=16, rope_theta=1e4,
                 tied=True, init="normal", seed=0)  # fmt: skip


def loop(batch: Batch, model=None, steps: int = 20) -> list[dict]:
    model = model or tiny()
    rows: list[dict] = []
    settings = Settings(steps=steps, schedule=Schedule(), device=torch.device("cpu"), eval_every=99, save_every=99)
    hooks = Hooks(log=rows.append, save=lambda step: None, evaluate=dict)
    train(Objective(model, cross_entropy), Rows(batch), AdamW(model, lr=0.01), settings, hooks)
    return rows


class Copying:
    """An optimizer that leaves the weights alone and copies what gradients it is given."""

    def __init__(self, model) -> None:
        self.model = model

    def step(self, scale):
        self.seen = {name: parameter.grad.clone() for name, parameter in self.model.named_parameters()}

    def finish(self):
        pass


def test_micro_batches_of_very_different_weight_come_to_the_whole_batch():
    """Rows of 1, 7, 2 and 2 judged tokens: the first of a row is judged nowhere."""
    tokens = torch.randint(11, (4, 8), generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(4, 8)
    mask[0, 3] = mask[1, :] = mask[2, 4:6] = mask[3, 5:7] = 1
    found = []
    for rows in (4, 1):
        model = tiny()
        copying, logged = Copying(model), []
        settings = Settings(steps=1, schedule=Schedule(), device=torch.device("cpu"), clip=1e9)
        hooks = Hooks(log=logged.append, save=None, evaluate=dict)
        stream = Rows(*map(Batch, tokens.split(rows), mask.split(rows)))
        train(Objective(model, cross_entropy), stream, copying, settings, hooks)
        found.append((logged[1]["loss"], logged[1]["grad_norm"], copying.seen))
    (loss, norm, gradients), (cut_loss, cut_norm, cut_gradients) = found
    assert cut_loss == pytest.approx(loss, rel=1e-6)
    assert cut_norm == pytest.approx(norm, rel=1e-6)
    logp = torch.log_softmax(tiny()(tokens).detach(), -1)[:, :-1].gather(2, tokens[:, 1:, None])[..., 0]
    assert loss == pytest.approx(float(-logp[mask[:, 1:] > 0].mean()), rel=1e-6)
    for name, gradient in gradients.items():
        torch.testing.assert_close(cut_gradients[name], gradient, rtol=0, atol=1e-6 * norm)


def test_a_batch_with_nothing_to_learn_is_refused():
    with pytest.raises(DataError, match="none to learn from"):
        loop(Batch(torch.ones(2, 4, dtype=torch.long), torch.zeros(2, 4)))


def test_numbers_that_are_not_finite_stop_the_run_and_spoil_no_weights():
    model = tiny()
    with torch.no_grad():
        model.norm.weight[0] = torch.nan
    before = model.embed_tokens.weight.clone()
    with pytest.raises(ChainruleError, match="not finite"):
        loop(Batch(torch.ones(2, 4, dtype=torch.long), torch.ones(2, 4)), model)
    assert torch.equal(model.embed_tokens.weight, before)


def test_muon_takes_the_inner_matrices_and_orthogonalises():
    inner, rest = split_parameters(tiny())
    assert len(inner) == 2 * 7
    assert any(parameter.shape == (11, 16) for parameter in rest.values())
    u = orthogonal(torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(0)))
    values = torch.linalg.svdvals(u.float())
    assert values.min() > 0.6
    assert values.max() < 1.3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_muon_sees_the_direction_of_a_gradient_however_small(dtype):
    g = torch.randn(3, 8, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(orthogonal(1e-7 * g, dtype), orthogonal(g, dtype), atol=2e-2, rtol=0)


def graded(model, step: int, seed: int = 0) -> dict[str, torch.Tensor]:
    """Every parameter gets a random gradient, at some steps much larger than at others; returns them by name."""
    generator = torch.Generator().manual_seed(10 * seed + step)
    for parameter in model.parameters():
        parameter.grad = (1, 0.1, 3)[step % 3] * torch.randn(parameter.shape, generator=generator)
    return {name: parameter.grad.double() for name, parameter in model.named_parameters()}


SCALES = (1.0, 0.5, 0.25)
"""What a schedule says at three steps."""


def oblong():
    """A model of square matrices (queries), tall ones (gates) and wide ones (keys, and the way down)."""
    return fresh(vocab_size=11, context=8, n_layers=2, d_model=16, n_heads=2, n_kv_heads=1, d_ff=24, rope_theta=1e4,
                 tied=True, init="normal", seed=0)  # fmt: skip


def adam_by_hand(weight, gradients, *, lr: float, decay: float):
    """arXiv:1711.05101 with β = 0.9, 0.95, in float64."""
    w, m, v = weight.detach().double(), 0.0, 0.0
    for t, (gradient, scale) in enumerate(zip(gradients, SCALES, strict=True), start=1):
        m, v = 0.9 * m + 0.1 * gradient, 0.95 * v + 0.05 * gradient**2
        w = (1 - lr * scale * decay) * w - lr * scale * (m / (1 - 0.9**t)) / ((v / (1 - 0.95**t)).sqrt() + 1e-8)
    return w.float()


def muon_by_hand(weight, gradients, *, lr: float, momentum: float, decay: float):
    """kellerjordan.github.io/posts/muon in float64; the quintic acts on the singular values alone, so it may act on those."""
    w, m = weight.detach().double(), 0.0
    for gradient, scale in zip(gradients, SCALES, strict=True):
        m = momentum * m + (1 - momentum) * gradient
        u, s, vt = torch.linalg.svd((1 - momentum) * gradient + momentum * m, full_matrices=False)
        s = s / s.norm()
        for _ in range(5):
            s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
        rows, columns = w.shape
        w = (1 - lr * scale * decay) * w - lr * scale * max(1, rows / columns) ** 0.5 * (u * s) @ vt
    return w.float()


def test_three_steps_of_adamw_by_hand():
    model = oblong()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer, seen = AdamW(model, lr=0.05, weight_decay=0.5), []
    for step, scale in enumerate(SCALES):
        seen.append(graded(model, step))
        optimizer.step(scale)
    for name, found in model.named_parameters():
        gradients, decay = [one[name] for one in seen], 0.5 if found.ndim == 2 else 0.0
        torch.testing.assert_close(
            found.detach(), adam_by_hand(before[name], gradients, lr=0.05, decay=decay), rtol=0, atol=1e-6
        )


def test_three_steps_of_muon_by_hand():
    model = oblong()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    inner, rest = split_parameters(model)
    assert {(p.shape[0] > p.shape[1]) - (p.shape[0] < p.shape[1]) for p in inner.values()} == {-1, 0, 1}
    optimizer, seen = Muon(model, lr=0.1, adam_lr=0.05, momentum=0.9, weight_decay=0.5), []
    for step, scale in enumerate(SCALES):
        seen.append(graded(model, step))
        optimizer.step(scale)
    for name, found in inner.items():
        wanted = muon_by_hand(before[name], [one[name] for one in seen], lr=0.1, momentum=0.9, decay=0.5)
        torch.testing.assert_close(found.detach(), wanted, rtol=0, atol=2e-5)
    for name, found in rest.items():
        wanted = adam_by_hand(before[name], [one[name] for one in seen], lr=0.05, decay=0.0)
        torch.testing.assert_close(found.detach(), wanted, rtol=0, atol=1e-6)


def test_muon_equals_torchs_own():
    """Its iterations are always in bfloat16 and hold less than two digits of the way that three steps go."""
    ours, theirs = oblong(), oblong()
    inner = split_parameters(theirs)[0]
    mine = Muon(ours, lr=0.1, adam_lr=0.0, momentum=0.9, weight_decay=0.5, dtype=torch.bfloat16)
    reference = torch.optim.Muon(list(inner.values()), lr=0.1, momentum=0.9, weight_decay=0.5)
    for step, scale in enumerate(SCALES):
        graded(ours, step)
        graded(theirs, step)
        mine.step(scale)
        reference.param_groups[0]["lr"] = 0.1 * scale
        reference.step()
    found, start = ours.state_dict(), oblong().state_dict()
    for name in inner:
        wanted = theirs.state_dict()[name]
        assert (found[name] - wanted).norm() < 0.05 * (wanted - start[name]).norm()


@pytest.mark.parametrize(("kind", "kept"), [("adamw", 1 - 0.01 * 0.5), ("muon", 1.0)])
def test_an_optimizer_that_remembers_another_runs_steps_has_settings_of_its_own(kind, kept):
    """By hand, for the embedding, which Muon leaves to Adam without decay: a gradient of 1, then, under other betas, of 0."""

    def stepping(betas: tuple[float, float], decay: float):
        if kind == "adamw":
            return AdamW(model, lr=0.01, betas=betas, weight_decay=decay)
        return Muon(model, lr=0.01, adam_lr=0.01, betas=betas, weight_decay=decay)

    def graded(gradient: float) -> None:
        for parameter in model.parameters():
            parameter.grad = torch.full_like(parameter, gradient)

    model = tiny()
    before = stepping((0.9, 0.95), 0.0)
    graded(1.0)
    before.step(1.0)
    after = stepping((0.5, 0.6), 0.5)
    after.load_state_dict(before.state_dict())
    weight = model.embed_tokens.weight.detach().clone()
    graded(0.0)
    after.step(1.0)
    m, v = 0.5 * 0.1 / (1 - 0.5**2), 0.6 * 0.05 / (1 - 0.6**2)
    torch.testing.assert_close(model.embed_tokens.weight.detach(), kept * weight - 0.01 * m / math.sqrt(v), rtol=0, atol=1e-6)


def test_schedules_by_hand():
    wsd = Schedule(kind="wsd", warmup=2, decay=0.5)
    assert [wsd.scale(step, 8) for step in range(8)] == [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]
    cosine = Schedule(kind="cosine", warmup=0, floor=0.1)
    assert cosine.scale(0, 10) == 1.0
    assert abs(cosine.scale(5, 10) - 0.55) < 1e-9


def test_the_worlds_chats_that_the_context_cannot_hold_are_left_out_and_counted(tmp_path, capsys):
    from chainrule.train.recipe import Bpe, Start, World, WorldChats

    tiny = {"steps": 2, "context": 256, "batch_rows": 2, "threads": 1, "precision": "fp32"}
    tokenizer = Bpe(vocab_size=1000, pattern="world", sample_bytes=200_000)
    run_recipe(Recipe(model=Fresh(**TINY), tokenizer=tokenizer, data=World(documents=300), **tiny), "base", runs=tmp_path)
    start = Start(path=str(tmp_path / "base"))
    tuned = run_recipe(Recipe(model=start, data=WorldChats(chats=60, documents=4), **tiny), "tuned", runs=tmp_path)
    assert "chats are longer than 256 tokens and left out" in capsys.readouterr().err
    assert tuned.template is not None
    with pytest.raises(ConfigError, match="raise the context"):
        run_recipe(Recipe(model=start, data=WorldChats(chats=60), **tiny | {"context": 24}), "short", runs=tmp_path)


def test_chats_among_documents_are_read_but_change_no_beginning():
    from chainrule.tokenizers.chat import IM_END, IM_START
    from chainrule.train.material import prepare
    from chainrule.train.recipe import Bpe, World

    tiny = {"steps": 1, "context": 512, "batch_rows": 1, "threads": 1, "precision": "fp32"}
    tokenizer = Bpe(vocab_size=700, pattern="world", sample_bytes=20_000)
    material = prepare(Recipe(model=Fresh(**TINY), tokenizer=tokenizer, data=World(documents=20, chats=20), **tiny))
    rows, specials = material.stream.rows, material.tokenizer.specials
    began = rows.tokens == specials[IM_START]
    first = began & (np.roll(rows.tokens, 1, axis=1) == material.tokenizer.bos)
    assert first.sum() == 20
    assert not rows.mask[first].any()  # how texts begin is learned from documents alone
    assert rows.mask[began & ~first].all()
    assert rows.mask[rows.tokens == specials[IM_END]].all()
    without = prepare(Recipe(model=Fresh(**TINY), tokenizer=tokenizer, data=World(documents=20), **tiny)).stream.rows
    assert not (without.tokens == specials[IM_START]).any()


def test_beginnings_are_the_first_tokens_of_further_documents(tmp_path):
    from chainrule.train.material import BEGINNING, prepare
    from chainrule.train.recipe import Bpe, Start, World, WorldChats

    tiny = {"steps": 1, "context": 512, "batch_rows": 2, "threads": 1, "precision": "fp32"}
    tokenizer = Bpe(vocab_size=700, pattern="world", sample_bytes=20_000)
    run_recipe(Recipe(model=Fresh(**TINY), tokenizer=tokenizer, data=World(documents=30), **tiny), "base", runs=tmp_path)
    start = Start(path=str(tmp_path / "base"))

    def read(**data) -> int:
        rows = prepare(Recipe(model=start, data=WorldChats(chats=5, documents=0, **data), **tiny)).stream.rows
        return int((rows.document >= 0).sum())

    assert read(beginnings=7) == read() + 7 * BEGINNING


def test_the_publishers_advice_how_to_generate_outlives_fine_tuning(text, tmp_path):
    said = {"temperature": 0.7, "top_p": 0.8, "repetition_penalty": 1.05}
    base = run_recipe(recipe(text, steps=1), "base", runs=tmp_path).folder / "model"
    given = json.loads((base / "generation_config.json").read_text())
    (base / "generation_config.json").write_text(json.dumps(given | said))
    tuned = run_recipe(recipe(text, model=Start(path=str(base)), steps=1), "tuned", runs=tmp_path).folder
    assert load(tuned).generation == given | said


def test_no_more_rows_are_held_out_at_once_than_are_trained_on_at_once(text, tmp_path):
    """As many batches as that takes, and the same loss."""
    text.write_text(WORDS * 300)
    lost = []
    for more, sizes in (({}, [4] * 8), ({"micro_rows": 2}, [2] * 16), ({"batch_rows": 64}, [32])):
        material = prepare(recipe(text, **more))
        assert material.held_out is not None
        assert [len(batch.tokens) for batch in material.held_out.batches(0)] == sizes
        lost.append(evaluate(Objective(material.model, cross_entropy), material.held_out, torch.device("cpu"), torch.float32))
    assert len({round(one["held_out_loss"], 5) for one in lost}) == 1
    few = prepare(recipe(text, data=Text(path=str(text), held_out=0.0065))).held_out
    assert few is not None
    assert [len(batch.tokens) for batch in few.batches(0)] == [1] * 7  # no other number divides them evenly


def test_what_a_kill_left_half_written_is_removed(text, tmp_path):
    folder = run_recipe(recipe(text), "a", runs=tmp_path).folder
    (folder / ".model.999.part").mkdir()
    (folder / ".model.999.part" / "model.safetensors").write_text("half")
    run_recipe(recipe(text), "a", runs=tmp_path, resume=True)
    assert sorted(path.name for path in folder.glob(".*")) == [".lock"]


def test_a_row_of_metrics_is_whole_or_absent(tmp_path, monkeypatch):
    log = _Log(tmp_path, 0)
    log.write({"step": 0})
    dumps = json.dumps
    with monkeypatch.context() as patch:
        patch.setattr("chainrule.train.run.json.dumps", lambda row: dumps(row) * 4000)  # more than what is written at once
        resource = pytest.importorskip("resource")
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        try:
            with pytest.raises(DataError, match=r"cannot write .*metrics\.jsonl: File too large"):
                log.write({"step": 1})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
    log.write({"step": 2})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 0}\n{"step": 2}\n'
