"""Documents from what people have, packed so that nothing leaks, streamed so that a step is a function of its number."""

import json
import os

import numpy as np
import pytest
import torch

from chainrule.core.datum import PADDING
from chainrule.core.errors import DataError, TokenizerError
from chainrule.data.chats import Talk, encode_chats, read_chats
from chainrule.data.documents import hold_out, read_documents
from chainrule.data.packing import pack
from chainrule.data.pairs import read_pairs
from chainrule.data.streams import PackedStream
from chainrule.logprobs.scoring import judged
from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.chat import CHATML, IM_END, IM_START, ChatTemplate


def test_every_kind_of_file_is_read(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.jsonl").write_text('{"text": "two"}\n\n{"text": "three", "more": 1}\n')
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.table({"text": ["four", "five"]}), tmp_path / "c.parquet")
    (tmp_path / ".hidden").write_text("no")
    assert read_documents(tmp_path) == ["one", "two", "three", "four", "five"]


@pytest.mark.parametrize(
    ("name", "content", "because"),
    [
        ("a.jsonl", '{"txt": "x"}\n', "needs text"),
        ("a.jsonl", "{broken\n", "a.jsonl:1 is not JSON"),
        ("a.jsonl", "[1]\n", "is a list"),
        ("a.parquet", "not parquet", "no readable parquet"),
        ("a.txt", "  \n ", "is empty"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, because):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=because):
        read_documents(tmp_path / name)


def test_a_row_beyond_what_json_is_read_of_is_named_by_its_line(tmp_path):
    for row in ('{"text": "x", "n": ' + "9" * 5000 + "}", "[" * 100_000):
        (tmp_path / "a.jsonl").write_text(f'{{"text": "x"}}\n{row}\n')
        with pytest.raises(DataError, match=r"a\.jsonl:2 is not JSON"):
            read_documents(tmp_path / "a.jsonl")


def test_a_folder_without_text_says_what_it_holds(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n")
    with pytest.raises(DataError, match=r"\.png"):
        read_documents(tmp_path)


def test_something_is_held_out():
    assert hold_out(["a", "b", "c"]) == (["a", "b"], ["c"])
    train, held = hold_out(["line\n" * 100])
    assert "".join(train + held) == "line\n" * 100
    assert held[0]


def documents(lengths):
    return [(np.arange(n, dtype=np.int32) + 100 * i, None) for i, n in enumerate(lengths)]


def test_packing_keeps_every_token_once_and_every_document_apart():
    lengths = [5, 3, 8, 2, 7, 4, 6, 1]
    rows = pack(documents(lengths), 10, split=True)
    found = sorted(rows.tokens[rows.document != PADDING].tolist())
    assert found == sorted(token for ids, _ in documents(lengths) if len(ids) > 1 for token in ids.tolist())
    for tokens, position, document in zip(rows.tokens, rows.position, rows.document, strict=True):
        for number in set(document.tolist()) - {PADDING}:
            mine = document == number
            assert position[mine].tolist() == list(range(mine.sum()))
            assert len({token // 100 for token in tokens[mine].tolist()}) == 1


def test_a_document_longer_than_the_context_is_split_or_refused():
    assert len(pack(documents([25]), 10, split=True)) == 3
    with pytest.raises(DataError, match="25 tokens long"):
        pack(documents([25]), 10, split=False)


def test_a_step_is_a_function_of_its_number_and_an_epoch_sees_every_row_once():
    rows = pack(documents([10] * 8), 10, split=True)
    stream = PackedStream(rows, rows_per_step=2, micro_rows=1, seed=3)
    again = PackedStream(rows, rows_per_step=2, micro_rows=2, seed=3)
    seen = []
    for step in range(4):
        micro = stream.batches(step)
        assert [len(batch.tokens) for batch in micro] == [1, 1]
        assert torch.equal(torch.cat([batch.tokens for batch in micro]), again.batches(step)[0].tokens)
        seen += [int(row[0]) // 100 for batch in micro for row in batch.tokens]
    assert sorted(seen) == list(range(8))
    assert not torch.equal(stream.batches(0)[0].tokens, stream.batches(4)[0].tokens) or not torch.equal(
        stream.batches(1)[0].tokens, stream.batches(5)[0].tokens
    )


def test_a_stream_without_anything_to_learn_is_refused():
    rows = pack([(np.arange(5, dtype=np.int32), np.zeros(5, np.uint8))], 10, split=False)
    with pytest.raises(DataError, match="mask is 0 everywhere"):
        PackedStream(rows, 1, 1)


def test_the_share_that_is_judged_is_what_the_loss_counts():
    rows = pack(documents([4, 3]), 10, split=False)
    stream = PackedStream(rows, 1, 1)
    (batch,) = stream.batches(0)
    assert stream.describe()["judged"] == float(judged(batch).float().mean().round(decimals=4)) == 0.5  # 3 + 2 of 10


def template():
    tokenizer = BPE.train(["hello there you"], 280, pattern="gpt2", specials=("<|endoftext|>", IM_START, IM_END))
    return ChatTemplate(CHATML, tokenizer)


def test_chats_are_read_and_masked(tmp_path):
    path = tmp_path / "chats.jsonl"
    row = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "there"}]}
    path.write_text(json.dumps(row) + "\n")
    ((ids, mask),) = encode_chats(read_chats(path), template())
    said = template().tokenizer.decode([int(id) for id, counts in zip(ids, mask, strict=True) if counts], specials=True)
    assert said == f"there{IM_END}"


@pytest.mark.parametrize(
    ("row", "because"),
    [
        ({"prompt": "x"}, "needs messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, "role 'king'"),
        ({"messages": [{"content": "x"}]}, "needs role"),
    ],
)
def test_rows_that_are_no_chats_are_refused(tmp_path, row, because):
    (tmp_path / "chats.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(DataError, match=because):
        read_chats(tmp_path / "chats.jsonl")


def test_a_chat_in_which_the_assistant_says_nothing_is_refused():
    with pytest.raises(DataError, match="no word of the assistant"):
        encode_chats([Talk([{"role": "user", "content": "hello"}])], template())


def test_a_chat_that_the_template_refuses_is_named_by_its_line(tmp_path):
    rows = [[{"role": role, "content": "hello"}, {"role": "assistant", "content": "there"}] for role in ("user", "system")]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('no system message') }}{% endif %}" + CHATML
    with pytest.raises(TokenizerError, match=r"chats\.jsonl:2: .*no system message"):
        encode_chats(read_chats(tmp_path / "chats.jsonl"), ChatTemplate(strict, template().tokenizer))


def test_a_folder_of_ones_own_files_is_read_as_it_is(tmp_path, capsys):
    """Any text counts, whatever its name; what is hidden is not looked at, and what is left out is said."""
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "object").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "main.c").write_text("int main;")
    (tmp_path / "src" / "__init__.py").write_text("")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00")
    (tmp_path / "Makefile").write_text("all:")
    assert read_documents(tmp_path) == ["all:", "int main;"]
    err = capsys.readouterr().err
    assert "a.png" in err
    assert "__init__.py" in err
    assert ".git" not in err


