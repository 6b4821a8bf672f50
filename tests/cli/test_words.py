"""``chainrule words``: vectors learned, saved, looked at and scored from the command line."""

import json
import sys
from pathlib import Path

import pytest

from chainrule.cli import main

LINES = "the cat eats fish\nthe dog eats meat\na king rules men\na queen rules men\n" * 30


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(LINES)
    return path


def run(capsys, *argv):
    code = main(["words", *map(str, argv)])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_vectors_are_learned_saved_and_looked_at(capsys, tmp_path, text):
    saved = tmp_path / "vectors.txt"
    code, out, err = run(
        capsys, f"word2vec:{text}", "d_model=8", "epochs=2", "method=cbow", "--near", "cat", "-k", "3", "--save", saved
    )
    assert code == 0
    assert out.startswith("11 words, 8 numbers each; the first: ")
    assert len(out.splitlines()) == 5
    assert "epoch 2 of 2: loss" in err
    code, again, _ = run(capsys, saved, "--near", "cat", "-k", "3")
    assert code == 0
    assert again == out


def test_places_are_read_one_by_one_where_it_is_asked_for(capsys, text, monkeypatch):
    pytest.importorskip("numba")
    asked = (f"word2vec:{text}", "d_model=8", "epochs=2", "method=cbow", "by=place", "--near", "cat")
    code, out, err = run(capsys, *asked)
    assert code == 0
    assert out.startswith("11 words, 8 numbers each; the first: ")
    assert "epoch 2 of 2: loss" in err
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "chainrule.models.word2vec_compiled")
    code, out, err = run(capsys, *asked)
    assert (code, out) == (2, "")
    assert err == (
        "chainrule: by=place needs the package 'numba'; install it with: pip install numba, "
        "or in chainrule's folder: pip install '.[words]'\n"
    )


def test_vectors_are_scored_for_machines_too(capsys, tmp_path, text):
    pairs, questions = tmp_path / "pairs.txt", tmp_path / "questions.txt"
    pairs.write_text("cat\tdog\t9\ncat\tking\t1\nking\tqueen\t8\ncat\tyak\t3\n")
    questions.write_text(": people\ncat eats king rules\ncat eats king yak\n")
    asked = ("d_model=8", "epochs=2", "--similarity", pairs, "--analogies", questions, "--analogy", "cat", "eats", "king")
    code, out, _ = run(capsys, f"word2vec:{text}", *asked, "--json")
    assert code == 0
    found = json.loads(out)
    assert (found["similarity"]["pairs"], found["similarity"]["unknown"]) == (3, 1)
    assert (found["analogies"]["asked"], found["analogies"]["unknown"]) == (1, 1)
    assert "cat" not in [word for word, _ in found["analogy"]]
    code, out, _ = run(capsys, f"word2vec:{text}", *asked)
    assert code == 0
    assert f"ρ = {found['similarity']['rho']:.4f} over 3 pairs (1 have no vectors)" in out
    assert "cat is to eats as king is to" in out


def test_a_segmented_text_keeps_its_words(capsys, tmp_path):
    path = tmp_path / "zh.txt"
    path.write_text("今天 天气 很好\n" * 20, encoding="utf-8")
    _, out, _ = run(capsys, f"word2vec:{path}", "d_model=2", "epochs=1", "--segmented", "--json", "--near", "今天")
    assert {word for word, _ in json.loads(out)["near"]["今天"]} == {"天气", "很好"}
    _, out, _ = run(capsys, f"word2vec:{path}", "d_model=2", "epochs=1", "--json")
    assert json.loads(out)["words"] == 5


@pytest.mark.parametrize(
    ("argv", "because"),
    [
        (("nowhere.txt",), "does not exist"),
        (("word2vec:nowhere.txt",), "does not exist"),
        (("TEXT",), "say word2vec:"),
        (("word2vec:TEXT", "epoch=2"), "did you mean 'epochs'"),
        (("word2vec:TEXT", "epochs=0"), "'epochs' is 0"),
        (("word2vec:TEXT", "epochs"), "is no override"),
        (("word2vec:TEXT", "min_count=99"), "set min_count lower"),
        (("word2vec:TEXT", "epochs=1", "--near", "caat"), "did you mean 'cat'"),
        (("word2vec:TEXT", "epochs=1", "--near", "cat", "-k", "0"), "k is 0"),
        (("word2vec:TEXT", "epochs=1", "--similarity", "TEXT"), "two words and a number"),
        (("word2vec:TEXT", "epochs=1", "--save", "TEXT/x/y"), "cannot write"),
    ],
)
def test_bad_requests_are_refused_in_one_message(capsys, text, argv, because):
    code, out, err = run(capsys, *(word.replace("TEXT", str(text)) for word in argv))
    assert code == 2
    assert out == ""
    last = err.splitlines()[-1]
    assert last.startswith("chainrule: ")
    assert because in last


def test_how_to_learn_is_refused_where_vectors_are_there_already(capsys, tmp_path):
    (tmp_path / "v.txt").write_text("1 1\na 1\n")
    code, _, err = run(capsys, tmp_path / "v.txt", "epochs=3")
    assert code == 2
    assert "'epochs=3' says how to learn" in err


def test_what_was_learned_is_saved_whatever_is_asked_of_it(capsys, tmp_path, text):
    saved = tmp_path / "vectors.txt"
    code, _, err = run(capsys, f"word2vec:{text}", "d_model=8", "epochs=1", "--near", "caat", "--save", saved)
    assert code == 2
    assert "did you mean 'cat'" in err
    assert run(capsys, saved, "--near", "cat")[0] == 0


@pytest.mark.parametrize(
    "wrong", [("--similarity", "TEXT"), ("--analogies", "nowhere.txt"), ("-k", "0"), ("--save", "TEXT/x/y"), ("--save", ".")]
)
def test_what_is_known_to_fail_is_refused_before_anything_is_learned(capsys, text, wrong):
    code, _, err = run(
        capsys, f"word2vec:{text}", "d_model=8", "epochs=1", *(word.replace("TEXT", str(text)) for word in wrong)
    )
    assert code == 2
    assert len(err.splitlines()) == 1  # no word of an epoch
