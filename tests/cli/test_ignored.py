"""An option that would change nothing is refused, not passed over; so is what a verb could do nothing with."""

import json

import pytest

from chainrule.cli import main

SHIPS = "meta-llama/Llama-3.2-1B"
"""A model whose config ships, and whose weights are not here."""


@pytest.fixture
def files(tmp_path):
    """A text, a file of vectors, a folder of a config alone and a model, by the names that stand for them in the tests."""
    (tmp_path / "text.txt").write_text("Tom has 3 apples.\nAnna has 2 pears.\n" * 20)
    (tmp_path / "vectors.txt").write_text("2 1\na 1\nb 2\n")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.json").write_text("{}")
    return {
        "TEXT": str(tmp_path / "text.txt"),
        "VECTORS": str(tmp_path / "vectors.txt"),
        "CONFIG": str(tmp_path / "config"),
        "MODEL": f"ngram2:{tmp_path / 'text.txt'}",
    }


def run(capsys, *argv):
    code = main([str(word) for word in argv])
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.mark.parametrize(
    ("argv", "because"),
    [
        (("explain", "MODEL", "--value", "0.3"), "--value 0.3 goes with --dtype and no MODEL"),
        (("explain", "--dtype", "bf16", "--device", "cpu"), "--device cpu goes with a MODEL"),
        (("explain", "--dtype", "bf16", "--pickle"), "--pickle goes with a MODEL"),
        (("explain", "MODEL", "--html", "."), "has no name to write under"),
        (("export", "MODEL", "."), "has no name to write under"),
        (("export", "MODEL", "/", "--to", "gguf", "--modelfile", "--force"), "has no name to write under"),
        (("words", "VECTORS", "--segmented"), "--segmented says how to read a text"),
        (("words", "VECTORS", "--save", "."), "has no name to write under"),
        (("words", "VECTORS", "--save", "TEXT"), "exists already; give another name, or --force to replace it"),
        (("explain", "MODEL", "--html", "TEXT"), "exists already; give another name, or --force to replace it"),
        (("explain", "--dtype", "bf16", "--force"), "--force goes with a MODEL"),
        (("explain", SHIPS, "--device", "cpu"), f"--device cpu is about weights, and {SHIPS} has none here; leave it out"),
        (("explain", SHIPS, "--pickle"), f"--pickle is about weights, and {SHIPS} has none here; leave it out"),
        (("explain", "CONFIG", "--device", "cpu"), "--device cpu is about weights"),
        (("explain", "CONFIG", "--pickle"), "--pickle is about weights"),
        (
            ("score", "MODEL", "hi", "--begins", "--end"),
            "--begins judges a text that goes on, --end one that stops; leave one of them out",
        ),
        (("eval", "MODEL", "--text", ""), "the name of the text is empty"),
        (("quickstart", "--text", ""), "the name of the text is empty"),
        (("quickstart", "--text", "TEXT", "--questions", "8"), "--questions 8 is about the world and its chats, but --text"),
        (("quickstart", "--text", "TEXT", "--counted", "100"), "--counted 100 is about the world and its chats"),
        (("quickstart", "--text", "TEXT", "--sft-steps", "3"), "--sft-steps 3 is about the world and its chats"),
        (("eval", "MODEL", "--text", "TEXT", "--documents", "5"), "--documents 5 is about documents of the world"),
        (("eval", "MODEL", "--text", "TEXT", "--seed", "5"), "--seed 5 is about documents of the world"),
        (("eval", "MODEL", "--documents", "-1"), "--documents is -1; it must be 1 or more"),
        (("compare", "MODEL", "MODEL", "--text", "TEXT", "--documents", "5"), "--documents 5 is about"),
        (("compare", "MODEL", "MODEL", "--documents", "1"), "a comparison over 1 documents says nothing; give --documents 2"),
        (("ladder", "MODEL", "--text", "TEXT", "--seed", "5"), "--seed 5 is about"),
        (("ladder", "--orders", "2", "--text", "TEXT", "--documents", "5"), "--documents 5 is about"),
        (("ladder", "--text", "TEXT", "--train-documents", "5"), "--train-documents 5 is about"),
        (("ladder", "--orders", "2", "--text", "TEXT", "--train-documents", "5"), "--train-documents 5 is about"),
        (
            ("ladder", "--orders", "2", "--runs", "elsewhere"),
            "--runs elsewhere is about training models, but --orders asks for n-grams",
        ),
        (("ladder", "MODEL", "--runs", "elsewhere"), "--runs elsewhere is about training models, but MODEL"),
        (("ladder", "TEXT"), "is a text, not a model; to climb the ladder on it: chainrule ladder --text"),
        (("ladder", "--orders", "2", "--device", "cpu"), "--device cpu goes with a MODEL"),
        (("ladder", "--orders", "2", "--dtype", "bf16"), "--dtype bf16 goes with a MODEL"),
    ],
)
def test_what_would_be_passed_over_is_refused(capsys, files, monkeypatch, tmp_path, argv, because):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *(files.get(word, word) for word in argv))
    assert (code, out) == (2, ""), err
    assert because in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("argv", "because"),
    [
        (("score", "nowhere", "@missing.txt"), "missing.txt does not exist"),
        (("score", "nowhere", "hi", "--begins", "--given", "hi"), "--given one that translates; leave one of them out"),
        (("next", "nowhere", "@missing.txt"), "missing.txt does not exist"),
        (("generate", "nowhere", "@missing.txt"), "missing.txt does not exist"),
        (("generate", "nowhere", "hi", "--top-k", "0"), "top_k is 0"),
        (("fill", "nowhere", "@missing.txt"), "missing.txt does not exist"),
        (("fill", "nowhere", "[MASK]", "-k", "0"), "-k is 0; it must be 1 or more\n"),
        (("chat", "nowhere", "hi", "--temperature", "-1"), "temperature is -1"),
        (("eval", "nowhere", "--text", "missing.txt"), "missing.txt does not exist"),
        (("eval", "nowhere", "--text", "missing.jsonl"), "missing.jsonl does not exist"),
    ],
)
def test_texts_and_options_are_refused_before_the_model_is_looked_for(capsys, monkeypatch, tmp_path, argv, because):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(capsys, *argv)
    assert (code, out) == (2, "")
    assert because in err