def test_a_text_in_a_folder_that_cannot_be_read_is_an_error(tmp_path):
    (tmp_path / "a.txt").write_text("good")
    (tmp_path / "b.txt").write_bytes("天气".encode("gbk"))
    with pytest.raises(DataError, match=r"b\.txt is not UTF-8"):
        read_documents(tmp_path)


def test_a_row_may_hold_any_character_of_a_json_text(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "one\u2028two\x85"}, ensure_ascii=False) + "\r\n", encoding="utf-8")
    assert read_documents(tmp_path / "a.jsonl") == ["one\u2028two\x85"]


def test_rows_without_a_word_are_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": ""}\n')
    with pytest.raises(DataError, match="no word"):
        read_documents(tmp_path / "a.jsonl")


def test_of_a_few_long_texts_a_part_of_the_last_is_held_out():
    books = ["line\n" * 1000] * 3
    train, held = hold_out(books, 0.05)
    assert train[:2] == books[:2]
    assert train[2] + held[0] == books[2]
    assert len(held[0]) == pytest.approx(750, abs=5)
    train, held = hold_out([str(i % 10) for i in range(100)], 0.05)
    assert (len(train), len(held)) == (95, 5)
    with pytest.raises(DataError, match=r"held_out is 1\.5"):
        hold_out(books, 1.5)
    with pytest.raises(DataError, match="too short"):
        hold_out(["x"])


