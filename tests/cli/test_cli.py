"""The command line as people meet it: help without torch, results on stdout, and bad input in one clear message."""

import io
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from chainrule.cli import VERBS, main

TEXT = "Tom has 3 apples. 今天的天气很好。\n" * 40


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """A tiny LLaMA folder with a byte tokenizer."""
    from chainrule.hub.fresh import fresh
    from chainrule.hub.save import save
    from chainrule.tokenizers.byte import ByteTokenizer

    model = fresh(
        vocab_size=257, context=32, n_layers=2, d_model=16, n_heads=2, n_kv_heads=2, d_ff=32, rope_theta=1e4, tied=True,
        init="normal", seed=0,
    )  # fmt: skip
    return save(tmp_path / "tiny", model, ByteTokenizer())


@pytest.fixture
def trained(capsys, text, tmp_path) -> Path:
    """A run folder, two steps old."""
    assert run(capsys, *training(text, tmp_path / "trained-runs"))[0] == 0
    return tmp_path / "trained-runs" / "a"


def training(text, runs, *more) -> tuple:
    """The smallest training, into the run 'a'."""
    return ("train", "pretrain_text", f"data.path={text}", "tokenizer={kind: bytes}", "steps=2", "model.n_layers=2", "model.d_model=16",
            "model.n_heads=2", "model.d_ff=16", "context=16", *more, "--runs", runs, "--name", "a")  # fmt: skip


def run(capsys, *argv):
    code = main([str(word) for word in argv])
    out = capsys.readouterr()
    return code, out.out, out.err


def refused(capsys, *argv, because):
    code, out, err = run(capsys, *argv)
    assert code == 2, err
    assert out == ""
    assert err.startswith("chainrule: ")
    assert len(err.splitlines()) == 1
    assert because in err
    return err


