"""Texts from what people have: a text file, a folder of them, ``.jsonl`` rows with a ``text``, parquet tables.

A file is one document, a row is one document. What cannot be read is an error that names it; nothing is skipped silently.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from chainrule.core.errors import DataError, MissingExtra
from chainrule.core.files import read_text

TEXT = {".txt", ".md", ".text", ".py", ".rst", ".tex", ".csv", ".html", ""}


def read_documents(path: str | Path) -> list[str]:
    """The documents of a file or a folder (its files in the order of their names)."""
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path} does not exist; give a text file, a folder, a .jsonl or a .parquet file")
    if not path.is_dir():
        return list(_read(path))
    files = sorted(file for file in path.rglob("*") if file.is_file() and not file.name.startswith("."))
    readable = [file for file in files if file.suffix in TEXT | {".jsonl", ".parquet"}]
    if not readable:
        kinds = ", ".join(sorted({file.suffix or file.name for file in files})) or "nothing"
        raise DataError(f"{path} holds no text (it holds {kinds}); put .txt, .md, .jsonl or .parquet files into it")
    return [document for file in readable for document in _read(file)]


def _read(path: Path) -> Iterator[str]:
    if path.suffix == ".parquet":
        yield from _parquet(path)
    elif path.suffix == ".jsonl":
        for number, row in read_jsonl(path):
            yield _text(row, f"{path}:{number}")
    else:
        yield read_text(path)


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of every line that is not blank; raises ``DataError`` at the first that is no JSON object."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number} is a {type(row).__name__}; each line must be an object in braces")
        yield number, row


def _text(row: dict[str, Any], where: str) -> str:
    if not isinstance(row.get("text"), str):
        raise DataError(f"{where} has keys {sorted(row)}; a document row needs text")
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
    for batch in rows.iter_batches(columns=["text"]):
        yield from (text for text in batch.column(0).to_pylist() if text)


def hold_out(documents: list[str], share: float = 0.05) -> tuple[list[str], list[str]]:
    """(training documents, held-out documents): the last of them, or the last part of a single long one."""
    if len(documents) > 1:
        n = max(1, round(len(documents) * share))
        return documents[:-n], documents[-n:]
    text = documents[0]
    cut = text.rfind("\n", 0, round(len(text) * (1 - share))) + 1 or round(len(text) * (1 - share))
    return [text[:cut]], [text[cut:]]
