"""What is held out is a fair part of a text, whatever its documents look like; tables say what is wrong with them."""

import pytest

from chainrule.core.errors import DataError
from chainrule.data.documents import beginning, hold_out, read_documents


def test_a_beginning_is_whole_documents_but_for_one_that_is_too_long_itself():
    assert beginning(["two", "你好", "three"], 7) == ["two", "你好"]
    assert beginning(["你好" * 100, "three"], 6 * 7 + 1) == ["你好" * 7]  # counted in bytes, and no letter is cut in two
    assert beginning([], 5) == []


def test_a_blank_or_tiny_last_document_is_not_all_that_is_held_out():
    rows = [f"document {i} has so many words" for i in range(100)]
    for last in ([""], [" \n", ""], ["end"]):
        train, held = hold_out([*rows[:5], "", *rows[5:], *last], 0.05)
        assert all(document.strip() for document in train + held)
        assert len(train) in (95, 96)
        assert sum(map(len, held)) == pytest.approx(0.05 * sum(map(len, rows)), rel=0.2)


def test_a_tiny_document_behind_a_book_is_held_out_with_the_end_of_the_book():
    book = "line\n" * 1000
    train, held = hold_out([book, book, "the end"], 0.05)
    assert train[0] + train[1] + held[0] == book + book
    assert held[1:] == ["the end"]
    assert sum(map(len, held)) == pytest.approx(500, abs=10)


def test_where_almost_all_is_held_out_something_stays():
    assert hold_out(["x", "y"], 0.9) == (["x"], ["y"])
    assert hold_out(["x" * 10, "y"], 0.95) == (["x"], ["x" * 9, "y"])
    with pytest.raises(DataError, match="2 documents and no word"):
        hold_out(["", " \n"])


def table(path, column):
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    parquet.write_table(pyarrow.table({"text": column}), path, compression="none", use_dictionary=False)
    return path


@pytest.mark.parametrize(
    ("column", "kind"), [([1, 2], "int64"), ([b"a"], "binary"), ([["a"]], "list"), ([{"a": "b"}], "struct")]
)
def test_a_table_whose_text_is_none_says_what_it_is(tmp_path, column, kind):
    with pytest.raises(DataError, match=rf"column text of the type {kind}.*; it must hold strings"):
        read_documents(table(tmp_path / "a.parquet", column))


def test_a_table_may_lack_some_texts(tmp_path):
    assert read_documents(table(tmp_path / "a.parquet", ["one", None, "", "two"])) == ["one", "two"]


def test_a_table_with_damaged_pages_is_named(tmp_path):
    path = table(tmp_path / "a.parquet", ["some words"] * 1000)
    data = bytearray(path.read_bytes())
    data[4:200] = b"\xff" * 196
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.parquet is damaged"):
        read_documents(path)
