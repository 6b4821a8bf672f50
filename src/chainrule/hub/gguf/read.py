"""GGUF, the file of llama.cpp and ollama: a header, typed keys and values, a table of tensors, and their bytes, aligned.

    "GGUF" version tensors keys | key type value … | name dims format offset … | padding | bytes

The reader trusts nothing: every count and length is checked against the bytes that are left, and against what a model could
need, before anything is allocated: a file's length costs nothing where it is one hole. Tensors are mapped, not read; those in
blocks (``adapt.blocks``) become floats one at a time, when they are asked for. Specification: ggml-org/ggml, docs/gguf.md.
"""

import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from chainrule.adapt.blocks import FORMATS, NUMBERS, unpack
from chainrule.core.errors import CheckpointError
from chainrule.core.shapes import Tensor
from chainrule.hub.safetensors import mapped

MAGIC, VERSIONS = b"GGUF", (2, 3)
STRING, ARRAY, BOOL = 8, 9, 7
SCALARS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4", 6: "<f4", 7: "<u1", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip
"""The number of a value's type -> how NumPy spells it."""
LONGEST_KEY, LONGEST_NAME, LONGEST_STRING = 65535, 64, 10_000_000
LONGEST_HEADER, MOST_KEYS, MOST_ITEMS, MOST_TENSORS = 256 << 20, 1 << 16, 1 << 24, 1 << 20
"""What is read at all before the tensors' bytes: ``MOST_ITEMS`` are those of all lists together, vocabularies and merges."""
DIMS, NESTED = 4, 4
FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""The formats without blocks."""
UNREAD = {
    **dict.fromkeys((16, 17, 18, 19, 20, 21, 22, 23, 29), "an IQ format, whose values are looked up in tables"),
    **dict.fromkeys((34, 35), "a ternary format"),
    9: "Q8_1", 15: "Q8_K",
}  # fmt: skip


@dataclass(frozen=True)
class Slot:
    """Where a tensor lies in the file: its shape as torch says it, its format, and its bytes."""

    shape: tuple[int, ...]
    format: str
    start: int
    size_bytes: int

    @property
    def dtype(self) -> torch.dtype:
        """The number format it is read into unless another is wanted; blocks become float32."""
        return FLOATS.get(self.format, torch.float32)


class GGUF:
    """A GGUF file: ``metadata`` by key, ``slots`` by tensor name. Raises ``CheckpointError`` for whatever is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._map = mapped(path)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read: {error}") from error
        at = Cursor(self._map, path)
        n_tensors, n_keys = _counts(at)
        self.metadata = _metadata(at, n_keys)
        self.slots = _slots(at, n_tensors, self.metadata.get("general.alignment", 32))

    def tensor(self, name: str) -> Tensor:
        """A tensor: floats on the pages of the file itself, blocks as float32 of their own."""
        slot = self.slots[name]
        if slot.format in FLOATS:
            n = math.prod(slot.shape)
            return torch.frombuffer(self._map, dtype=slot.dtype, count=n, offset=slot.start).view(slot.shape)
        data = np.frombuffer(self._map, np.uint8, slot.size_bytes, slot.start)
        kind = FORMATS[slot.format]
        rows = data.reshape(*slot.shape[:-1], kind.row_bytes(slot.shape[-1]))
        return torch.from_numpy(unpack(rows, slot.format))


class Cursor:
    """A place in the file that moves only over bytes that are there."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.at, self.end = data, path, 0, len(data)
        self.items = 0

    @property
    def left(self) -> int:
        """The bytes that are left."""
        return self.end - self.at

    def wrong(self, what: str) -> CheckpointError:
        """The error to raise at this place."""
        return CheckpointError(f"{self.path} is no sound GGUF file: at byte {self.at:,} {what}; download or export it again")

    def take(self, size: int, what: str) -> int:
        """Move over ``size`` bytes; returns where they begin."""
        if size > self.left:
            raise self.wrong(f"{what} needs {size:,} bytes, but {self.left:,} are left")
        if self.at + size > LONGEST_HEADER:
            raise self.wrong(f"{what} makes the header longer than the {LONGEST_HEADER:,} bytes allowed")
        self.at += size
        return self.at - size

    def numbers(self, kind: str, n: int, what: str) -> list[Any]:
        """``n`` numbers of NumPy's type ``kind``."""
        dtype = np.dtype(kind)
        return np.frombuffer(self.data, dtype, n, self.take(n * dtype.itemsize, what)).tolist() if n else []

    def number(self, kind: str, what: str) -> int:
        """One whole number."""
        return self.numbers(kind, 1, what)[0]

    def count(self, each: int, what: str) -> int:
        """How many of something follow, each of at least ``each`` bytes."""
        n = self.number("<u8", f"the number of {what}")
        if n > self.left // each:
            raise self.wrong(f"{n:,} {what} are claimed, but {self.left:,} bytes are left")
        return n

    def list_items(self, each: int, what: str) -> int:
        """How many items of a list follow; those of all lists are counted together."""
        n = self.count(each, what)
        self.items += n
        if self.items > MOST_ITEMS:
            raise self.wrong(f"{n:,} {what} make the lists longer than the {MOST_ITEMS:,} items allowed")
        return n

    def text(self, longest: int, what: str) -> str:
        """A string of at most ``longest`` bytes."""
        size = self.number("<u8", f"the length of {what}")
        if size > longest:
            raise self.wrong(f"{what} claims {size:,} bytes, more than the {longest:,} allowed")
        start = self.take(size, what)
        try:
            return self.data[start : self.at].decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.wrong(f"{what} is not UTF-8 ({error.reason})") from error


