"""K-quants: 256 weights a block, whose small groups have scales of their own, themselves in few bits.

    Q4_K, Q5_K   w ≈ d · s · q − dmin · m         8 groups of 32: s, m of 6 bits, q of 4 or 5 bits; d, dmin float16
    Q6_K         w ≈ d · s · q                    16 groups of 16: s of 8 bits, q of 6 bits, signed
    Q2_K, Q3_K   the same with 2 and 3 bits, read only

Kawrakow 2023, ggml-org/llama.cpp #1684. Writing searches, for each group, among some twenty ways of rounding (the greatest
weight a little above or below the highest level); given the integers q, the best scale and minimum are a least-squares fit.
Large weights count more, as in llama.cpp without an importance matrix.
"""

import numpy as np

from chainrule.adapt.scales import Array, half, half_bytes, inverse, largest

TINY = np.float32(1e-15)


# scales and minima of 6 bits, eight of each in twelve bytes: the low bytes hold 0 … 3, the last four the low bits of 4 … 7,
# whose two high bits are the high bits of the first eight


def _unpack_scales(data: Array) -> tuple[Array, Array]:
    first, second, low = data[:, :4], data[:, 4:8], data[:, 8:]
    scales = np.concatenate([first & 63, low & 15 | first >> 2 & 48], axis=-1)
    minima = np.concatenate([second & 63, low >> 4 | second >> 2 & 48], axis=-1)
    return scales, minima


def _pack_scales(scales: Array, minima: Array) -> Array:
    first = scales[:, :4] | scales[:, 4:] >> 4 << 6
    second = minima[:, :4] | minima[:, 4:] >> 4 << 6
    return np.concatenate([first, second, scales[:, 4:] & 15 | (minima[:, 4:] & 15) << 4], axis=-1)


def _split(data: Array, parts: int, bits: int, width: int) -> Array:
    """Bytes whose ``parts`` fields of ``bits`` bits belong to as many runs of ``width`` weights: -> ``n weights``."""
    shifts = (np.arange(parts, dtype=np.uint8) * np.uint8(bits))[:, None]
    fields = data.reshape(len(data), -1, 1, width) >> shifts
    return (fields & np.uint8((1 << bits) - 1)).reshape(len(data), -1)


def _grouped(q: Array, groups: int, scale: Array, minimum: Array | float = 0.0) -> Array:
    """scale · q − minimum, group by group."""
    w = scale[:, :, None] * q.reshape(len(q), groups, -1).astype(np.float32)
    return (w - minimum[:, :, None] if isinstance(minimum, np.ndarray) else w).reshape(len(q), -1)


def unpack_q4_k(data: Array) -> Array:
    """144 bytes -> 256 weights."""
    scales, minima = _unpack_scales(data[:, 4:16])
    return _grouped(_split(data[:, 16:], 2, 4, 32), 8, half(data[:, :2]) * scales, half(data[:, 2:4]) * minima)


def unpack_q5_k(data: Array) -> Array:
    """176 bytes -> 256 weights."""
    scales, minima = _unpack_scales(data[:, 4:16])
    q = _split(data[:, 48:], 2, 4, 32) | _split(data[:, 16:48], 8, 1, 32) << np.uint8(4)
    return _grouped(q, 8, half(data[:, :2]) * scales, half(data[:, 2:4]) * minima)


def unpack_q6_k(data: Array) -> Array:
    """210 bytes -> 256 weights."""
    q = _split(data[:, :128], 2, 4, 64) | _split(data[:, 128:192], 4, 2, 32) << np.uint8(4)
    scales = np.ascontiguousarray(data[:, 192:208]).view(np.int8).astype(np.float32)
    return _grouped(q.astype(np.int8) - np.int8(32), 16, half(data[:, 208:]) * scales)


def unpack_q3_k(data: Array) -> Array:
    """110 bytes -> 256 weights; the high bit is stored as its opposite."""
    q = _split(data[:, 32:96], 4, 2, 32).astype(np.int8) - ((_split(data[:, :32], 8, 1, 32) ^ 1) << 2).astype(np.int8)
    low, high = data[:, 96:104], data[:, 104:108]
    scales = _split(low, 2, 4, 8) | _split(high, 4, 2, 4) << np.uint8(4)
    return _grouped(q, 16, half(data[:, 108:]) * (scales.astype(np.int8) - np.int8(32)).astype(np.float32))