def test_a_number_of_translations_that_cannot_be_is_refused(capsys, tmp_path):
    from chainrule.hub.fresh import fresh_seq2seq
    from chainrule.hub.save import save
    from chainrule.tokenizers.byte import ByteTokenizer

    model = fresh_seq2seq(
        plan="t5", vocab_size=257, context=64, n_layers=1, d_model=16, n_heads=2, d_ff=16, init="fan_in", seed=0
    )
    folder = save(tmp_path / "translator", model, ByteTokenizer())
    code, _, err = run(capsys, "eval", folder, "--documents", "-1")
    assert code == 2
    assert "--documents is -1; it must be 1 or more" in err
    (tmp_path / "one.jsonl").write_text(json.dumps({"source": "a", "target": "b"}) + "\n")
    code, out, err = run(capsys, "eval", folder, "--text", tmp_path / "one.jsonl", "--json")
    assert code == 0, err  # nothing is held out of what is measured: one pair is enough
    assert json.loads(out)["translations"]["all"]["asked"] == 1


def test_languages_with_one_document_are_compared_together(capsys, files):
    asked = ("compare", files["MODEL"], "ngram1:" + files["TEXT"])
    code, out, err = run(capsys, *asked, "--documents", "5")  # the last one is the first in Chinese
    assert code == 0, err
    assert [line.split(": ")[0] for line in out.splitlines()[1:]] == ["en"]
    assert err == "note: one document in zh is too few to compare on; give more --documents\n"
    code, out, err = run(capsys, *asked, "--documents", "6", "--seed", "2")
    assert (code, len(out.splitlines()), err) == (0, 3, "")
