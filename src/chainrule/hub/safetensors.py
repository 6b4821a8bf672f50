"""The safetensors format: the length of a header, the header, the numbers.

    u64 little-endian n │ n bytes of JSON {name: {"dtype", "shape", "data_offsets": [begin, end]}} │ data

The header of a stranger's file is believed only once everything in it fits: its length, every name once, every size equal to
its offsets, the tensors end to end and exactly as long as the file. Only then is the file mapped, which reads nothing: a
tensor's numbers come from the disk when somebody looks at them, and a write to them goes to a private copy of the page.

https://huggingface.co/docs/safetensors
"""

import json
import math
import mmap
import struct
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from chainrule.core.errors import CheckpointError
from chainrule.core.shapes import Tensor

DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "F8_E5M2": torch.float8_e5m2, "F8_E4M3": torch.float8_e4m3fn,
    "I16": torch.int16, "U16": torch.uint16, "F16": torch.float16, "BF16": torch.bfloat16, "I32": torch.int32,
    "U32": torch.uint32, "F32": torch.float32, "F64": torch.float64, "I64": torch.int64, "U64": torch.uint64,
}  # fmt: skip
CODES = {dtype: code for code, dtype in DTYPES.items()}
LONGEST_HEADER = 16 * 2**20
"""Bytes of header that are read at all: room for 100,000 tensors in one file."""
ALIGNED = 64
"""Headers are padded with spaces so that the data begins at a multiple of a cache line."""
PRIVATE = {"flags": mmap.MAP_PRIVATE | 0x4000} if sys.platform == "linux" else {"access": mmap.ACCESS_COPY}
"""0x4000 is MAP_NORESERVE: a file larger than the memory may be mapped too."""


@dataclass(frozen=True)
class Slot:
    """A tensor's place in the data of its file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path) -> tuple[dict[str, Slot], int]:
    """(name → slot in the order of the data, where that begins); raises ``CheckpointError`` for what does not fit."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        n = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if start == b"version ":
            raise CheckpointError(f"{path} is a Git LFS pointer, not the weights themselves; fetch them with: git lfs pull")
        if not 2 <= n <= min(size - 8, LONGEST_HEADER):
            raise _damaged(path, f"its header claims {n:,} bytes, in a file of {size:,}")
        raw = file.read(n)
    try:
        table = json.loads(raw, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its header is not JSON: {str(error)[:200]}") from error
    if not isinstance(table, dict):
        raise _damaged(path, "its header is no table of tensors")
    slots = {name: _slot(path, name, entry) for name, entry in table.items() if name != "__metadata__"}
    slots = dict(sorted(slots.items(), key=lambda item: (item[1].begin, item[1].end)))
    _end_to_end(path, slots, size - 8 - n)
    return slots, 8 + n


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for name, value in pairs:
        if name in table:
            raise ValueError(f"{name!r} is there twice")
        table[name] = value
    return table


def _slot(path: Path, name: str, entry: Any) -> Slot:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(path, f"{name[:80]!r} has no dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _damaged(path, f"{name[:80]!r} has the unknown number format {str(dtype)[:20]!r}")
    if not (_counts(shape) and len(shape) <= 16 and _counts(offsets) and len(offsets) == 2):
        raise _damaged(path, f"{name[:80]!r} has no shape and offsets in whole numbers")
    wanted = math.prod(shape) * DTYPES[dtype].itemsize
    if offsets[1] - offsets[0] != wanted:
        raise _damaged(path, f"{name[:80]!r} of shape {tuple(shape)} needs {wanted} bytes, but its offsets are {offsets}")
    return Slot(DTYPES[dtype], tuple(shape), *offsets)


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _end_to_end(path: Path, slots: Mapping[str, Slot], size: int) -> None:
    """The tensors cover the data exactly: no hole in which something could hide, no overlap, nothing beyond the end."""
    at = 0
    for name, slot in slots.items():
        if slot.begin != at:
            raise _damaged(path, f"{name[:80]!r} begins at byte {slot.begin:,} of the data, where byte {at:,} was due")
        at = slot.end
    if at != size:
        raise _damaged(path, f"its tensors fill {at:,} bytes of data, but the file has {size:,}")


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged or cut off: {why}; copy or download it again")


def mapped(path: Path) -> mmap.mmap:
    """A file in memory without having been read; a write goes to a private copy of the page."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, **PRIVATE)


class Mapped:
    """A safetensors file in memory without having been read; its pages go when the last tensor of it goes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.slots, self.begin = read_header(path)
        self.data = mapped(path)

    def tensor(self, name: str) -> Tensor:
        """The tensor of that name, on the file's own pages (a copy where the file keeps it at an odd address)."""
        slot = self.slots[name]
        if slot.begin == slot.end:
            return torch.empty(slot.shape, dtype=slot.dtype)
        at = self.begin + slot.begin
        if at % slot.dtype.itemsize:
            raw = torch.frombuffer(self.data, dtype=torch.uint8, offset=at, count=slot.end - slot.begin)
            return raw.clone().view(slot.dtype).view(slot.shape)
        return torch.frombuffer(self.data, dtype=slot.dtype, offset=at, count=math.prod(slot.shape)).view(slot.shape)


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors to a file, one at a time, widest number formats first, as other writers order them."""
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name in names:
        tensor = tensors[name]
        end = at + tensor.numel() * tensor.dtype.itemsize
        table[name] = {"dtype": CODES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    header = json.dumps(table, separators=(",", ":")).encode()
    header += b" " * (-(8 + len(header)) % ALIGNED)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for name in names:
            raw = tensors[name].detach().cpu().contiguous().flatten().view(torch.uint8)
            file.write(raw.numpy().data)


def shards(tensors: Mapping[str, Tensor], most_bytes: int) -> Iterator[dict[str, Tensor]]:
    """The tensors in their order, in groups of at most ``most_bytes``; a tensor larger than that is a group of its own."""
    group: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if group and sum(one.nbytes for one in group.values()) + tensor.nbytes > most_bytes:
            yield group
            group = {}
        group[name] = tensor
    if group:
        yield group