def unpack_q2_k(data: Array) -> Array:
    """84 bytes -> 256 weights."""
    scales = data[:, :16]
    q = _split(data[:, 16:80], 4, 2, 32)
    return _grouped(q, 16, half(data[:, 80:82]) * (scales & 15), half(data[:, 82:]) * (scales >> 4))


# writing


def pack_q4_k(blocks: Array) -> Array:
    """256 weights -> 144 bytes."""
    head, q = _with_minima(blocks, 15, WIDER[15])
    return np.concatenate([head, _nibbles(q)], axis=-1)


def pack_q5_k(blocks: Array) -> Array:
    """256 weights -> 176 bytes; the fifth bits of a byte's eight weights lie 32 weights apart."""
    head, q = _with_minima(blocks, 31, WIDER[31])
    fifths = np.packbits((q >> 4).reshape(-1, 8, 32), axis=1, bitorder="little").reshape(-1, 32)
    return np.concatenate([head, fifths, _nibbles(q & 15)], axis=-1)


WIDER = {15: np.arange(-10, 11), 31: np.arange(-5, 11)}
"""By how many tenths of a level the spread is varied, as in llama.cpp."""


def _with_minima(blocks: Array, levels: int, wider: Array) -> tuple[Array, Array]:
    """(d, dmin and the packed scales; q ``n 256``) of Q4_K and Q5_K."""
    x = blocks.reshape(-1, 8, 32)
    weight = np.sqrt(np.mean(x * x, axis=-1, keepdims=True)) + np.abs(x)
    scale, minimum = fit_with_minimum(x, weight, levels, wider)
    d, s = _six_bits(scale)
    dmin, m = _six_bits(minimum)
    stored, shift = half(half_bytes(d)) * s, half(half_bytes(dmin)) * m
    q = np.rint((x + shift[:, :, None]) * inverse(stored)[:, :, None]).clip(0, levels).astype(np.uint8)
    return np.concatenate([half_bytes(d), half_bytes(dmin), _pack_scales(s, m)], axis=-1), q.reshape(-1, 256)


def _nibbles(q: Array) -> Array:
    """Two runs of 32 share 32 bytes: ``n 256`` -> ``n 128``."""
    pairs = q.reshape(-1, 4, 2, 32)
    return (pairs[:, :, 0] | pairs[:, :, 1] << np.uint8(4)).reshape(-1, 128)


def pack_q6_k(blocks: Array) -> Array:
    """256 weights -> 210 bytes."""
    x = blocks.reshape(-1, 16, 16)
    scale = fit_centred(x, 32)
    top = largest(scale)
    top = np.where(np.abs(top) < TINY, 0, top)
    s = np.rint(scale * (np.float32(-128) * inverse(top))).clip(-128, 127).astype(np.int8)
    d = half_bytes(top / np.float32(-128))
    stored = half(d) * s
    q = np.rint(x * inverse(stored)[:, :, None]).clip(-32, 31)
    q = np.where(stored[:, :, None] != 0, q + 32, np.where(top[:, :, None] != 0, 32, 0)).astype(np.uint8).reshape(-1, 2, 4, 32)
    low = (q[:, :, :2] & 15) | (q[:, :, 2:] & 15) << np.uint8(4)
    high = q[:, :, 0] >> 4 | q[:, :, 1] >> 4 << 2 | q[:, :, 2] >> 4 << 4 | q[:, :, 3] >> 4 << 6
    return np.concatenate([low.reshape(-1, 128), high.reshape(-1, 64), s.view(np.uint8), d], axis=-1)