def test_the_help_of_every_verb_comes_without_heavy_packages():
    code = (
        "import sys, contextlib, io\nfrom chainrule.cli import VERBS, main\n"
        "for verb in VERBS:\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "        assert main([verb, '--help']) == 0\n"
        "    assert verb in out.getvalue()\n"
        "assert main([]) == 0\n"
        "heavy = {'torch', 'numpy', 'tokenizers', 'transformers', 'jinja2', 'huggingface_hub'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stderr == "[]\n"


def test_the_overview_names_every_verb(capsys):
    code, out, _ = run(capsys)
    assert code == 0
    assert all(verb in out for verb in VERBS)


def test_a_help_keeps_the_capitals_of_its_words(capsys):
    for verb, what in VERBS.items():
        _, out, _ = run(capsys, verb, "--help")
        assert f"\n\n{what[0].upper()}{what[1:]}.\n" in out
    assert "[MASK]" in run(capsys, "fill", "--help")[1]
    assert "FLOPs" in run(capsys, "plan", "--help")[1]


def test_a_help_offers_what_the_verb_takes(capsys):
    for verb in ("score", "chat", "compare", "export", "explain"):
        assert "modelscope:org/name" in run(capsys, verb, "--help")[1]
    fill = run(capsys, "fill", "--help")[1]
    assert "an encoder: runs/NAME" in fill
    assert "ngram" not in fill
    ladder = run(capsys, "ladder", "--help")[1]
    assert "pure_bf16" in ladder
    assert "int4" not in ladder
    assert "of the weights where models are trained" in ladder
    assert "held out" in ladder
    assert "pairs" in run(capsys, "eval", "--help")[1]


@pytest.fixture(params=["ngram", "checkpoint", "run", "llama2.c"])
def anything(request) -> str:
    """What a model may be: counts of a text, a folder of weights, a run, a file of llama2.c."""
    if request.param == "ngram":
        return f"ngram3:{request.getfixturevalue('text')}"
    if request.param == "llama2.c":
        return str(request.getfixturevalue("material") / "stories260K" / "stories260K.bin")
    return str(request.getfixturevalue("checkpoint" if request.param == "checkpoint" else "trained"))


def test_score_next_and_generate_say_what_the_model_says_step_by_step(capsys, anything):
    import torch

    from chainrule.hub.load import load

    lm = load(anything)
    bos, encode, decode, bytes_of = lm.tokenizer.bos, lm.tokenizer.encode, lm.tokenizer.decode, lm.tokenizer.token_bytes
    prompt = [*([] if bos is None else [bos]), *encode("Tom has")]

    @torch.no_grad()
    def after(ids):
        return lm.model(torch.tensor([ids]))[0].double().log_softmax(-1)

    def spelt(ids, data):
        """The probability that ids go on with these bytes, in whatever tokens, or with a sign that ends the word behind them."""
        logp = after(ids)[-1]
        p = 0.0
        for id, said in enumerate(map(bytes_of, range(lm.tokenizer.vocab_size))):
            if said == data or (said[:-1] == data and said[-1:] in (b".", b",", b"!", b"?")):
                p += math.exp(logp[id])
            elif said and data.startswith(said):
                p += math.exp(logp[id]) * spelt([*ids, id], data[len(said) :])
        return p

    _, out, _ = run(capsys, "score", anything, "Tom has", "--json")
    scored, ids = json.loads(out), [lm.tokenizer.begin, *encode("Tom has")]
    expected = after(ids[:-1]).gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
    assert scored["logp"] == pytest.approx(expected, abs=1e-4)
    assert scored["total"] == pytest.approx(sum(expected), abs=1e-3)

    _, out, _ = run(capsys, "next", anything, "Tom has", "-k", "4", "--json")
    found = json.loads(out)
    assert [one["probability"] for one in found] == sorted((one["probability"] for one in found), reverse=True)
    assert len(found) == 4
    odd = ("\N{REPLACEMENT CHARACTER}", *lm.tokenizer.specials)  # what no bytes spell: an untrained model says any
    plain = next(one for one in found if not any(sign in one["text"] for sign in odd))
    assert plain["probability"] == pytest.approx(spelt(prompt, plain["text"].encode()), rel=0.02)

    _, out, _ = run(capsys, "generate", anything, "Tom has", "--max-tokens", "8", "--temperature", "0", "--json")
    ids = list(prompt)
    for _ in range(8):
        ids.append(int(after(ids)[-1].argmax()))
        if ids[-1] in lm.tokenizer.eos:
            break
    assert json.loads(out)["text"] == decode(ids)[len(decode(prompt)) :]

    first, again = (run(capsys, "generate", anything, "Tom", "--max-tokens", "8", "--seed", "1")[1] for _ in range(2))
    assert first == again


def test_a_text_may_be_judged_as_a_beginning(capsys, text):
    _, out, _ = run(capsys, "score", f"ngram3:{text}", "Tom has", "--begins", "--json")
    scored = json.loads(out)
    assert scored["begins"] == pytest.approx(scored["total"])  # every byte is a token: no other says the last one
    assert "it begins so" in run(capsys, "score", f"ngram3:{text}", "Tom has", "--begins")[1]


def test_the_package_runs_as_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "chainrule", "tokenize", "bytes", "hi"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("h|i")


def test_eval_compare_and_ladder_on_a_text(capsys, text):
    code, out, _ = run(capsys, "eval", f"ngram3:{text}", "--text", text, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["bits_per_byte"]["all"] < 1
    assert found["judged_tokens"] == found["bytes"] + found["documents"]  # bytes, and an end for each document
    nats = found["bits_per_byte"]["all"] * math.log(2) * found["bytes"]
    assert found["perplexity"] == pytest.approx(math.exp(nats / found["judged_tokens"]))
    _, out, _ = run(capsys, "eval", f"ngram3:{text}", "--text", text)
    assert f"perplexity {found['perplexity']:.4g} per token, over {found['judged_tokens']:,} judged tokens\n" in out
    code, out, _ = run(capsys, "compare", f"ngram1:{text}", f"ngram3:{text}", "--text", text)
    assert code == 0
    assert "is better than" in out
    code, out, _ = run(capsys, "ladder", "--text", text, "--orders", "2", "--json")
    assert code == 0
    assert [rung["name"] for rung in json.loads(out)] == ["uniform", "bytes 1-gram", "bytes 2-gram"]


def test_the_ladder_of_the_world_ends_at_the_truth(capsys):
    code, out, _ = run(capsys, "ladder", "--documents", "6", "--train-documents", "40", "--orders", "2", "--json")
    assert code == 0
    rungs = json.loads(out)
    assert rungs[-1]["name"] == "truth"
    assert rungs[-1]["bits_per_byte"]["en"] < rungs[1]["bits_per_byte"]["en"] < rungs[0]["bits_per_byte"]["en"]


def test_tokenize_shows_the_pieces(capsys):
    code, out, _ = run(capsys, "tokenize", "bytes", "hi", "--color", "never")
    assert code == 0
    assert out.splitlines()[:2] == ["h|i", "104 105"]
    _, out, _ = run(capsys, "tokenize", "bytes", "hi", "--color", "always")
    assert out.splitlines()[:2] == ["\x1b[30;44mh\x1b[0m\x1b[30;42mi\x1b[0m", "104 105"]
    assert out.splitlines()[2] == "2 tokens, 2 characters, 2 bytes, 1.00 bytes per token"


def test_a_misspelt_verb_names_the_nearest(capsys):
    refused(capsys, "scroe", "x", because="did you mean 'score'")


@pytest.mark.parametrize(
    ("argv", "because"),
    [
        (("generate", "MODEL", "Tom", "--temperature", "-1"), "temperature is -1.0"),
        (("generate", "MODEL", "Tom", "--temperature", "nan"), "temperature is nan"),
        (("generate", "MODEL", "Tom", "--temperature", "inf"), "temperature is inf"),
        (("generate", "MODEL", "Tom", "--seed", "99999999999999999999"), "a number of 64 bits"),
        (("score", "MODEL", "\udcff"), "no text in utf-8"),
        (("quickstart", "--minutes", "nan"), "--minutes is nan"),
        (("generate", "MODEL", "Tom", "--top-p", "1.5"), "1.5"),
        (("generate", "MODEL", "Tom", "--max-tokens", "0"), "max_tokens is 0"),
        (("generate", "MODEL", "Tom", "--top-k", "0"), "0"),
        (("generate", "MODEL", "x" * 40), "41 tokens long"),
        (("score", "MODEL", "x" * 40), "41"),
        (("next", "MODEL", "Tom", "-k", "0"), "-k is 0"),
        (("chat", "MODEL", "hello"), "no chat template"),
        (("score", "nowhere", "Tom"), "does not exist"),
        (("eval", "MODEL", "--text", "nowhere.txt"), "does not exist"),
        (("score", "ngram9:x", "Tom"), "orders 1 to 8"),
        (("generate", "MODEL", "Tom", "--device", "tpu"), "unknown device"),
        (("generate", "MODEL", "Tom", "--dtype", "fp7"), "unknown number format"),
        (("ladder", "--orders", "0"), "orders 1 to 8"),
        (("quickstart", "--minutes", "0"), "--minutes is 0"),
        (("quickstart", "--minutes", "3.9"), "--minutes is 3.9; n-grams, questions and the report take more than two of them"),
        (("quickstart", "--minutes", "0.4", "--steps", "50"), "--minutes is 0.4; it must be 0.5 or more"),
        (("quickstart", "--text", "nowhere.txt"), "does not exist"),
        (("train", "nothing"), "there is no recipe"),
    ],
)
def test_bad_requests_are_refused(capsys, checkpoint, argv, because):
    refused(capsys, *(str(checkpoint) if word == "MODEL" else word for word in argv), because=because)


def test_a_device_that_is_not_here_is_refused_with_what_is_missing(capsys):
    import torch

    name, missing = ("cuda", "CUDA") if torch.backends.mps.is_available() else ("mps", "MPS needs a Mac")
    refused(capsys, "next", "world", "a", "--device", name, because=f"device '{name}' is not here: ")
    refused(capsys, "next", "world", "a", "--device", name, because=missing)


@pytest.mark.parametrize(
    ("content", "because"),
    [(b"", "is empty"), (b"a\x00b" * 9, "binary"), (b"\xff\xfe\xfa" * 9, "not UTF-8"), (b"short", "less than one context")],
)
def test_bad_texts_are_refused(capsys, tmp_path, content, because):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    refused(
        capsys, "train", "pretrain_text", f"data.path={path}", "tokenizer={kind: bytes}", "--runs", tmp_path / "runs",
        "--name", "bad", because=because,
    )  # fmt: skip
    if because != "less than one context":
        refused(capsys, "eval", f"ngram2:{path}", "--text", path, because=because)
    assert not list((tmp_path / "runs").rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("override", "because"),
    [
        ("stpes=3", "did you mean 'steps'"),
        ("optimizer.learning=3", "optimizer.learning"),
        ("model.n_layer=3", "did you mean 'n_layers'"),
        ("steps=0", "must be 1 or more"),
        ("steps=many", "steps"),
        ("schedule.decay=7", "decay=7"),
        ("nonsense", "is no override"),
        ("model.n_heads=5", "not a multiple"),
        ("device=tpu", "unknown device"),
        ("version=9", "version 9"),
        ("model.init=magic", "magic"),
    ],
)
def test_bad_recipes_are_refused(capsys, tmp_path, text, override, because):
    refused(
        capsys, "train", "pretrain_text", f"data.path={text}", "tokenizer={kind: bytes}", override, "--runs",
        tmp_path / "runs", because=because,
    )  # fmt: skip


def damaged(folder: Path, how: str) -> None:
    from safetensors.torch import load_file, save_file

    weights = folder / "model.safetensors"
    if how == "no weights":
        weights.unlink()
    elif how == "cut off":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "corrupt":
        weights.write_bytes(b"\xff" * 64 + weights.read_bytes()[64:])
    elif how in ("missing", "extra", "misshapen"):
        tensors = load_file(weights)
        if how == "missing":
            del tensors["model.norm.weight"]
        elif how == "extra":
            tensors["model.layers.9.mlp.up_proj.weight"] = tensors["model.norm.weight"].clone()
        else:
            tensors["model.norm.weight"] = tensors["model.norm.weight"][:-1].clone()
        save_file(tensors, weights)
    else:
        config = json.loads((folder / "config.json").read_text())
        config |= {
            "unknown family": {"model_type": "mamba"},
            "unknown key": {"sliding_window": 5},
            "small vocabulary": {"vocab_size": 100},
        }[how]
        (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("how", "because"),
    [
        ("no weights", "holds no weights"),
        ("cut off", "damaged or cut off"),
        ("corrupt", "damaged or cut off"),
        ("missing", "lacks"),
        ("extra", "which the model does not"),
        ("misshapen", "the config asks for"),
        ("unknown family", "'mamba' is not supported"),
        ("unknown key", "sliding_window"),
        ("small vocabulary", "(257, 16), but the config asks for (100, 16)"),
    ],
)
def test_bad_checkpoints_are_refused(capsys, checkpoint, how, because):
    damaged(checkpoint, how)
    refused(capsys, "score", checkpoint, "Tom", because=because)


def test_a_vocabulary_that_does_not_fit_the_model_is_refused(capsys, checkpoint, tmp_path):
    from chainrule.tokenizers.bpe import BPE

    BPE.train([TEXT], 280, pattern="gpt2", specials=("<|endoftext|>",)).save(checkpoint)
    refused(capsys, "score", checkpoint, "Tom", because="do not belong together")


def test_an_existing_run_is_not_overwritten(capsys, tmp_path, text):
    argv = training(text, tmp_path / "runs", "steps=1")
    assert run(capsys, *argv)[0] == 0
    before = (tmp_path / "runs" / "a" / "model" / "model.safetensors").read_bytes()
    refused(capsys, *argv, because="exists already")
    assert (tmp_path / "runs" / "a" / "model" / "model.safetensors").read_bytes() == before
    refused(capsys, *argv, "steps=2", "--resume", because="the recipe")
    from chainrule.train.run import locked

    with locked(tmp_path / "runs" / "a"):
        refused(capsys, *argv, "--force", because="in use")


def test_an_unwritable_folder_is_refused(capsys, tmp_path, text):
    (tmp_path / "file").write_text("not a folder")
    refused(capsys, "train", "pretrain_text", f"data.path={text}", "--runs", tmp_path / "file", because="cannot write")


def test_training_shows_loss_speed_and_time_left(capsys, text, tmp_path):
    code, out, err = run(capsys, *training(text, tmp_path / "runs"))
    assert code == 0
    assert out == ""
    assert re.search(r"^train █{24} 2/2  loss \d\.\d{3}  [\d,]+ tok/s  0:00 left$", err, re.MULTILINE)


LONG = "a" * 300


@pytest.mark.parametrize(
    "argv",
    [
        ("eval", "MODEL", "--text", "a sentence in place of a file, " * 20),
        ("ladder", "--text", LONG),
        ("quickstart", "--text", LONG),
        ("quickstart", "--name", LONG),
        ("train", LONG),
        ("train", "pretrain_text", f"data.path={LONG}"),
        ("train", "pretrain_world", "--name", LONG),
        ("tokenize", LONG, "hi"),
        ("tokenize", "bytes", f"@{LONG}"),
        ("score", "MODEL", f"@{LONG}"),
        ("score", f"ngram:{LONG}", "hi"),
        ("words", LONG),
        ("words", f"word2vec:{LONG}"),
        ("export", "MODEL", LONG),
    ],
)
def test_what_is_too_long_for_a_name_is_refused(capsys, checkpoint, monkeypatch, tmp_path, argv):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()  # where it is not, nothing in it is looked for
    refused(capsys, *(str(checkpoint) if word == "MODEL" else word for word in argv), because="File name too long")


@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])  # as in en_US.UTF-8, as in C.UTF-8
@pytest.mark.parametrize("argv", [("tokenize", "bytes", "-"), ("score", "MODEL", "-"), ("generate", "MODEL", "-")])
def test_standard_input_that_is_no_text_is_refused(capsys, checkpoint, monkeypatch, argv, errors):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("你好".encode("gbk")), encoding="utf-8", errors=errors))
    because = ") is no text in utf-8; convert it first, as iconv -f GBK -t UTF-8 does"
    refused(capsys, *(str(checkpoint) if word == "MODEL" else word for word in argv), because=because)


