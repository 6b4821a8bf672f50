"""Writing GGUF: the header, then one tensor after the other, packed as it is written, so that one is in memory at a time."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from chainrule.adapt.blocks import FORMATS, pack
from chainrule.core.files import whole_file
from chainrule.core.shapes import Tensor
from chainrule.hub.gguf.read import MAGIC

ALIGNMENT = 32
U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10


def write_gguf(path: Path, metadata: Mapping[str, Any], tensors: Mapping[str, Tensor], formats: Mapping[str, str]) -> None:
    """Write a file, whole or not at all; ``formats`` says how each tensor is stored."""
    head = bytearray(MAGIC + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
    for key, value in metadata.items():
        head += _string(key) + _value(value)
    offset = 0
    for name, tensor in tensors.items():
        dims = tuple(tensor.shape)[::-1]
        kind = FORMATS[formats[name]]
        head += _string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind.number, offset)
        offset += _padded(tensor.numel() // kind.weights * kind.size_bytes)
    with whole_file(path) as aside, aside.open("wb") as file:
        file.write(head + b"\0" * (_padded(len(head)) - len(head)))
        for name, tensor in tensors.items():
            _write_tensor(file, tensor, formats[name])


def _write_tensor(file: IO[bytes], tensor: Tensor, name: str) -> None:
    rows = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
    data = pack(rows, name)
    file.write(data.data)
    file.write(b"\0" * (_padded(data.nbytes) - data.nbytes))


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    """A value with its type before it: whole numbers as u32 (in lists i32), fractions as f32, as llama.cpp expects them."""
    if isinstance(value, bool):
        return struct.pack("<I?", BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", U32, value) if value < 2**32 else struct.pack("<IQ", U64, value)
    if isinstance(value, float):
        return struct.pack("<If", F32, value)
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _string(value)
    return struct.pack("<I", ARRAY) + _items(list(value))


def _items(items: list[Any]) -> bytes:
    first = items[0] if items else ""
    if isinstance(first, str):
        return struct.pack("<IQ", STRING, len(items)) + b"".join(map(_string, items))
    kind, dtype = (BOOL, "u1") if isinstance(first, bool) else (F32, "<f4") if isinstance(first, float) else (I32, "<i4")
    return struct.pack("<IQ", kind, len(items)) + np.asarray(items, dtype).tobytes()
