"""Training on pairs: a few are learned by heart, a run goes on to the same bits, and models and data that do not fit are refused."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

import chainrule as cr
from chainrule.cli import main
from chainrule.core.errors import ConfigError, DataError
from chainrule.eval.translations import exactness, translate
from chainrule.train.recipe import (
    Bytes,
    Fresh,
    FreshSeq2Seq,
    Optimizing,
    Pairs,
    Recipe,
    Start,
    Text,
    World,
    WorldPairs,
    read_recipe,
)
from chainrule.train.run import run_recipe

PAIRS = [("one cat", "一只猫"), ("two cats", "两只猫"), ("one dog", "一只狗"), ("two dogs", "两只狗")]


def recipe(path, **more) -> Recipe:
    settings = {
        "model": FreshSeq2Seq(n_layers=1, d_model=32, n_heads=2, d_ff=32), "tokenizer": Bytes(), "steps": 120, "context": 24,
        "batch_rows": 4, "save_every": 40, "eval_every": 60, "threads": 1, "precision": "fp32", "keep": 9,
        "data": Pairs(path=str(path)),
    }  # fmt: skip
    return Recipe(**(settings | more))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [*PAIRS, PAIRS[0]]  # the last is held out
    path.write_text("\n".join(json.dumps({"source": a, "target": b}) for a, b in rows))
    return path


@pytest.fixture(scope="module", params=["original", "t5"])
def learned(request, pairs, tmp_path_factory):
    shape = FreshSeq2Seq(plan=request.param, n_layers=1, d_model=32, n_heads=2, d_ff=32)
    return run_recipe(recipe(pairs, model=shape), "learned", runs=tmp_path_factory.mktemp(request.param)).folder


def test_a_few_pairs_are_learned_by_heart(learned):
    lm = cr.load(learned)
    sources = [source for source, _ in PAIRS]
    assert translate(lm, sources, max_tokens=32) == [(target, True) for _, target in PAIRS]
    assert not any(ended for _, ended in translate(lm, sources, max_tokens=1))
    found = exactness(lm, PAIRS)
    assert (found.right, found.asked, found.cut) == (4, 4, 0)
    assert found.nats < 0.5
    right, wrong = (lm.score(text, given="two cats", end=True).total for text in ("两只猫", "一只猫"))
    assert right > -0.5 > -2 > wrong
    assert lm.next("两只", 1, given="two dogs")[0][0] == "狗"
    assert lm.logp("一只狗", prompt="one dog") == pytest.approx(lm.score("一只狗", given="one dog").total, abs=1e-4)


def test_the_command_line_translates_scores_and_measures(learned, pairs, capsys):
    def said(*words):
        assert main([str(word) for word in words]) == 0
        return capsys.readouterr().out

    assert said("generate", learned, "two dogs", "--temperature", "0") == "两只狗\n"
    assert "bits per byte" in said("score", learned, "两只狗", "--given", "two dogs")
    assert "狗" in said("next", learned, "两只", "--given", "two dogs", "-k", "1")
    assert said("eval", learned, "--text", pairs).startswith("all    5 of 5 translated exactly")
    for words in (("score", learned, "两只狗"), ("next", learned, "两只"), ("generate", learned)):
        assert main([str(word) for word in words]) == 2
        assert "given a source" in capsys.readouterr().err


def test_a_resumed_run_ends_in_the_same_bits(pairs, tmp_path):
    wanted = recipe(pairs, steps=8, save_every=4, micro_rows=2)
    whole = run_recipe(wanted, "whole", runs=tmp_path)
    shutil.copytree(whole.folder, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-00000008")
    cut = run_recipe(wanted, "cut", runs=tmp_path, resume=True)
    a, b = (load_file(run.folder / "model" / "model.safetensors") for run in (whole, cut))
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_model_that_exists_goes_on_learning(learned, pairs, tmp_path):
    more = run_recipe(recipe(pairs, model=Start(path=str(learned)), steps=1), "more", runs=tmp_path)
    rows = [json.loads(line) for line in (more.folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["held_out_loss"] < 0.2


def test_the_world_is_told_in_both_directions(tmp_path):
    wanted = recipe(
        "", data=WorldPairs(stories=20, people=1, events=0), steps=1, context=160, optimizer=Optimizing(kind="adamw")
    )
    run = run_recipe(wanted, "world", runs=tmp_path)
    assert json.loads((run.folder / "data.json").read_text())["pairs"] == 40


def test_models_and_data_that_do_not_fit_are_refused(pairs, tmp_path):
    with pytest.raises(ConfigError, match="pairs train an encoder–decoder"):
        run_recipe(recipe(pairs, model=Fresh()), "a", runs=tmp_path)
    with pytest.raises(ConfigError, match="reads no chats among its texts"):
        run_recipe(recipe(pairs, data=World(documents=9, chats=3)), "b", runs=tmp_path)


def test_too_little_to_learn_from_is_refused(tmp_path):
    (tmp_path / "short.txt").write_text("a cat.\n\na dog.")
    with pytest.raises(DataError, match="less than one context of 64"):
        run_recipe(recipe("", data=Text(path=str(tmp_path / "short.txt")), context=64), "a", runs=tmp_path)
    with pytest.raises(DataError, match="no pairs to learn from"):
        run_recipe(recipe("", data=WorldPairs(stories=0)), "b", runs=tmp_path)


def test_another_kind_of_data_takes_nothing_over_from_the_first(tmp_path):
    asked = ["data.path=mine.jsonl", "data.kind=pairs", "tokenizer.pattern=cl100k"]  # in whatever order
    assert read_recipe("translate_world", asked).data == Pairs(path="mine.jsonl")
    asked = ["data.kind=text", "data.path=my_folder", "context=256", "batch_rows=64"]
    assert read_recipe("translate_world", asked).data == Text(path="my_folder")
    decoder = read_recipe("translate_world", ["model.kind=fresh", "model.n_heads=2", "data.kind=world"]).model
    assert decoder == Fresh(n_layers=2, d_model=128, n_heads=2, d_ff=320)  # what both kinds know is kept
    assert read_recipe("translate_world", ["data.kind=world_pairs"]) == read_recipe("translate_world")
    assert read_recipe("translate_world", ["optimizer.kind=adamw"]).optimizer.lr == read_recipe("translate_world").optimizer.lr


def test_a_text_is_learned_in_parts(learned, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("one cat sees two dogs.\n\n" * 40)
    fresh = recipe("", data=Text(path=str(path)), steps=1, context=16)
    run = run_recipe(fresh, "fresh", runs=tmp_path)
    told = json.loads((run.folder / "data.json").read_text())
    assert told["pairs"] > 40
    assert told["mean_target"] <= 1 + 16 // 4
    assert told["mean_source"] <= 16
    more = run_recipe(replace(fresh, model=Start(path=str(run.folder))), "more", runs=tmp_path)
    assert json.loads((more.folder / "data.json").read_text())["sha256"] == told["sha256"]


def test_the_shipped_recipe_is_read():
    shipped = read_recipe("translate_world")
    assert isinstance(shipped.data, WorldPairs)
    assert isinstance(shipped.model, FreshSeq2Seq)