def _counts(at: Cursor) -> tuple[int, int]:
    magic = at.data[at.take(4, "the magic number") : at.at]
    if magic != MAGIC:
        raise CheckpointError(f"{at.path} is no GGUF file: it begins with {magic!r} instead of {MAGIC!r}")
    version = at.number("<u4", "the version")
    if version & 0xFFFF == 0 and version:
        raise CheckpointError(f"{at.path} is a big-endian GGUF file; only little-endian ones can be read: convert it again")
    if version not in VERSIONS:
        raise CheckpointError(
            f"{at.path} is a GGUF file of version {version}; only versions 2 and 3 can be read: convert it again"
        )
    n_tensors = at.number("<u8", "the number of tensors")
    n_keys = at.count(13, "keys")
    if n_tensors > at.left // 24:
        raise at.wrong(f"{n_tensors:,} tensors are claimed, but {at.left:,} bytes are left")
    if n_tensors > MOST_TENSORS or n_keys > MOST_KEYS:
        raise at.wrong(
            f"{n_tensors:,} tensors and {n_keys:,} keys are claimed, more than the {MOST_TENSORS:,} and {MOST_KEYS:,} allowed"
        )
    return n_tensors, n_keys


def _metadata(at: Cursor, n: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(n):
        key = at.text(LONGEST_KEY, "a key")
        if key in metadata:
            raise at.wrong(f"the key {key!r} stands a second time")
        metadata[key] = _value(at, at.number("<u4", f"the type of {key}"), key, 0)
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 8 or alignment % 8 or alignment > 1 << 20:
        raise at.wrong(f"general.alignment is {alignment!r}; it must be a multiple of 8")
    return metadata


def _value(at: Cursor, kind: int, key: str, depth: int) -> Any:
    if kind == STRING:
        return at.text(LONGEST_STRING, f"the value of {key}")
    if kind == ARRAY:
        return _array(at, key, depth)
    if kind not in SCALARS:
        raise at.wrong(f"the value of {key} has type {kind}, which GGUF does not know")
    (value,) = at.numbers(SCALARS[kind], 1, f"the value of {key}")
    if kind == BOOL and value > 1:
        raise at.wrong(f"the truth value of {key} is {value}, neither 0 nor 1")
    return bool(value) if kind == BOOL else value


def _array(at: Cursor, key: str, depth: int) -> list[Any]:
    if depth == NESTED:
        raise at.wrong(f"the value of {key} is nested deeper than {NESTED} lists")
    kind = at.number("<u4", f"the type of the list {key}")
    if kind in (STRING, ARRAY):
        each = 8 if kind == STRING else 12
        return [_value(at, kind, key, depth + 1) for _ in range(at.list_items(each, f"items of {key}"))]
    if kind not in SCALARS:
        raise at.wrong(f"the list {key} has items of type {kind}, which GGUF does not know")
    n = at.list_items(np.dtype(SCALARS[kind]).itemsize, f"items of {key}")
    values = at.numbers(SCALARS[kind], n, key)
    return [bool(value) for value in values] if kind == BOOL else values


def _slots(at: Cursor, n: int, alignment: int) -> dict[str, Slot]:
    rows = [_row(at, alignment) for _ in range(n)]
    at.at += -at.at % alignment
    slots: dict[str, Slot] = {}
    free = 0
    for name, shape, kind, offset, size in sorted(rows, key=lambda row: row[3]):
        if name in slots:
            raise at.wrong(f"the tensor {name!r} stands a second time")
        if offset < free:
            raise at.wrong(f"the tensor {name!r} begins inside the one before it")
        if offset + size > at.left:
            raise at.wrong(
                f"the tensor {name!r} needs bytes {offset:,} to {offset + size:,}, but {max(at.left, 0):,} are there"
            )
        slots[name] = Slot(shape, kind, at.at + offset, size)
        free = offset + size
    return {name: slots[name] for name, *_ in rows}


def _row(at: Cursor, alignment: int) -> tuple[str, tuple[int, ...], str, int, int]:
    """(name, shape, format, offset, bytes) of one tensor."""
    name = at.text(LONGEST_NAME, "a tensor's name")
    n_dims = at.number("<u4", f"the dimensions of {name}")
    if not 1 <= n_dims <= DIMS:
        raise at.wrong(f"the tensor {name!r} has {n_dims} dimensions; it may have 1 to {DIMS}")
    shape = tuple(at.number("<u8", f"a dimension of {name}") for _ in range(n_dims))[::-1]
    number = at.number("<u4", f"the format of {name}")
    offset = at.number("<u8", f"the offset of {name}")
    if number not in NUMBERS:
        what = UNREAD.get(number, "unknown")
        raise CheckpointError(
            f"{at.path}: {name} is in format {number} ({what}); only {', '.join(FORMATS)} can be read: convert it again"
        )
    kind = FORMATS[NUMBERS[number]]
    if min(shape) < 1 or shape[-1] % kind.weights:
        raise at.wrong(f"the tensor {name!r} of shape {shape} does not fit the blocks of {kind.name}")
    if offset % alignment:
        raise at.wrong(f"the tensor {name!r} begins at {offset:,}, which is no multiple of {alignment}")
    return name, shape, kind.name, offset, math.prod(shape) // kind.weights * kind.size_bytes
