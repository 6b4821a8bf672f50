"""``chainrule ladder`` as people meet it: the history in a run's folder, the ablations, and what cannot be asked."""

import json

import pytest

from chainrule.cli import main

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
        (("--documents", "0"), "--documents is 0"),
        (("--train-documents", "0"), "--train-documents is 0"),
        (("--name", "a/b"), "without slashes"),
        (("--dtype", "fp7"), "unknown number format"),
        (("--device", "tpu"), "unknown device"),
        (("--layers", "4"), "goes with --ablate"),
        (("--adapter", "x"), "--adapter goes with a MODEL"),
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
