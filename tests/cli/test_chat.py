"""A conversation in the terminal: it streams, it remembers, it takes back, and a bad question does not end it."""

import io
import json
import sys
from pathlib import Path

import pytest

import chainrule as cr
from chainrule.cli import main
from chainrule.cli.chat import command
from chainrule.hub.fresh import fresh
from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.chat import CHATML, IM_END, IM_START, ChatTemplate
from chainrule.train.recipe import Chats, Recipe, Start
from chainrule.train.run import run_recipe

SAID = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "yes and"},
    {"role": "user", "content": "hi"},
    {"role": "assistant", "content": "no more"},
]
"""The same question twice: only who remembers the first answer knows the second."""


@pytest.fixture(scope="module")
def chatty(tmp_path_factory) -> Path:
    """A run of SFT whose model has learned the conversation by heart, turn by turn."""
    folder = tmp_path_factory.mktemp("runs")
    tokenizer = BPE.train(["hi yes and no more"], 259, pattern="gpt2", specials=("<|endoftext|>", IM_START, IM_END))
    model = fresh(
        vocab_size=tokenizer.vocab_size, context=128, n_layers=2, d_model=32, n_heads=2, n_kv_heads=2, d_ff=64, rope_theta=1e4,
        tied=True, init="normal", seed=0,
    )  # fmt: skip
    start = cr.LM(model, tokenizer, ChatTemplate(CHATML, tokenizer)).save(folder / "untaught")
    (folder / "chats.jsonl").write_text(f"{json.dumps({'messages': SAID})}\n" * 4)
    taught = Recipe(
        model=Start(path=str(start)), data=Chats(path=str(folder / "chats.jsonl"), held_out=0.25), context=128, batch_rows=1,
        steps=60, eval_every=60, save_every=60, threads=1, precision="fp32", device="cpu",
    )  # fmt: skip
    return run_recipe(taught, "chatty", runs=folder).folder


class Keyboard(io.StringIO):
    """What a person types."""

    def isatty(self) -> bool:
        return True


