"""What every format of weights in blocks needs for its scales: their bytes, their inverse, and the weight that sets them."""

import numpy as np

Array = np.ndarray


def half(data: Array) -> Array:
    """Pairs of bytes as float16, in float32: ``n 2k`` -> ``n k``."""
    return np.ascontiguousarray(data).view(np.float16).astype(np.float32)


def half_bytes(values: Array) -> Array:
    """float32 as the bytes of float16: ``n k`` -> ``n 2k``."""
    return np.ascontiguousarray(values.astype(np.float16)).view(np.uint8)


def inverse(scale: Array) -> Array:
    """1 / scale, and 0 where that is no finite number."""
    with np.errstate(divide="ignore", over="ignore"):
        result = np.float32(1) / scale
    return np.where(np.isfinite(result), result, np.float32(0))


def largest(blocks: Array) -> Array:
    """Of each block the weight of largest magnitude, with its sign: ``… n`` -> ``… 1``."""
    return np.take_along_axis(blocks, np.abs(blocks).argmax(axis=-1, keepdims=True), axis=-1)
