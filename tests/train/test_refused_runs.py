"""What a run cannot begin or go on with is told by its name: shapes, lines of the user's file, numbers that cannot be."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from chainrule.core.errors import CheckpointError, ConfigError, DataError
from chainrule.hub.fresh import fresh
from chainrule.hub.lm import LM
from chainrule.tokenizers.byte import ByteTokenizer
from chainrule.tokenizers.chat import ChatTemplate
from chainrule.train.material import prepare
from chainrule.train.recipe import (
    Bpe,
    Bytes,
    Chats,
    Fresh,
    FreshSeq2Seq,
    Optimizing,
    Pairs,
    Published,
    Recipe,
    Start,
    Text,
    parse_recipe,
    read_recipe,
    write_recipe,
)
from chainrule.train.run import locked, run_recipe

SMALL = {"n_layers": 3, "d_model": 16, "n_heads": 2, "d_ff": 16}
TINY = {"steps": 2, "context": 16, "batch_rows": 2, "threads": 1, "precision": "fp32"}
TEMPLATE = (
    "{% for m in messages %}{{ m.role[0] + ':' }}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}"
    "{% endgeneration %}{% else %}{{ m.content }}{% endif %}{% endfor %}"
)


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("the cat sat on the mat and the dog ran to the park. " * 20)
    return path


@pytest.mark.parametrize(
    ("change", "because"),
    [
        ({"d_model": 32}, r"embed_tokens\.weight is \[257, 16\], the recipe's \[257, 32\]"),
        ({"n_layers": 2}, r"it holds layers\.2\.\S+, which the recipe's does not"),
        ({"n_layers": 4}, r"it lacks layers\.3\."),
        ({"tied": False}, r"it lacks lm_head\.weight"),
    ],
)
def test_a_checkpoint_of_another_shape_is_not_called_damaged(text, tmp_path, change, because):
    data = Text(path=str(text))
    run_recipe(Recipe(model=Fresh(**SMALL), tokenizer=Bytes(), data=data, **TINY), "a", runs=tmp_path)
    other = Recipe(model=Fresh(**SMALL | change), tokenizer=Bytes(), data=data, **TINY)
    with pytest.raises(CheckpointError, match=rf"holds a model of another shape \(.*{because}"):
        run_recipe(other, "a", runs=tmp_path, resume=True, force=True)


@pytest.mark.parametrize("path", ["world", "ngram2:TEXT"])
@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_a_model_without_weights_is_no_start(text, tmp_path, path, kind):
    wanted = parse_recipe(
        "{context: 16, batch_rows: 2, steps: 1, threads: 1}",
        [f"model={{kind: start, path: '{path.replace('TEXT', str(text))}'}}", f"data={{kind: text, path: '{text}'}}",
         f"optimizer.kind={kind}"],
    )  # fmt: skip
    with pytest.raises(ConfigError, match="has no weights to learn by steps; start from a model that has some"):
        run_recipe(wanted, "a", runs=tmp_path)
    assert not (tmp_path / "a").exists()


def chats(tmp_path: Path, *answers: str) -> Chats:
    """A file of chats, an empty line before the first."""
    rows = [{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": each}]} for each in answers]
    (tmp_path / "chats.jsonl").write_text("\n" + "".join(json.dumps(row) + "\n" for row in rows))
    return Chats(path=str(tmp_path / "chats.jsonl"))


def chatty(tmp_path: Path, context: int) -> Start:
    model = fresh(vocab_size=257, context=context, n_kv_heads=None, rope_theta=1e4, tied=True, init="normal", seed=0, **SMALL)
    tokenizer = ByteTokenizer()
    LM(model, tokenizer, ChatTemplate(TEMPLATE, tokenizer)).save(tmp_path / "chatty", force=True)
    return Start(path=str(tmp_path / "chatty"))


def test_a_chat_that_is_too_long_is_named_by_its_line_and_what_can_be_done_is_said(tmp_path):
    long, end = "x" * 30, "such chats out: cutting them would teach broken answers"
    for answers, line in ((["a", "b", long, "c"], 4), (["a", "b", "c", long], 5)):  # learned from, and held out
        recipe = Recipe(model=chatty(tmp_path, 64), data=chats(tmp_path, *answers), **TINY)
        with pytest.raises(DataError, match=rf"chats\.jsonl:{line} is 37 tokens long and .* 16; set context to 37 .* {end}"):
            prepare(recipe)
    short = Recipe(model=chatty(tmp_path, 32), data=chats(tmp_path, "a", long), **TINY)
    with pytest.raises(DataError, match=rf"chats\.jsonl:3 is 37 .*; the model reads 32 at most, so leave {end}"):
        prepare(short)


def test_a_chat_without_an_answer_is_named_by_its_line(tmp_path):
    with pytest.raises(DataError, match=r"chats\.jsonl:3 has no word of the assistant"):
        prepare(Recipe(model=chatty(tmp_path, 64), data=chats(tmp_path, "a", "", "b"), **TINY))


def pairs(tmp_path: Path, n: int, **more) -> Recipe:
    (tmp_path / "pairs.jsonl").write_text(
        "".join(json.dumps({"source": "a" * (i + 1), "target": "b"}) + "\n" for i in range(n))
    )
    model = FreshSeq2Seq(n_layers=1, d_model=16, n_heads=2, d_ff=16)
    return Recipe(model=model, tokenizer=Bytes(), data=Pairs(path=str(tmp_path / "pairs.jsonl"), **more), **TINY)


def test_of_pairs_something_is_held_out_and_something_is_left(tmp_path):
    with pytest.raises(DataError, match="holds 1 pairs; give at least 2, one is held out"):
        prepare(pairs(tmp_path, 1))
    for share, n in ((0.01, 2), (0.99, 1)):
        material = prepare(pairs(tmp_path, 3, held_out=share))
        assert (len(material.stream.pairs), len(material.held_out.pairs)) == (n, 3 - n)


def test_a_pair_that_is_too_long_is_counted_in_the_file_though_it_is_held_out(tmp_path):
    with pytest.raises(DataError, match="pair 16 is 17 and 3 tokens long and the context is 16; set context to 17 or more"):
        prepare(pairs(tmp_path, 16))


@pytest.mark.parametrize("kind", ["text", "chats", "pairs"])
@pytest.mark.parametrize("share", [".nan", "1", "5", "-1", "0"])
def test_a_share_that_is_none_is_refused_for_every_kind_of_data(kind, share):
    with pytest.raises(ConfigError, match=r"'data\.held_out' is .*; it must be between 0 and 1"):
        parse_recipe(f"data: {{kind: {kind}, path: x, held_out: {share}}}")


@pytest.mark.parametrize(
    ("override", "because"),
    [
        ("seed=99999999999999999999", "'seed' is 99999999999999999999; it must be 0 or more, and a number of 64 bits"),
        ("model.d_ff=0", "'model.d_ff' is 0; it must be 1 or more"),
        ("model.n_kv_heads=0", "'model.n_kv_heads' is 0"),
        ("model={kind: recurrent, d_hidden: 0}", "'model.d_hidden' is 0"),
        ("optimizer.weight_decay=.nan", "weight_decay=nan"),
        ("optimizer.lr=.inf", "optimizer has lr=inf"),
        ("balance=-1", "'balance' is -1.0; it must be 0 or more"),
        ("balance=.nan", "'balance' is nan"),
        ("model={kind: config, config: {}, std: -0.02}", r"'model\.std' is -0\.02; it must be above 0"),
        ("tokenizer={kind: bpe, sample_bytes: 0}", r"'tokenizer\.sample_bytes' is 0; it must be 1 or more"),
        ("context=1", "'context' is 1; it must be 2 or more"),
    ],
)
def test_numbers_that_would_do_something_else_in_silence_are_refused(override, because):
    with pytest.raises(ConfigError, match=because):
        read_recipe("pretrain_world", [override])


def test_an_optimizer_is_refused_alone_as_in_a_recipe():
    with pytest.raises(ConfigError, match=r"optimizer has lr=0, .*; it needs lr and adam_lr > 0"):
        Optimizing(lr=0)


def test_a_rate_may_be_written_with_an_exponent(text):
    assert read_recipe("pretrain_world", ["optimizer.lr=1e-3"]).optimizer.lr == 0.001
    wanted = parse_recipe("data: {kind: world}\noptimizer: {lr: 2E-2, betas: [9e-1, .95]}\nclip: 1e1")
    assert (wanted.optimizer.lr, wanted.optimizer.betas, wanted.clip) == (0.02, (0.9, 0.95), 10.0)


def test_a_folder_does_not_hide_the_recipe_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pretrain_world").mkdir()
    assert read_recipe("pretrain_world").steps == 800
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match="mine is a folder"):
        read_recipe("mine")
    (tmp_path / "pretrain_world").rmdir()
    (tmp_path / "pretrain_world").write_text("{steps: 7, data: {kind: world}}")
    assert read_recipe("pretrain_world").steps == 7


@pytest.mark.parametrize("name", ["model", "tokenizer", "data"])
def test_a_run_does_not_remove_what_it_reads(text, tmp_path, name):
    """It would be gone before the first step, and could not be gone on from."""
    small = Recipe(model=Fresh(**SMALL), tokenizer=Bytes(), data=Text(path=str(text)), **TINY)
    folder = run_recipe(small, "mine", runs=tmp_path).folder
    (folder / "text.txt").write_text(text.read_text())
    (tmp_path / "link").symlink_to(folder / "text.txt")
    reads = {
        "model": {"model": Start(path=str(folder))},
        "tokenizer": {"tokenizer": Published(path=str(folder / "model"))},
        "data": {"data": Text(path=str(tmp_path / "link"))},
    }
    before = sorted(folder.rglob("*"))
    with pytest.raises(
        CheckpointError, match=rf"{name}\.path=.* lies in .*mine, which a run that begins there empties; choose"
    ):
        run_recipe(replace(small, **reads[name]), "mine", runs=tmp_path, force=True)
    assert sorted(folder.rglob("*")) == before


def test_a_run_goes_on_with_its_tokenizer_or_not_at_all(text, tmp_path):
    """Forced on with another, it would keep the old one and say the new."""
    wanted = Recipe(model=Fresh(**SMALL), tokenizer=Bpe(vocab_size=270), data=Text(path=str(text)), **TINY)
    run_recipe(wanted, "mine", runs=tmp_path)
    other = replace(wanted, tokenizer=Bpe(vocab_size=270, pattern="gpt2"))
    with pytest.raises(
        CheckpointError, match=r"the tokenizer was Bpe\(.*'cl100k'.*, is .*'gpt2'.*; the weights of .*step-00000002"
    ):
        run_recipe(other, "mine", runs=tmp_path, resume=True, force=True)
    assert read_recipe(str(tmp_path / "mine" / "recipe.yaml")) == wanted
    run_recipe(replace(wanted, clip=0.5), "mine", runs=tmp_path, resume=True, force=True)


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def refuse(handle, how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", refuse)
    with (
        pytest.raises(CheckpointError, match=r"has no locks \(No locks available\); choose another place with --runs"),
        locked(tmp_path / "mine"),
    ):
        pass


def test_a_published_config_can_be_pasted_into_a_recipe():
    """JSON's 1e-05 is a number to a recipe too, and a text that looks like one stays a text."""
    config = {"rms_norm_eps": 1e-05, "rope_theta": 1e6, "note": "1e5", "std": -2.5e-3, "plain": 0.02, "n": 12}
    for said in (json.dumps(config), "\n" + "\n".join(f"    {key}: {json.dumps(value)}" for key, value in config.items())):
        wanted = parse_recipe("model:\n  kind: config\n  config: " + said + "\ndata: {kind: world}", ["model.std=1e-2"])
        assert (wanted.model.config, wanted.model.std) == (config, 0.01)
        assert parse_recipe(write_recipe(wanted)) == wanted
    assert parse_recipe("data: {kind: text, path: 1e5.txt}").data.path == "1e5.txt"
    assert parse_recipe(write_recipe(Recipe(data=Text(path="1e5")))).data.path == "1e5"
    with pytest.raises(ConfigError, match=r"'steps' is 1000\.0; it must be an int"):
        read_recipe("pretrain_world", ["steps=1e3"])