class Screen(io.StringIO):
    """What a person sees, and in which pieces it came."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[str] = []

    def write(self, piece: str) -> int:
        self.pieces.append(piece)
        return super().write(piece)


def session(monkeypatch, chatty, *lines) -> tuple[str, Screen]:
    """All that stands on the screen after these lines, and what was never read."""
    monkeypatch.setattr(sys, "stdin", keyboard := Keyboard("".join(f"{line}\n" for line in lines)))
    monkeypatch.setattr(sys, "stdout", screen := Screen())
    assert main(["chat", str(chatty), "--max-tokens", "12", "--device", "cpu"]) == 0
    return keyboard.read(), screen


def test_a_conversation_streams_and_remembers(monkeypatch, chatty, tmp_path):
    left, screen = session(monkeypatch, chatty, "hi", "hi", f"/save {tmp_path / 'said.jsonl'}", "/exit", "never read")
    assert screen.getvalue() == "> yes and\n> no more\n> > "
    assert left == "never read\n"
    assert len([piece for piece in screen.pieces if piece.strip() and piece in "yes and"]) > 1
    assert json.loads((tmp_path / "said.jsonl").read_text()) == {"messages": SAID}


def test_what_was_said_can_be_taken_back_or_forgotten(monkeypatch, chatty):
    _, screen = session(monkeypatch, chatty, "hi", "hi", "/undo", "hi", "/new", "hi", "/history", "/undo", "/undo", "/history")
    assert screen.getvalue() == ("> yes and\n> no more\n> > no more\n> > yes and\n> user: hi\nassistant: yes and\n> > > > \n")


def test_the_commands_are_told(monkeypatch, chatty):
    _, screen = session(monkeypatch, chatty, "/help")
    assert all(command in screen.getvalue() for command in ("/help", "/new", "/history", "/undo", "/save FILE", "/exit"))


BAD_COMMANDS = [
    ("/histroy", "there is no command /histroy (did you mean '/history'?); /help lists them"),
    ("/what now", "there is no command /what; /help lists them"),
    ("/save", "/save needs the name of a file; type for example: /save chat.jsonl"),
]


@pytest.mark.parametrize(("line", "because"), BAD_COMMANDS)
def test_a_command_that_there_is_not_is_refused_and_the_chat_goes_on(monkeypatch, chatty, capsys, line, because):
    _, screen = session(monkeypatch, chatty, line, "hi")
    assert screen.getvalue() == "> > yes and\n> \n"
    assert f"chainrule: {because}\n" in capsys.readouterr().err


def test_the_history_shows_what_was_called(monkeypatch, capsys):
    call = {"type": "function", "function": {"name": "calculator", "arguments": {"expression": "3 × 4"}}}
    said = [{"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "content": "12"}]
    assert command("/history", said, []) is said
    assert capsys.readouterr().out == 'assistant: calculator({"expression": "3 × 4"})\ntool: 12\n'


def test_a_question_that_cannot_be_answered_is_taken_back(monkeypatch, chatty, capsys, tmp_path):
    (tmp_path / "file").write_text("in the way")
    _, screen = session(monkeypatch, chatty, "too long " * 200, f"/save {tmp_path / 'file' / 'x'}", "/save /", "/history", "hi")
    assert screen.getvalue() == "> > > > > yes and\n> \n"
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("chainrule: ")]
    assert len(told) == 3
    assert "tokens long" in told[0]
    assert "cannot write" in told[1]
    assert "has no name to write under" in told[2]


def test_the_lines_of_a_pipe_are_a_conversation(monkeypatch, chatty, capsys, tmp_path):
    kept = tmp_path / "kept.jsonl"
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"/help\nhi\nhi\n/save {kept}\n/exit\nnever read\n"))
    assert main(["chat", str(chatty), "--max-tokens", "12", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "/undo" in out
    assert out.endswith("yes and\nno more\n")
    assert json.loads(kept.read_text()) == {"messages": SAID}


def test_a_conversation_is_not_saved_over_a_file(monkeypatch, chatty, capsys, tmp_path):
    (tmp_path / "notes.md").write_text("mine")
    session(monkeypatch, chatty, "hi", f"/save {tmp_path / 'notes.md'}")
    assert "notes.md exists already; give another name\n" in capsys.readouterr().err
    assert (tmp_path / "notes.md").read_text() == "mine"


@pytest.mark.parametrize("question", [(), ("-",)])
def test_for_json_a_pipe_is_one_question(monkeypatch, chatty, capsys, question):
    monkeypatch.setattr(sys, "stdin", io.StringIO("hi\n"))
    assert main(["chat", str(chatty), *question, "--max-tokens", "12", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"messages": SAID[:2]}


def test_a_pipe_in_another_encoding_is_refused(monkeypatch, chatty, capsys):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("你好".encode("gbk")), encoding="utf-8"))
    assert main(["chat", str(chatty)]) == 2
    assert "is no text in utf-8; convert it first" in capsys.readouterr().err


@pytest.mark.parametrize("asked", [("hi",), ("-",), ()], ids=["argument", "dash", "pipe"])
def test_a_model_that_was_taught_a_chat_gives_the_taught_answer(monkeypatch, chatty, capsys, asked):
    monkeypatch.setattr(sys, "stdin", io.StringIO("hi\n"))
    assert main(["chat", str(chatty), *asked, "--max-tokens", "12", "--device", "cpu"]) == 0
    assert capsys.readouterr().out == "yes and\n"


@pytest.mark.parametrize("kind", [Keyboard, io.StringIO])
@pytest.mark.parametrize(
    ("setting", "because"),
    [
        (("--temperature", "-1"), "temperature is -1.0"), (("--top-p", "1.5"), "top_p is 1.5"),
        (("--max-tokens", "0"), "max_tokens is 0"), (("--stop", ""), "a stop string is empty"),
    ],
)  # fmt: skip
def test_settings_that_no_answer_can_have_are_refused_before_a_line_is_read(
    monkeypatch, chatty, capsys, kind, setting, because
):
    monkeypatch.setattr(sys, "stdin", lines := kind("hi\nhi\n"))
    assert main(["chat", str(chatty), *setting]) == 2
    out, err = capsys.readouterr()
    assert (out, lines.read()) == ("", "hi\nhi\n")
    assert err.count("chainrule: ") == 1
    assert because in err


@pytest.mark.parametrize(
    ("line", "because"),
    [("too long " * 200, "tokens long"), ("/save /", "has no name to write under"), *BAD_COMMANDS],
)
def test_a_line_of_a_pipe_that_is_refused_leaves_the_others_and_is_told_by_the_exit_code(
    monkeypatch, chatty, capsys, line, because
):
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"hi\n{line}\nhi\n/exit\n"))
    assert main(["chat", str(chatty), "--max-tokens", "12", "--device", "cpu"]) == 2
    out, err = capsys.readouterr()
    assert out == "yes and\nno more\n"
    assert [because in told for told in err.splitlines() if told.startswith("chainrule: ")] == [True]


def test_a_question_in_another_encoding_is_refused(chatty, capsys):
    assert main(["chat", str(chatty), "\udcff"]) == 2
    assert "input (bytes ff) is no text in utf-8" in capsys.readouterr().err
