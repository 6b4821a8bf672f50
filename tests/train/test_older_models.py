"""The recurrent and the neural n-gram recipes: trained by the one loop, resumed to the same bits, used like any model."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import chainrule as cr
from chainrule.core.errors import ConfigError
from chainrule.models.neural_ngram import NeuralNGram
from chainrule.models.rnn import Recurrent
from chainrule.train.recipe import Bytes, FreshNeuralNGram, FreshRecurrent, Optimizing, Recipe, Text, parse_recipe, read_recipe
from chainrule.train.run import run_recipe
from chainrule.train.schedule import Schedule

WORDS = "the cat sat on the mat and the dog ran to the park. "
MODELS = {
    "lstm": FreshRecurrent(cell="lstm", d_model=24),
    "gru": FreshRecurrent(cell="gru", d_model=24, n_layers=2),
    "rnn": FreshRecurrent(cell="rnn", d_model=16, d_hidden=24, tied=False),
    "neural_ngram": FreshNeuralNGram(order=4, d_model=8, d_hidden=24, epochs=1),
}


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(WORDS * 60)
    return path


def recipe(model, text: Path, **more) -> Recipe:
    settings = {"steps": 6, "context": 16, "batch_rows": 4, "save_every": 3, "threads": 1, "precision": "fp32"}
    settings |= {"optimizer": Optimizing(kind="adamw", lr=0.02), "schedule": Schedule(warmup=2)}
    return Recipe(model=model, tokenizer=Bytes(), data=Text(path=str(text)), **(settings | more))


@pytest.mark.parametrize("name", MODELS)
def test_a_run_learns_and_is_used_like_any_model(name, text, tmp_path):
    run = run_recipe(recipe(MODELS[name], text, steps=30), "a", runs=tmp_path)
    lm = cr.load(run.folder)
    assert isinstance(lm.model, NeuralNGram if name == "neural_ngram" else Recurrent)
    assert lm.score(WORDS).bits_per_byte < 4  # a uniform guess pays 8
    assert lm.next("the ", k=2)
    assert lm.generate("the ", max_tokens=6, seed=1) == lm.generate("the ", max_tokens=6, seed=1)
    assert parse_recipe((run.folder / "recipe.yaml").read_text()).model == MODELS[name]


@pytest.mark.parametrize("name", ["lstm", "neural_ngram"])
def test_a_resumed_run_ends_in_the_same_bits(name, text, tmp_path):
    wanted = recipe(MODELS[name], text, keep=9)
    whole = run_recipe(wanted, "whole", runs=tmp_path).folder
    shutil.copytree(whole, tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step-00000006")
    cut = run_recipe(wanted, "cut", runs=tmp_path, resume=True).folder
    one, two = (load_file(folder / "model" / "model.safetensors") for folder in (whole, cut))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_word2vec_gives_another_beginning_than_chance(text, tmp_path):
    drawn = FreshNeuralNGram(order=4, d_model=8, d_hidden=24, word2vec=None)
    tables = [run_recipe(recipe(model, text, steps=1), str(i), runs=tmp_path).model.embed_tokens.weight
              for i, model in enumerate((MODELS["neural_ngram"], drawn))]  # fmt: skip
    assert not torch.allclose(tables[0], tables[1], atol=0.1)


@pytest.mark.parametrize(("name", "kind"), [("pretrain_lstm", FreshRecurrent), ("pretrain_neural_ngram", FreshNeuralNGram)])
def test_the_shipped_recipes_say_what_they_are(name, kind):
    assert isinstance(read_recipe(name).model, kind)


@pytest.mark.parametrize(
    ("name", "override", "because"),
    [
        ("pretrain_lstm", "model.cell=lsmt", "'lstm', 'gru', 'rnn'"),
        ("pretrain_lstm", "model.n_layer=2", "did you mean 'n_layers'"),
        ("pretrain_neural_ngram", "model.word2vec=glove", "'skip_gram', 'cbow'"),
        ("pretrain_neural_ngram", "model.kind=neural", "did you mean 'neural_ngram'"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(name, override, because):
    with pytest.raises(ConfigError, match=because):
        read_recipe(name, [override])


@pytest.mark.parametrize(
    ("model", "because"),
    [(FreshRecurrent(d_hidden=8), "d_hidden=8 and d_model=256"), (FreshNeuralNGram(order=1), "sees 0 tokens"), (FreshRecurrent(n_layers=0), "'model.n_layers' is 0")],
)  # fmt: skip
def test_models_that_cannot_be_built_are_refused_before_any_work(model, because, text, tmp_path):
    with pytest.raises(ConfigError, match=because):
        run_recipe(recipe(model, text), "a", runs=tmp_path)
