"""``chainrule chat`` at a terminal and in a pipe: nothing that a person types ends the session but /exit."""

import io

import pytest

from chainrule.cli import main
from chainrule.hub.fresh import fresh
from chainrule.hub.lm import LM
from chainrule.tokenizers.byte import ByteTokenizer
from chainrule.tokenizers.chat import ChatTemplate

TEMPLATE = "{% for m in messages %}{{ m.role[0] + ':' + m.content }}{% endfor %}"


class Terminal(io.StringIO):
    """Lines that a person types."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def chatty(tmp_path) -> str:
    """A model that reads 64 bytes and was taught nothing."""
    model = fresh(vocab_size=257, context=64, n_layers=1, d_model=16, n_heads=2, n_kv_heads=2, d_ff=16, rope_theta=1e4,
                  tied=True, init="normal", seed=0)  # fmt: skip
    tokenizer = ByteTokenizer()
    return str(LM(model, tokenizer, ChatTemplate(TEMPLATE, tokenizer)).save(tmp_path / "chatty"))


def typed(capsys, monkeypatch, model, *lines, kind=Terminal, more=()):
    monkeypatch.setattr("sys.stdin", kind("".join(f"{line}\n" for line in lines)))
    code = main(["chat", model, "--max-tokens", "1", *more])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_a_place_that_cannot_be_saved_to_does_not_end_the_session(capsys, monkeypatch, chatty, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, _, err = typed(
        capsys, monkeypatch, chatty, "hi", "/save .", "/save /", "/save chatty", "/save chatty/config.json/x", "/save kept"
    )
    assert code == 0
    assert err.count("has no name to write under") == 2
    assert err.count("chatty exists already") == 1
    assert err.count("cannot write chatty/config.json/x") == 1
    assert "saved kept" in err
    assert (tmp_path / "kept").read_text().startswith('{"messages": [{"role": "user", "content": "hi"}')


def test_a_conversation_that_grew_too_long_is_told_from_a_question_that_is(capsys, monkeypatch, chatty):
    question = "x" * 40
    code, _, err = typed(capsys, monkeypatch, chatty, question, question, "/undo", question, "/new", question, "y" * 70)
    assert code == 0
    told = [line for line in err.splitlines() if line.startswith("chainrule: ")]
    assert len(told) == 2
    assert "the conversation is " in told[0]
    assert (
        "the model reads 64 with its answer; /undo takes back the last question and its answer, /new forgets them all"
        in told[0]
    )
    assert "shorten it to 63 or fewer" in told[1]


@pytest.mark.parametrize(
    ("lines", "kind", "more", "because"),
    [
        (("hi",), Terminal, ("--json",), "--json prints the answer to one question; give it"),
        ((), io.StringIO, ("--json",), "standard input is empty"),
        ((" ",), io.StringIO, ("-",), "standard input is empty"),
        ((), Terminal, ("",), "QUESTION is empty"),
    ],
)
def test_where_nothing_is_asked_nothing_is_answered(capsys, monkeypatch, lines, kind, more, because):
    code, out, err = typed(capsys, monkeypatch, "nowhere", *lines, kind=kind, more=more)  # known before anything is loaded
    assert (code, out) == (2, "")
    assert because in err
    assert len(err.splitlines()) == 1


def test_an_empty_pipe_is_refused(capsys, monkeypatch, chatty):
    code, out, err = typed(capsys, monkeypatch, chatty, kind=io.StringIO)
    assert (code, out) == (2, "")
    assert "standard input is empty" in err


def test_a_question_by_a_pipe_is_answered(capsys, monkeypatch, chatty):
    code, out, _ = typed(capsys, monkeypatch, chatty, "hi", kind=io.StringIO, more=("--json",))
    assert code == 0
    assert '"content": "hi"' in out
