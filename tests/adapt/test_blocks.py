"""Weights in blocks: a block by hand, then bit for bit what the package gguf writes and reads, then how much is lost."""

import numpy as np
import pytest

from chainrule.adapt.blocks import FORMATS, format_of, pack, unpack
from chainrule.core.errors import ConfigError

SIMPLE = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
ALL = tuple(FORMATS)


def weights(*shape: int, seed: int = 0) -> np.ndarray:
    """Normal weights with a few outliers, an all-zero block, and values that lie on the borders of rounding."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=shape).astype(np.float32) * 0.05
    x[..., 7] *= 20
    x[0, :256] = 0
    x[1, :256] = np.repeat(np.arange(-4, 4, dtype=np.float32) / 2, 32)
    return x


def test_a_q4_0_block_by_hand():
    """The greatest weight −4 sets d = −4 / −8 = 0.5; each weight is round(w / d) + 8, two to a byte."""
    w = np.zeros((1, 32), np.float32)
    w[0, :4], w[0, 16:18] = [-4, 3.5, 1, -0.6], [2, 1.24]
    data = pack(w, "Q4_0")[0]
    assert data[:2].tobytes() == np.float16(0.5).tobytes()
    q = [0, 15, 10, 7] + [8] * 12 + [12, 10] + [8] * 14
    assert data[2:].tolist() == [q[i] | q[i + 16] << 4 for i in range(16)]
    back = [-4, 3.5, 1, -0.5] + [0] * 12 + [2, 1] + [0] * 14
    assert unpack(data[None], "Q4_0")[0].tolist() == back


def test_a_q8_0_block_by_hand():
    """The greatest magnitude 127 sets d = 1; each weight is rounded to a signed byte."""
    w = np.zeros((1, 32), np.float32)
    w[0, :4] = [127, -3.4, 2.5, -2.5]
    data = pack(w, "Q8_0")
    assert data[0, 2:6].view(np.int8).tolist() == [127, -3, 3, -3]
    assert unpack(data, "Q8_0")[0, :4].tolist() == [127, -3, 3, -3]


def test_a_q4_k_block_by_hand():
    """Eight groups with the same line from −1 to 2: a minimum of 1, steps of 3 / 15 = 0.2, sixty-thirds of d and dmin."""
    w = np.tile(np.linspace(-1, 2, 16, dtype=np.float32), 16)[None]
    data = pack(w, "Q4_K")
    d, dmin = data[0, :4].view(np.float16)
    assert (d * 63, dmin * 63) == (pytest.approx(0.2, rel=1e-3), pytest.approx(1, rel=1e-3))
    assert data[0, 16:32].tolist() == [q | q << 4 for q in range(16)]
    assert np.abs(unpack(data, "Q4_K") - w).max() < 2e-3


def test_what_a_weight_costs_in_each_format():
    assert [format_of(name).bits for name in ("F32", "Q8_0", "Q6_K", "Q4_K", "Q4_0")] == [32, 8.5, 6.5625, 4.5, 4.5]


@pytest.mark.parametrize("name", SIMPLE)
def test_the_simple_formats_are_written_bit_for_bit_as_gguf_writes_them(name):
    gguf = pytest.importorskip("gguf")
    x = weights(5, 512)
    theirs = gguf.quants.quantize(x, gguf.GGMLQuantizationType[name])
    assert pack(x, name).tobytes() == theirs.tobytes()


@pytest.mark.parametrize("name", ALL)
def test_every_format_is_read_bit_for_bit_as_gguf_reads_it(name):
    """From random bytes, so that every field takes every value."""
    gguf = pytest.importorskip("gguf")
    kind = FORMATS[name]
    data = np.random.default_rng(1).integers(0, 256, (6, 4 * kind.size_bytes), dtype=np.uint8)
    data = data & 0xBF if kind.weights == 1 else data  # no NaN, no infinity
    if name == "MXFP4":
        data[:, :: kind.size_bytes] = data[:, :: kind.size_bytes].clip(1, 200)
    with np.errstate(invalid="ignore", over="ignore"):
        theirs, ours = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[name]), unpack(data, name)
    np.testing.assert_array_equal(ours, theirs.reshape(ours.shape))


@pytest.mark.parametrize(
    ("name", "most"), [("Q4_K", 0.075), ("Q5_K", 0.037), ("Q6_K", 0.020), ("Q4_0", 0.105), ("Q8_0", 0.0065)]
)
def test_the_error_left_is_that_of_llama_cpp(name, most):
    """Root mean square of error over weight, on normal weights; the bounds are what ggml's own quantizers leave, rounded up."""
    x = np.random.default_rng(2).normal(size=(64, 1024)).astype(np.float32)
    error = unpack(pack(x, name), name) - x
    assert np.sqrt(np.mean(error**2) / np.mean(x**2)) < most


def test_the_search_beats_the_first_guess():
    from chainrule.adapt.kquants import WIDER, fit_centred, fit_with_minimum

    x = np.random.default_rng(3).normal(size=(200, 32)).astype(np.float32)
    scale, minimum = (part[:, None] for part in fit_with_minimum(x, np.ones_like(x), 15, WIDER[15]))
    q = np.rint((x + minimum) / scale).clip(0, 15)
    found = np.mean((scale * q - minimum - x) ** 2, axis=1)
    low, high = x.min(1, keepdims=True), x.max(1, keepdims=True)
    guess = np.mean((np.rint((x - low) / (high - low) * 15) / 15 * (high - low) + low - x) ** 2, axis=1)
    assert (found <= guess * 1.0001).all()
    assert found.mean() < 0.9 * guess.mean()
    s = fit_centred(np.full((1, 16), 0.5, np.float32), 32)
    assert abs(float(s[0])) * 32 == pytest.approx(0.5, rel=0.05)


def test_zeros_stay_zeros_and_constants_survive():
    for name in ("Q4_0", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "Q5_0"):
        assert not unpack(pack(np.zeros((2, 256), np.float32), name), name).any()
        constant = np.full((1, 256), -0.75, np.float32)
        np.testing.assert_allclose(unpack(pack(constant, name), name), constant, rtol=2e-3)
    positive = np.full((1, 256), 0.75, np.float32)  # no minimum below zero is needed
    np.testing.assert_allclose(unpack(pack(positive, "Q4_K"), "Q4_K"), positive, rtol=1e-2)


@pytest.mark.parametrize("name", [name for name in ALL if FORMATS[name].pack_blocks and FORMATS[name].weights > 1])
def test_weights_too_small_for_an_inverse_become_zero(name):
    with np.errstate(invalid="raise", over="raise"):
        assert not unpack(pack(np.full((1, 256), 1e-42, np.float32), name), name).any()


def test_rows_that_are_not_whole_blocks_and_unknown_formats_are_refused():
    with pytest.raises(ConfigError, match="33 weights is not whole blocks of Q8_0, which hold 32"):
        pack(np.zeros((1, 33), np.float32), "Q8_0")
    with pytest.raises(ConfigError, match="35 bytes"):
        unpack(np.zeros((1, 35), np.uint8), "Q8_0")
    with pytest.raises(ConfigError, match="did you mean 'Q4_0'"):
        pack(np.zeros((1, 32), np.float32), "Q4_00")
    with pytest.raises(ConfigError, match="did you mean 'Q8_0'"):
        unpack(np.zeros((1, 34), np.uint8), "Q8_O")
    with pytest.raises(ConfigError, match="Q2_K is read here, not written"):
        pack(np.zeros((1, 256), np.float32), "Q2_K")
