"""Texts from what people have: a text file, a folder of them, ``.jsonl`` rows with a ``text``, parquet tables.

A file is one document, a row is one document. What cannot be read is an error that names it. Of a folder every text is taken,
whatever its name; hidden files and folders (.git) are not looked at, and what is empty or holds no text (pictures), or is no
file of the folder at all (a link to another folder or to nothing, a pipe) is left out and named on stderr: nothing is skipped
silently.
"""

import codecs
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from chainrule.core.errors import DataError, MissingExtra
from chainrule.core.files import exists, read_text, unusable

PLAIN = {".txt", ".md", ".text"}
"""Files of these names are meant as texts: one that cannot be read is an error, wherever it lies."""
ROWS = {".jsonl", ".parquet"}
"""Files of these names hold a document in each row."""
HALF = re.compile(r"[\ud800-\udfff]")
"""Half of a surrogate pair, which JSON can write alone, as \\ud83d, and no text can hold."""


def read_documents(path: str | Path) -> list[str]:
    """The documents of a file or a folder (its files in the order of their names)."""
    if str(path) == "":
        raise DataError("the name of the text is empty; give a text file, a folder, a .jsonl or a .parquet file")
    path = Path(path)
    if not exists(path):
        raise DataError(f"{path} does not exist; give a text file, a folder, a .jsonl or a .parquet file")
    documents = [document for file in _files(path) for document in _read(file)] if path.is_dir() else list(_read(path))
    if not any(documents):
        raise DataError(f"{path} holds {len(documents)} documents and no word; give a text with something in it")
    return documents


def _files(path: Path) -> list[Path]:
    """The texts in a folder, in the order of their names."""
    try:
        files = sorted(_visible(path))
    except OSError as error:
        raise unusable(error) from error
    texts = [file for file in files if file.is_file() and _holds_text(file)]
    if not texts:
        kinds = ", ".join(sorted({file.suffix or file.name for file in files})) or "nothing"
        raise DataError(f"{path} holds no text (it holds {kinds}); put .txt, .md, .jsonl or .parquet files into it")
    _report(path, sorted(set(files) - set(texts)))
    return texts


def _visible(folder: Path) -> Iterator[Path]:
    """What a folder and those in it hold that is not hidden; a folder that may not be read is an error, not empty.

    A link to a folder is named, not followed: it may lead back, or to texts that are read already.
    """
    for path in folder.iterdir():
        if path.name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _visible(path)
        else:
            yield path


def _holds_text(path: Path) -> bool:
    """Whether a file of a folder is to be read: not empty, and either meant as a text or one by its first bytes."""
    try:
        with path.open("rb") as file:
            data = file.read(65536)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    return bool(data.strip()) and (path.suffix.lower() in PLAIN | ROWS or _is_text(data))


def _is_text(data: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data)  # the last character may be cut
    except UnicodeDecodeError:
        return False
    return b"\x00" not in data


def _report(folder: Path, left_out: list[Path]) -> None:
    """Say on stderr which files of a folder were left out."""
    if left_out:
        some = ", ".join(str(file.relative_to(folder)) for file in left_out[:5])
        more = f" and {len(left_out) - 5} more" if len(left_out) > 5 else ""
        print(
            f"{folder}: left out {some}{more} (empty, no UTF-8 text, or no file: a link to a folder or to nothing, a pipe)",
            file=sys.stderr,
        )