def test_a_chat_template_in_another_encoding_is_refused(capsys, checkpoint):
    (checkpoint / "chat_template.jinja").write_bytes("{{ '你好' }}".encode("gbk"))
    refused(capsys, "score", checkpoint, "hi", because="chat_template.jinja is not UTF-8 (byte 4 is 0xc4); convert it first")


def test_a_fault_of_our_own_is_not_told_as_the_users(monkeypatch):
    from chainrule.hub import tokenizer

    for fault in (OSError(5, "Input/output error"), ZeroDivisionError()):

        def find(name, fault=fault, **settings):
            raise fault

        monkeypatch.setattr(tokenizer, "find_tokenizer", find)
        with pytest.raises(type(fault)):
            main(["tokenize", "bytes", "hi"])


@pytest.mark.parametrize(("stop", "told"), [(KeyboardInterrupt(), "interrupted"), (KeyboardInterrupt("go on"), "go on")])
def test_an_interruption_is_told(capsys, monkeypatch, stop, told):
    from chainrule.hub import tokenizer

    def find(name, **settings):
        raise stop

    monkeypatch.setattr(tokenizer, "find_tokenizer", find)
    assert run(capsys, "tokenize", "bytes", "hi") == (130, "", f"\nchainrule: {told}\n")


@pytest.fixture
def shut(capsys):
    """A folder of texts with another in it that this process may not enter; root, who may enter all, steps down for the test."""
    import chainrule.train.run  # noqa: F401 (what is imported late is imported before root steps down)

    for known in (["train", "pretrain_world", "--show"], ["tokenize", "bytes", "hi"]):
        assert run(capsys, *known)[0] == 0
    with tempfile.TemporaryDirectory() as name:
        folder, inner = Path(name), Path(name) / "shut"
        inner.mkdir()
        for path in (folder / "a.txt", inner / "b.txt"):
            path.write_text(TEXT, encoding="utf-8")
        inner.chmod(0)
        folder.chmod(0o777)
        root = os.geteuid() == 0
        if root:
            os.seteuid(65534)
        yield inner
        os.seteuid(0 if root else os.geteuid())
        inner.chmod(0o700)


@pytest.mark.parametrize(
    "argv",
    [
        ("train", "pretrain_text", "data.path=SHUT/b.txt", "steps=1", "--runs", "BESIDE/runs"),
        ("train", "pretrain_text", "data.path=BESIDE", "steps=1", "--runs", "BESIDE/runs"),
        ("train", "SHUT/recipe.yaml"), ("train", "pretrain_world", "--runs", "SHUT"), ("tokenize", "SHUT/model", "hi"),
        ("tokenize", "bytes", "@SHUT/b.txt"),
    ],
)  # fmt: skip
def test_a_folder_that_may_not_be_entered_is_refused(capsys, shut, argv):
    places = (word.replace("BESIDE", str(shut.parent)).replace("SHUT", str(shut)) for word in argv)
    assert str(shut) in refused(capsys, *places, because="Permission denied")
