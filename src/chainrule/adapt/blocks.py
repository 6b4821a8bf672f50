"""Weights in blocks: a few bits for each weight, and one scale for the weights of a block together.

    w ≈ d · q                q an integer of 4 … 8 bits, d a float16 that 32 weights share           Q4_0, Q5_0, Q8_0
    w ≈ d · q + m            also their least value m                                                Q4_1, Q5_1

The formats of ggml and GGUF (ggml-org/ggml, ggml-quants.h), written with NumPy on whole arrays and bit for bit as the package
`gguf` writes them; ``kquants`` has those of 256 weights. ``pack`` turns rows of float32 into bytes, ``unpack`` turns them back.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from chainrule.adapt import kquants
from chainrule.adapt.scales import Array, half, half_bytes, inverse, largest
from chainrule.core.errors import ConfigError, nearest


@dataclass(frozen=True)
class Format:
    """``weights`` weights take ``size_bytes`` bytes; ``number`` is the format's own in GGUF. ``pack`` None: read only."""

    name: str
    number: int
    weights: int
    size_bytes: int
    unpack_blocks: Callable[[Array], Array]
    """Bytes ``n size_bytes`` -> float32 ``n weights``."""
    pack_blocks: Callable[[Array], Array] | None = None
    """float32 ``n weights`` -> bytes ``n size_bytes``."""

    @property
    def bits(self) -> float:
        """Bits a weight, scales included."""
        return 8 * self.size_bytes / self.weights

    def row_bytes(self, columns: int) -> int:
        """The bytes of one row; raises ``ConfigError`` where the row is not whole blocks."""
        if columns % self.weights:
            raise ConfigError(f"a row of {columns} weights is not whole blocks of {self.name}, which hold {self.weights}")
        return columns // self.weights * self.size_bytes


ROWS = 1 << 20
"""Weights worked on at once, so that what is needed in between stays small."""