def _read(path: Path) -> Iterator[str]:
    kind = path.suffix.lower()
    if kind == ".parquet":
        yield from _parquet(path)
    elif kind == ".jsonl":
        for number, row in read_jsonl(path):
            yield _text(row, f"{path}:{number}")
    else:
        yield read_text(path)


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of every line that is not blank; raises ``DataError`` at the first that is no JSON object.

    Nor may its texts hold half a character.
    """
    for number, line in enumerate(read_text(path).split("\n"), 1):  # not splitlines: a JSON text may hold U+2028
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # a number of 5000 digits is a ValueError, no JSONDecodeError
            raise DataError(f"{path}:{number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number} is a {type(row).__name__}; each line must be an object in braces")
        if "\\u" in line and (half := HALF.search(json.dumps(row, ensure_ascii=False))):
            raise DataError(
                f"{path}:{number} has \\u{ord(half[0]):04x} alone, half of a surrogate pair, which is no character; write both "
                "halves of it, or leave it out"
            )
        yield number, row


def _text(row: dict[str, Any], where: str) -> str:
    if "text" not in row:
        raise DataError(f"{where} has keys {sorted(row)}; a document row needs text")
    if not isinstance(row["text"], str):
        raise DataError(f"{where} has the text {json.dumps(row['text'])[:60]}; it must be a string in quotes")
    return row["text"]


def _parquet(path: Path) -> Iterator[str]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtra("pyarrow", "data", f"reading {path.name}") from error
    try:
        rows = parquet.ParquetFile(path)
    except Exception as error:  # pyarrow raises its own family
        raise DataError(f"{path} is no readable parquet file: {error}") from error
    if "text" not in rows.schema_arrow.names:
        raise DataError(f"{path} has columns {rows.schema_arrow.names}; it needs one called text")
    batches = rows.iter_batches(columns=["text"])
    while (texts := _next_texts(batches, path)) is not None:
        for text in texts:
            if text is not None and not isinstance(text, str):
                kind = rows.schema_arrow.field("text").type
                raise DataError(f"{path} has a column text of the type {kind}; it must hold strings, one document a row")
            if text:
                yield text


def _next_texts(batches: Iterator[Any], path: Path) -> list[Any] | None:
    """The next rows of a table, None behind the last."""
    try:
        batch = next(batches, None)
        return None if batch is None else batch.column(0).to_pylist()
    except Exception as error:  # damaged pages fail in pyarrow's own ways, and letters that are none in Python's
        raise DataError(f"{path} is damaged: {' '.join(str(error).split())[:200]}; copy it again") from error


def hold_out(documents: list[str], share: float = 0.05) -> tuple[list[str], list[str]]:
    """(training documents, held-out documents): the last ones, up to that share of all characters. Blank ones are left out.

    Where these are less than half of that share, since the next document alone is longer, as one book among three, its last
    part is held out too.
    """
    if not 0 < share < 1:
        raise DataError(f"held_out is {share}; it must be between 0 and 1, for example 0.05")
    train = [document for document in documents if document.strip()]
    if not train:
        raise DataError(f"there are {len(documents)} documents and no word in them; give a text with something in it")
    wanted = left = share * sum(map(len, train))
    held: list[str] = []
    while len(train) > 1 and len(train[-1]) <= left:
        held.insert(0, train.pop())
        left -= len(held[0])
    if left > wanted / 2:
        begin, end = _cut(train[-1], left)
        if begin or len(train) > 1:
            train[-1:] = [begin] if begin else []
            held.insert(0, end)
        elif not held:
            raise DataError(f"the text is {end!r}, too short to hold a part of it out; give more text")
    return train, held


def _cut(text: str, left: float) -> tuple[str, str]:
    """A text and its last ``left`` characters, up to twice as many where that lets it end with a line."""
    at = len(text) - max(1, round(left))
    line = text.rfind("\n", 0, at) + 1
    at = line if line > len(text) / 2 and at - line <= left else at
    return text[:at], text[at:]


def beginning(documents: Iterable[str], size_bytes: int) -> list[str]:
    """The first documents that make up about so many bytes; one that is longer than all of them should be is cut there.

    >>> beginning(["two", "你好", "three"], 7), beginning(["你好"], 5)
    (['two', '你好'], ['你'])
    """
    taken: list[str] = []
    left = size_bytes
    for document in documents:
        if left <= 0:
            break
        data = document.encode()
        taken.append(document if len(data) <= size_bytes else data[:size_bytes].decode(errors="ignore"))
        left -= len(data)
    return taken
