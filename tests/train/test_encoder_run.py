"""An encoder through the one loop: it learns hidden words, resumes to the same bits, and is asked afterwards."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

import chainrule as cr
from chainrule.cli import main
from chainrule.core.errors import ConfigError
from chainrule.train.recipe import Bpe, Bytes, FreshEncoder, Optimizing, Recipe, Start, Text, read_recipe
from chainrule.train.run import run_recipe

SENTENCES = ("the cat sat on the mat", "the dog ran to the park", "a bird sang in the tree", "today the weather is fine")
TINY = FreshEncoder(n_layers=2, d_model=32, n_heads=2, d_ff=32)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text.jsonl").write_text("\n".join(json.dumps({"text": one}) for one in SENTENCES * 25))
    return folder


def recipe(place, **more) -> Recipe:
    settings = {"steps": 60, "context": 32, "batch_rows": 8, "save_every": 20, "eval_every": 30, "threads": 1, "precision": "fp32",
                "model": TINY, "tokenizer": Bpe(vocab_size=280), "keep": 9,
                "optimizer": Optimizing(lr=0.05, adam_lr=0.02)}  # fmt: skip
    return Recipe(data=Text(path=str(place / "text.jsonl")), **(settings | more))


@pytest.fixture(scope="module")
def run(place):
    return run_recipe(recipe(place), "whole", runs=place)


def test_it_begins_knowing_nothing_and_learns(run):
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    held = [row["held_out_loss"] for row in rows if "held_out_loss" in row]
    assert held[0] == pytest.approx(5.63, abs=0.2)  # ln 280
    assert held[-1] < 1.0


def test_a_resumed_run_ends_in_the_same_bits(run, place):
    shutil.copytree(run.folder, place / "cut")
    shutil.rmtree(place / "cut" / "model")
    for step in (40, 60):
        shutil.rmtree(place / "cut" / "checkpoints" / f"step-{step:08d}")
    run_recipe(recipe(place), "cut", runs=place, resume=True)
    whole, cut = (load_file(place / name / "model" / "model.safetensors") for name in ("whole", "cut"))
    assert whole.keys() == cut.keys()
    assert all(torch.equal(whole[name], cut[name]) for name in whole)


def test_the_run_fills_in_words_and_transformers_agrees(run, capsys):
    transformers = pytest.importorskip("transformers")
    lm = cr.load(run.folder, device="cpu")
    assert lm.fill("[MASK] cat sat on the mat")[0][0][0] == "the"
    text = "the cat sat [MASK] the [MASK]"
    first, second = lm.fill(text, k=3)
    theirs = transformers.BertForMaskedLM.from_pretrained(run.folder / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.folder / "model")
    ids = torch.tensor([[lm.tokenizer.begin, *tokenizer(text, add_special_tokens=False).input_ids, lm.tokenizer.end]])
    with torch.no_grad():
        p = theirs(ids).logits[0].softmax(-1)[ids[0] == tokenizer.convert_tokens_to_ids("[MASK]")]
    for found, row in zip((first, second), p, strict=True):
        assert [value for _, value in found] == pytest.approx(row.topk(3).values.tolist(), abs=1e-4)

    assert main(["fill", str(run.folder), text, "-k", "3", "--json", "--device", "cpu"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [mask[0]["text"] for mask in told["masks"]] == [first[0][0], second[0][0]]
    assert main(["fill", str(run.folder), text, "--device", "cpu"]) == 0
    assert capsys.readouterr().out.count("mask ") == 2


def test_training_goes_on_from_an_encoder_that_exists(run, place):
    begin = Start(path=str(run.folder))
    more = run_recipe(recipe(place, model=begin, steps=2, optimizer=Optimizing(kind="adamw", lr=1e-4)), "more", runs=place)
    rows = [json.loads(line) for line in (more.folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["held_out_loss"] < 1.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fill", "RUN", "the cat"], "no mask to fill; write [MASK]"),
        (["fill", "RUN", "[MASK]" * 40], "42 tokens long, but whole reads 32"),
        (["fill", "RUN", "[MASK]", "-k", "0"], "-k is 0"),
        (["fill", "RUN", "[MASK]", "-k", "999"], "k=999"),
        (["fill", "ngram:TEXT", "[MASK]"], "chainrule next"),
        (["generate", "RUN", "the"], "is an encoder"),
        (["score", "RUN", "the"], "is an encoder"),
        (["next", "RUN", "the"], "is an encoder"),
        (["chat", "RUN", "hello"], "is an encoder"),
        (["eval", "RUN", "--text", "TEXT"], "is an encoder"),
        (["ladder", "RUN", "--text", "TEXT"], "is an encoder"),
    ],
)
def test_what_an_encoder_cannot_do_is_one_clear_message(run, place, capsys, words, message):
    names = {"RUN": str(run.folder), "TEXT": str(place / "text.jsonl"), "ngram:TEXT": f"ngram:{place / 'text.jsonl'}"}
    assert main([names.get(word, word) for word in words]) == 2
    out = capsys.readouterr()
    assert message in out.err
    assert not out.out


def test_a_recipe_that_hides_words_needs_a_mask_and_a_head(place):
    with pytest.raises(ConfigError, match="which this tokenizer lacks"):
        run_recipe(recipe(place, tokenizer=Bytes()), "bytes", runs=place)


def test_the_recipe_that_ships_is_an_encoder_on_the_world():
    shipped = read_recipe("pretrain_bert_world", ["steps=3"])
    assert isinstance(shipped.model, FreshEncoder)
    assert shipped.steps == 3


def test_plan_knows_an_encoder_and_says_what_it_does_not_know_of_it(run, capsys):
    for name in (str(run.folder), "pretrain_bert_world"):
        assert main(["plan", name]) == 0
        assert "unknown" in capsys.readouterr().out