def pack(weights: Array, name: str) -> Array:
    """Rows of float32 as bytes of a format: ``… columns`` -> ``… bytes``."""
    kind = format_of(name)
    if kind.pack_blocks is None:
        writable = ", ".join(one.name for one in FORMATS.values() if one.pack_blocks)
        raise ConfigError(f"{name} is read here, not written; only {writable} can be written")
    shape = (*weights.shape[:-1], kind.row_bytes(weights.shape[-1]))
    blocks = np.ascontiguousarray(weights, np.float32).reshape(-1, kind.weights)
    return _in_slices(kind.pack_blocks, blocks, kind.size_bytes, np.uint8, ROWS // kind.weights).reshape(shape)


def unpack(data: Array, name: str) -> Array:
    """Bytes of a format as rows of float32: ``… bytes`` -> ``… columns``."""
    kind = format_of(name)
    if data.shape[-1] % kind.size_bytes:
        raise ConfigError(f"{data.shape[-1]} bytes are not whole blocks of {name}, which take {kind.size_bytes}")
    shape = (*data.shape[:-1], data.shape[-1] // kind.size_bytes * kind.weights)
    blocks = np.ascontiguousarray(data).reshape(-1, kind.size_bytes)
    return _in_slices(kind.unpack_blocks, blocks, kind.weights, np.float32, ROWS // kind.weights).reshape(shape)


def _in_slices(function: Callable[[Array], Array], blocks: Array, width: int, dtype: type, step: int) -> Array:
    out = np.empty((len(blocks), width), dtype)
    for start in range(0, len(blocks), step):
        out[start : start + step] = function(blocks[start : start + step])
    return out


def format_of(name: str) -> Format:
    """The format of that name; raises ``ConfigError`` naming the nearest."""
    if name not in FORMATS:
        raise ConfigError(f"unknown weight format {name!r}{nearest(name, FORMATS)}")
    return FORMATS[name]


# Q8_0: float16 d, 32 signed bytes


def _pack_q8_0(blocks: Array) -> Array:
    d = np.abs(blocks).max(axis=-1, keepdims=True) / 127
    q = blocks * inverse(d)
    q = np.sign(q) * np.floor(np.abs(q) + np.float32(0.5))  # halves away from zero, as C's roundf
    return np.concatenate([half_bytes(d), q.astype(np.int8).view(np.uint8)], axis=-1)


def _unpack_q8_0(data: Array) -> Array:
    return half(data[:, :2]) * np.ascontiguousarray(data[:, 2:]).view(np.int8)


# Q4_0: float16 d, then 16 bytes: low halves are weights 0 … 15, high halves 16 … 31


def _nibbles(q: Array) -> Array:
    """``n 32`` numbers below 16 -> ``n 16`` bytes."""
    return q[:, :16] | q[:, 16:] << np.uint8(4)


def _from_nibbles(data: Array) -> Array:
    return np.concatenate([data & 15, data >> 4], axis=-1)


def _centred(blocks: Array, levels: int) -> tuple[Array, Array]:
    """(d, q): q below 2·levels, and ``levels`` stands for zero. The weight of largest magnitude gets q = 0 exactly."""
    d = largest(blocks) / -levels
    q = np.trunc(blocks * inverse(d) + np.float32(levels + 0.5)).astype(np.uint8)
    return d, q.clip(0, 2 * levels - 1)


def _pack_q4_0(blocks: Array) -> Array:
    d, q = _centred(blocks, 8)
    return np.concatenate([half_bytes(d), _nibbles(q)], axis=-1)


def _unpack_q4_0(data: Array) -> Array:
    return half(data[:, :2]) * (_from_nibbles(data[:, 2:]).astype(np.int8) - np.int8(8))


def _above(blocks: Array, levels: int) -> tuple[Array, Array, Array]:
    """(d, m, q): q from 0 to ``levels`` between the least weight m and the greatest."""
    least = blocks.min(axis=-1, keepdims=True)
    d = (blocks.max(axis=-1, keepdims=True) - least) / levels
    q = np.trunc((blocks - least) * inverse(d) + np.float32(0.5)).astype(np.uint8).clip(0, levels)
    return d, least, q


def _pack_q4_1(blocks: Array) -> Array:
    d, m, q = _above(blocks, 15)
    return np.concatenate([half_bytes(d), half_bytes(m), _nibbles(q)], axis=-1)


def _unpack_q4_1(data: Array) -> Array:
    return half(data[:, :2]) * _from_nibbles(data[:, 4:]).astype(np.float32) + half(data[:, 2:4])


# Q5: as Q4, and the fifth bits of all 32 weights in four bytes before the halves


def _fifths(q: Array) -> Array:
    return np.packbits(q >> np.uint8(4), axis=-1, bitorder="little")


def _with_fifths(low: Array, high: Array) -> Array:
    return low | np.unpackbits(high, axis=-1, bitorder="little") << np.uint8(4)


def _pack_q5_0(blocks: Array) -> Array:
    d, q = _centred(blocks, 16)
    return np.concatenate([half_bytes(d), _fifths(q), _nibbles(q & 15)], axis=-1)


def _unpack_q5_0(data: Array) -> Array:
    q = _with_fifths(_from_nibbles(data[:, 6:]), data[:, 2:6])
    return half(data[:, :2]) * (q.astype(np.int8) - np.int8(16))


def _pack_q5_1(blocks: Array) -> Array:
    d, m, q = _above(blocks, 31)
    return np.concatenate([half_bytes(d), half_bytes(m), _fifths(q), _nibbles(q & 15)], axis=-1)


def _unpack_q5_1(data: Array) -> Array:
    q = _with_fifths(_from_nibbles(data[:, 8:]), data[:, 4:8])
    return half(data[:, :2]) * q.astype(np.float32) + half(data[:, 2:4])


# MXFP4: one power of two, then 32 numbers of two bits exponent and one bit fraction (OCP Microscaling Formats 1.0)

_FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def _unpack_mxfp4(data: Array) -> Array:
    scale = np.ldexp(np.float32(1), data[:, :1].astype(np.int32) - 127)
    return scale * _FP4[_from_nibbles(data[:, 1:])]


# the floats, one weight a block


def _pack_f32(blocks: Array) -> Array:
    return blocks.astype(np.float32).view(np.uint8)


def _unpack_f32(data: Array) -> Array:
    return data.view(np.float32)


def _pack_bf16(blocks: Array) -> Array:
    bits = blocks.view(np.uint32)
    quiet = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)  # a NaN stays one when its low bits go
    bits = np.where(quiet, bits & np.uint32(0xFFFF0000) | np.uint32(0x00400000), bits)
    even = np.uint64(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    return ((bits.astype(np.uint64) + even) >> np.uint64(16)).astype(np.uint16).view(np.uint8)


def _unpack_bf16(data: Array) -> Array:
    return (data.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


FORMATS = {
    one.name: one
    for one in (
        Format("F32", 0, 1, 4, _unpack_f32, _pack_f32),
        Format("F16", 1, 1, 2, half, half_bytes),
        Format("BF16", 30, 1, 2, _unpack_bf16, _pack_bf16),
        Format("Q4_0", 2, 32, 18, _unpack_q4_0, _pack_q4_0),
        Format("Q4_1", 3, 32, 20, _unpack_q4_1, _pack_q4_1),
        Format("Q5_0", 6, 32, 22, _unpack_q5_0, _pack_q5_0),
        Format("Q5_1", 7, 32, 24, _unpack_q5_1, _pack_q5_1),
        Format("Q8_0", 8, 32, 34, _unpack_q8_0, _pack_q8_0),
        Format("Q2_K", 10, 256, 84, kquants.unpack_q2_k),
        Format("Q3_K", 11, 256, 110, kquants.unpack_q3_k),
        Format("Q4_K", 12, 256, 144, kquants.unpack_q4_k, kquants.pack_q4_k),
        Format("Q5_K", 13, 256, 176, kquants.unpack_q5_k, kquants.pack_q5_k),
        Format("Q6_K", 14, 256, 210, kquants.unpack_q6_k, kquants.pack_q6_k),
        Format("MXFP4", 39, 32, 17, _unpack_mxfp4),
    )
}
NUMBERS = {one.number: one.name for one in FORMATS.values()}