def test_the_tools_of_a_row_are_shown_to_the_assistant(tmp_path):
    tools = [{"type": "function", "function": {"name": "calculator", "parameters": {}}}]
    row = {"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "there"}], "tools": tools}
    (tmp_path / "chats.jsonl").write_text(json.dumps(row) + "\n")
    ((ids, _),) = encode_chats(read_chats(tmp_path / "chats.jsonl"), template())
    assert '"name": "calculator"' in template().tokenizer.decode(ids.tolist())
    (tmp_path / "chats.jsonl").write_text(json.dumps(row | {"tools": "all"}) + "\n")
    with pytest.raises(DataError, match="must be a list of objects"):
        read_chats(tmp_path / "chats.jsonl")


@pytest.mark.parametrize("messages", ["hello", [1], [{"role": "king", "content": "x"}], [{"role": "user", "content": [1]}]])
def test_a_chat_that_cannot_be_read_is_named_by_its_line(tmp_path, messages):
    (tmp_path / "chats.jsonl").write_text("\n" + json.dumps({"messages": messages}) + "\n")
    with pytest.raises(DataError, match=r"chats\.jsonl:2"):
        read_chats(tmp_path / "chats.jsonl")


def test_a_malformed_call_of_a_tool_is_named_by_its_line(tmp_path):
    row = {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "null"}}]}]}
    (tmp_path / "chats.jsonl").write_text("\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match=r"chats\.jsonl:2: the arguments of the tool call 'f' are null"):
        read_chats(tmp_path / "chats.jsonl")


@pytest.mark.parametrize("read", [read_documents, read_chats, read_pairs])
def test_half_a_surrogate_pair_is_named_by_its_line(tmp_path, read):
    turns = {"messages": [{"role": "user", "content": "hi X"}, {"role": "assistant", "content": "hi"}]}
    row = json.dumps({"text": "hi", "source": "a", "target": "b", **turns})
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join([row, row.replace("X", r"\ud83d\ude00"), row.replace("X", r"\ud83d")]))
    with pytest.raises(DataError, match=r"rows\.jsonl:3 has \\ud83d alone, half of a surrogate pair"):
        read(path)


def test_of_a_folder_nothing_is_skipped_silently(tmp_path, capsys):
    """Links, pipes and empty shards are named; a name in capitals means the same."""
    folder, other = tmp_path / "mine", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    (other / "more.txt").write_text("more")
    (folder / "J.JSONL").write_text('{"text": "one"}\n')
    (folder / "empty.jsonl").write_text("\n")
    (folder / "file.txt").symlink_to(other / "more.txt")
    (folder / "folder").symlink_to(other)
    (folder / "back").symlink_to(folder)
    (folder / "nothing.txt").symlink_to(tmp_path / "nothing")
    os.mkfifo(folder / "pipe")
    assert read_documents(folder) == ["one", "more"]
    assert "left out back, empty.jsonl, folder, nothing.txt, pipe (empty, no UTF-8 text, or no file" in capsys.readouterr().err


def test_a_row_whose_text_is_none_says_so(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": null}')
    with pytest.raises(DataError, match=r"a\.jsonl:1 has the text null; it must be a string in quotes"):
        read_documents(tmp_path / "a.jsonl")
