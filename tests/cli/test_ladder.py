"""``chainrule ladder`` as people meet it: the history in a run's folder, n-grams beside a model, and what cannot be asked."""

import json
import math
from itertools import islice

import pytest

from chainrule import world
from chainrule.cli import main
from chainrule.eval.bpb import measure
from chainrule.hub.fresh import fresh
from chainrule.hub.load import load
from chainrule.hub.save import save
from chainrule.models.ngram import NGram
from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.byte import ByteTokenizer

WINDOWS = "documents longer than 64 tokens were read in windows that overlap by half"
TEXT = "Tom has 3 apples. 今天的天气很好。\n" * 60


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def run(capsys, *argv):
    code = main([str(word) for word in argv])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_the_history_of_a_text_stands_in_a_run(capsys, text, tmp_path):
    asked = ("ladder", "--text", text, "--rungs", "neural-ngram,unigram", "--steps", "1", "--runs", tmp_path / "runs")
    code, out, err = run(capsys, *asked)
    assert code == 0, err
    rows = out.splitlines()
    assert rows[0].split()[:3] == ["model", "year", "parameters"]
    assert [row.split()[0] for row in rows[2:4]] == ["unigram", "neural"]
    assert (tmp_path / "runs" / "ladder" / "report.html").exists()
    code, _, err = run(capsys, *asked)
    assert code == 2
    assert "exists already" in err
    code, out, _ = run(capsys, *asked, "--resume", "--json")
    assert code == 0
    found = json.loads(out)
    assert [one["key"] for one in found["milestones"]] == ["unigram", "neural-ngram"]
    assert "nobody knows" not in out


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The folder of a tiny decoder with a tokenizer of its own: 20 merges, of Chinese and English."""
    tokenizer = BPE.train([TEXT], 277, pattern="cl100k")
    shape = {"context": 64, "n_layers": 1, "d_model": 16, "n_heads": 2, "n_kv_heads": 2, "d_ff": 16}
    drawn = fresh(vocab_size=277, **shape, rope_theta=1e4, tied=True, init="normal", seed=0)
    return save(tmp_path_factory.mktemp("models") / "tiny", drawn, tokenizer)


def test_ngrams_a_model_and_the_truth_stand_on_one_ladder(capsys, model):
    code, out, err = run(
        capsys, "ladder", model, "--orders", 2, "--train-documents", 5, "--documents", 4, "--seed", 2, "--json"
    )
    assert code == 0, err
    rungs = json.loads(out)
    names = ["uniform", "bytes 1-gram", "bytes 2-gram", "tokens 1-gram", "tokens 2-gram", "tiny", "truth"]
    assert [rung["name"] for rung in rungs] == names
    assert [rung["family"] for rung in rungs] == ["uniform", "bytes", "bytes", "tokens", "tokens", "model", "truth"]
    assert [rung["order"] for rung in rungs] == [None, 1, 2, 1, 2, None, None]
    assert [line for line in err.splitlines() if line.startswith("measured ")] == [f"measured {name}" for name in names]

    notes = {rung["name"]: rung["notes"] for rung in rungs}
    assert notes == {name: [] for name in names} | {"tiny": [WINDOWS]}
    assert f"note: tiny: {WINDOWS}\n" in err

    train = [one.text for one in islice(world.documents(2), 5)]
    held = list(islice(world.documents(2, split="heldout"), 4))
    texts, languages = [one.text for one in held], [one.language for one in held]
    assert set(languages) == set(world.LANGUAGES)
    lm = load(model)
    contenders = {"tiny": (lm.model, lm.tokenizer)}
    for family, tokenizer in (("bytes", ByteTokenizer()), ("tokens", lm.tokenizer)):
        documents = [tokenizer.framed(tokenizer.encode(text)) for text in train]
        for order in (1, 2):
            ngram = NGram.fit(documents, order=order, vocab_size=tokenizer.vocab_size)
            contenders[f"{family} {order}-gram"] = ngram, tokenizer
    found = {rung["name"]: rung["bits_per_byte"] for rung in rungs}
    for name, contender in contenders.items():
        assert found[name] == pytest.approx(measure(*contender, texts, languages).by_language, rel=1e-6)
    for language in world.LANGUAGES:
        spoken = [text for text, one in zip(texts, languages, strict=True) if one == language]
        size_bytes = sum(len(text.encode()) for text in spoken)
        bits = -sum(world.logp(text) for text in spoken) / math.log(2)
        assert found["truth"][language] == pytest.approx(bits / size_bytes)
        assert found["uniform"][language] == pytest.approx(math.log2(257) * (size_bytes + len(spoken)) / size_bytes)


def test_two_models_are_compared_with_all_that_must_be_known(capsys, model, tmp_path):
    plain = BPE.train([TEXT], 277, pattern="cl100k", specials=())
    shape = {"context": 64, "n_layers": 1, "d_model": 16, "n_heads": 2, "n_kv_heads": 2, "d_ff": 16}
    drawn = fresh(vocab_size=277, **shape, rope_theta=1e4, tied=True, init="normal", seed=0)
    other = save(tmp_path / "other", drawn, plain)
    code, out, err = run(capsys, "compare", model, other, "--documents", 4)
    assert (code, out) == (2, "")
    assert f"the tokenizer of {other} has no token to begin a document with" in err
    code, out, err = run(capsys, "compare", other, other, "--documents", 4, "--json")
    assert code == 0, err
    first, end, windows = json.loads(out)[0]["notes"][str(other)]
    assert "the first token of every document is not judged" in first
    assert "the end of a document is not judged" in end
    assert windows == WINDOWS
    assert [line for line in err.splitlines() if line.startswith("note: ")] == [
        f"note: {other}: {note}" for note in (first, end, windows)
    ]


def test_of_a_text_the_last_part_is_measured_and_nobody_knows_the_truth(capsys, model, tmp_path):
    rows = [f"Tom has {n} apples. 今天的天气很好。" for n in range(10, 30)]  # the last of twenty is what a run holds out
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    code, out, err = run(capsys, "ladder", model, "--text", path, "--orders", 1)
    assert code == 0, err
    head, _, *lines = out.splitlines()
    assert "above truth" not in head
    cells = [[cell for cell in line.split("  ") if cell.strip()] for line in lines]
    assert [row[0].strip() for row in cells] == ["uniform", "bytes 1-gram", "tokens 1-gram", "tiny"]
    lm = load(model)
    bits = [math.log2(257) * (len(rows[-1].encode()) + 1) / len(rows[-1].encode())]
    for tokenizer in (ByteTokenizer(), lm.tokenizer):
        documents = [tokenizer.framed(tokenizer.encode(row)) for row in rows[:-1]]
        ngram = NGram.fit(documents, order=1, vocab_size=tokenizer.vocab_size)
        bits.append(measure(ngram, tokenizer, rows[-1:]).bits_per_byte)
    bits.append(measure(lm.model, lm.tokenizer, rows[-1:]).bits_per_byte)
    assert [row[-2].strip() for row in cells] == [f"{one:.3f}" for one in bits]


def test_the_truth_as_a_model_is_the_truth_and_its_tokens_are_bytes(capsys):
    code, out, err = run(capsys, "ladder", "world", "--orders", 2, "--train-documents", 3, "--documents", 5, "--json")
    assert code == 0, err
    found = {rung["name"]: rung["bits_per_byte"] for rung in json.loads(out)}
    assert list(found)[-2:] == ["world", "truth"]
    assert found["world"] == pytest.approx(found["truth"], rel=1e-5)
    assert [found["tokens 1-gram"], found["tokens 2-gram"]] == [found["bytes 1-gram"], found["bytes 2-gram"]]


@pytest.mark.parametrize(
    ("argv", "because"),
    [
        (("--rungs", "lstn"), "did you mean 'lstm'"),
        (("--rungs", ","), "names none"),
        (("--rungs", "truth", "--text", "TEXT"), "nobody knows the truth"),
        (("--text", "nowhere.txt"), "does not exist"),
        (("--minutes", "0"), "--minutes is 0"),
        (("--minutes", "nan"), "--minutes is nan"),
        (("--minutes", "inf"), "--minutes is inf"),
        (("--steps", "0"), "--steps is 0"),
        (("--seed", "-1"), "the seed is -1; it must be 0 or more"),
        (("--ablate", "norm", "--seed", str(2**63)), "the seed is 9223372036854775808; it must be 0 or more"),
        (("--documents", "0"), "--documents is 0"),
        (("--train-documents", "0"), "--train-documents is 0"),
        (("--name", "a/b"), "without slashes"),
        (("--dtype", "fp7"), "unknown number format"),
        (("--device", "tpu"), "unknown device"),
        (("--layers", "4"), "goes with --ablate"),
        (("--adapter", "x"), "--adapter x goes with a MODEL"),
        (("--orders", "2", "--pickle"), "--pickle goes with a MODEL"),
        (("--orders", "3", "--rungs", "lstm"), "--orders asks for n-grams"),
        (("world", "--steps", "3"), "MODEL (world) asks for n-grams"),
        (("--ablate", "attention"), "residual, norm, position"),
        (("--ablate", "nrom"), "did you mean 'norm'"),
        (("--ablate", ""), "names no part"),
        (("--ablate", "norm", "--layers", "1"), "--layers is 1"),
        (("--ablate", "norm", "--rungs", "lstm"), "leave one of them out"),
        (("--ablate", "norm", "--branches"), "--branches chooses of the history"),
        (("--ablate", "norm", "--text", "nowhere.txt"), "does not exist"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(capsys, text, tmp_path, argv, because):
    words = [str(text) if word == "TEXT" else word for word in argv]
    code, out, err = run(capsys, "ladder", *words, "--runs", tmp_path / "runs")
    assert code == 2, err
    assert out == ""
    assert err.startswith("chainrule: ")
    assert len(err.splitlines()) == 1
    assert because in err
    assert not (tmp_path / "runs").exists()