def fit_with_minimum(x: Array, weight: Array, levels: int, wider: Array) -> tuple[Array, Array]:
    """(scale, minimum) with w ≈ scale · q − minimum, q in 0 … levels, minimum ≥ 0: least Σ weight · error².

    The first guess spreads the levels evenly between the least and the greatest weight; then spreads of ``wider`` tenths of a
    level more are rounded to, each gets the scale and minimum that fit it best, and the next begins at the best minimum so far.
    x, weight: ``… n``; results ``…``.
    """
    greatest, shift = x.max(axis=-1), np.minimum(x.min(axis=-1), 0)
    scale = (greatest - shift) / np.float32(levels)
    best = np.full(scale.shape, np.inf)
    fixed = _sum(weight), _dot(weight, x), _dot(weight * x, x)
    q, wq = np.empty_like(x), np.empty_like(x)  # written over in every round: new memory would cost more than the sums
    for tenths in (None, *wider):
        per = np.float32(levels + 0.1 * (tenths or 0)) * inverse(greatest - shift)
        np.subtract(x, shift[..., None], out=q)
        np.multiply(q, per[..., None], out=q)
        np.clip(np.rint(q, out=q), 0, levels, out=q)
        np.multiply(weight, q, out=wq)
        sums = _sum(wq), _dot(wq, q), _dot(wq, x)
        new_scale, new_shift = (scale, shift) if tenths is None else _line(*fixed[:2], *sums)
        error = _error(new_scale, new_shift, *fixed, *sums)
        better = (error < best) & (new_scale > 0)
        found = (error, best), (new_scale, scale), (new_shift, shift)
        best, scale, shift = (np.where(better, new, old) for new, old in found)
    return scale, -shift


def _line(w: Array, wx: Array, wq: Array, wqq: Array, wqx: Array) -> tuple[Array, Array]:
    """Scale and shift ≤ 0 of the line through (q, x), by weighted least squares; the arguments are sums of products."""
    per = inverse(np.maximum(w * wqq - wq * wq, 0))
    scale, shift = (w * wqx - wx * wq) * per, (wqq * wx - wq * wqx) * per
    scale = np.where(shift > 0, wqx * inverse(wqq), scale)
    return scale.astype(np.float32), np.minimum(shift, 0).astype(np.float32)


def _error(scale: Array, shift: Array, w: Array, wx: Array, wxx: Array, wq: Array, wqq: Array, wqx: Array) -> Array:
    """Σ weight · (scale · q + shift − x)², from sums of products."""
    return scale * (scale * wqq + 2 * shift * wq - 2 * wqx) + shift * (shift * w - 2 * wx) + wxx


def _sum(values: Array) -> Array:
    """Sums of groups; float64, since small differences of large sums are taken."""
    return values.sum(axis=-1, dtype=np.float64)


def _dot(a: Array, b: Array) -> Array:
    return np.einsum("...i,...i", a, b).astype(np.float64)


def fit_centred(x: Array, levels: int) -> Array:
    """The scale s with w ≈ s · q, q in −levels … levels − 1, of least Σ w² · error², over 19 ways of rounding: ``…``.

    For given q the best s is Σ w²·w·q / Σ w²·q², and lowers the error by (Σ w²·w·q)² / Σ w²·q²: that is compared.
    """
    top = largest(x)
    per = -inverse(np.where(np.abs(top) < TINY, 0, top))
    weight = x * x
    best = np.full(x.shape[:-1], -np.inf)
    scale = np.zeros(x.shape[:-1], np.float32)
    q, wq = np.empty_like(x), np.empty_like(x)
    for step in (0, *range(-9, 0), *range(1, 10)):
        np.multiply(x, np.float32(levels + 0.1 * step) * per, out=q)
        np.clip(np.rint(q, out=q), -levels, levels - 1, out=q)
        np.multiply(weight, q, out=wq)
        along, per_square = _dot(wq, x), inverse(_dot(wq, q))
        gain = along * along * per_square
        scale, best = np.where(gain > best, along * per_square, scale), np.maximum(gain, best)
    return scale.astype(np.float32)


def _six_bits(values: Array) -> tuple[Array, Array]:
    """(d, s) with values ≈ d · s, s in 0 … 63: ``n 8`` -> ``n 1``, ``n 8``."""
    top = values.max(axis=-1, keepdims=True).clip(0)
    s = np.rint(np.float32(63) * inverse(top) * values).clip(0, 63).astype(np.uint8)
    return top / np.float32(63), s
