"""GGUF as a file: what the package gguf writes is read, what we write it reads, and what is broken or hostile is refused."""

import struct
import tracemalloc

import numpy as np
import pytest
import torch

from chainrule.adapt.blocks import FORMATS
from chainrule.core.errors import CheckpointError
from chainrule.hub.gguf.mix import mix, more_bits
from chainrule.hub.gguf.read import GGUF
from chainrule.hub.gguf.write import write_gguf

METADATA = {
    "general.architecture": "llama", "general.name": "tiny 小", "a.count": 7, "a.long": 2**40, "a.fraction": 0.5,
    "a.truth": True, "a.words": ["one", "", "三"], "a.numbers": [3, -4], "a.fractions": [0.25, -1.5], "a.truths": [True, False],
    "a.nothing": [],
}  # fmt: skip


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"token_embd.weight": (5, 256), "blk.0.attn_q.weight": (3, 64), "one.weight": (7,), "cube": (2, 3, 32)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


@pytest.fixture
def file(tmp_path):
    formats = {"token_embd.weight": "Q4_K", "blk.0.attn_q.weight": "Q8_0", "one.weight": "F32", "cube": "F16"}
    write_gguf(tmp_path / "x.gguf", METADATA, tensors(), formats)
    return tmp_path / "x.gguf"


def test_what_is_written_is_read_back(file):
    read, wanted = GGUF(file), tensors()
    assert read.metadata == METADATA
    assert {name: slot.shape for name, slot in read.slots.items()} == {name: tuple(t.shape) for name, t in wanted.items()}
    assert torch.equal(read.tensor("one.weight"), wanted["one.weight"])
    assert torch.equal(read.tensor("cube"), wanted["cube"].half())
    torch.testing.assert_close(read.tensor("blk.0.attn_q.weight"), wanted["blk.0.attn_q.weight"], atol=0.015, rtol=0)
    torch.testing.assert_close(read.tensor("token_embd.weight"), wanted["token_embd.weight"], atol=0.25, rtol=0)


def test_the_package_gguf_reads_what_we_write(file):
    gguf = pytest.importorskip("gguf")
    theirs, ours = gguf.GGUFReader(file), GGUF(file)
    found = {key: field.contents() for key, field in theirs.fields.items() if not key.startswith("GGUF.")}
    assert found == METADATA
    assert {tensor.name for tensor in theirs.tensors} == set(ours.slots)
    for tensor in theirs.tensors:
        values = gguf.quants.dequantize(np.array(tensor.data), tensor.tensor_type)
        np.testing.assert_array_equal(values.reshape(ours.slots[tensor.name].shape), ours.tensor(tensor.name).float().numpy())


def test_what_the_package_gguf_writes_we_read(tmp_path):
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "qwen2")
    writer.add_custom_alignment(64)
    writer.add_context_length(32)
    writer.add_array("a.words", ["x", "yz"])
    weights = np.random.default_rng(0).normal(size=(4, 64)).astype(np.float32)
    writer.add_tensor("plain", weights)
    for name in ("Q4_0", "Q5_1", "Q8_0", "BF16"):
        kind = gguf.GGMLQuantizationType[name]
        writer.add_tensor(name, gguf.quants.quantize(weights, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    read = GGUF(tmp_path / "theirs.gguf")
    assert read.metadata["qwen2.context_length"] == 32
    assert read.metadata["a.words"] == ["x", "yz"]
    np.testing.assert_array_equal(read.tensor("plain").numpy(), weights)
    for name in ("Q4_0", "Q5_1", "Q8_0", "BF16"):
        kind = gguf.GGMLQuantizationType[name]
        expected = gguf.quants.dequantize(gguf.quants.quantize(weights, kind), kind)
        np.testing.assert_array_equal(read.tensor(name).float().numpy(), expected)


def test_floats_stay_on_the_pages_of_the_file(tmp_path):
    write_gguf(tmp_path / "big.gguf", {}, {"w": torch.ones(1 << 20)}, {"w": "F32"})
    tracemalloc.start()
    tensor = GGUF(tmp_path / "big.gguf").tensor("w")
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()
    assert tensor.sum() == 1 << 20


# what is refused


def string(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def header(*, magic=b"GGUF", version=3, n_tensors=0, n_keys=0) -> bytes:
    return magic + struct.pack("<IQQ", version, n_tensors, n_keys)


def row(name="w", dims=(32,), kind=0, offset=0) -> bytes:
    return string(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def padded(head: bytes, size: int) -> bytes:
    return head + bytes(-len(head) % 32) + bytes(size)


KEY = header(n_keys=1) + string("a")
WRONG = {
    "an empty file": (b"", "cannot be read"),
    "another file": (b"PK\x03\x04" + bytes(40), "is no GGUF file: it begins with"),
    "an old version": (header(version=1) + bytes(40), "version 1; only versions 2 and 3 can be read"),
    "a big-endian file": (header(version=3 << 24) + bytes(40), "big-endian"),
    "a cut off header": (header(n_keys=3)[:15], "bytes are left|bytes, but"),
    "absurdly many keys": (header(n_keys=2**61), "keys are claimed"),
    "absurdly many tensors": (header(n_tensors=2**63), "tensors are claimed"),
    "a key without end": (header(n_keys=1) + struct.pack("<Q", 2**63) + bytes(40), "more than the 65,535 allowed"),
    "a key that is no text": (header(n_keys=1) + struct.pack("<Q", 2) + b"\xff\xfe" + bytes(40), "is not UTF-8"),
    "a string without end": (KEY + struct.pack("<IQ", 8, 9_000_000) + bytes(40), "needs 9,000,000 bytes"),
    "a string beyond the cap": (KEY + struct.pack("<IQ", 8, 2**40) + bytes(40), "10,000,000 allowed"),
    "an unknown type": (KEY + struct.pack("<I", 99) + bytes(40), "type 99"),
    "a truth value of 2": (KEY + struct.pack("<IB", 7, 2) + bytes(40), "neither 0 nor 1"),
    "a list without end": (KEY + struct.pack("<IIQ", 9, 4, 2**60) + bytes(40), "are claimed"),
    "a list that overflows": (KEY + struct.pack("<IIQ", 9, 12, 2**61) + bytes(40), "are claimed"),
    "lists in lists": (KEY + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 40 + bytes(40), "nested deeper than 4"),
    "a key twice": (header(n_keys=2) + (string("a") + struct.pack("<IB", 0, 1)) * 2 + bytes(40), "second time"),
    "an odd alignment": (header(n_keys=1) + string("general.alignment") + struct.pack("<II", 4, 12) + bytes(40), "multiple of 8"),
    "no alignment": (header(n_keys=1) + string("general.alignment") + struct.pack("<II", 4, 0) + bytes(40), "multiple of 8"),
    "a name without end": (header(n_tensors=1) + struct.pack("<Q", 65) + bytes(140), "more than the 64 allowed"),
    "too many dimensions": (padded(header(n_tensors=1) + row(dims=(1,) * 5), 64), "5 dimensions"),
    "no dimensions": (padded(header(n_tensors=1) + row(dims=()), 64), "0 dimensions"),
    "a dimension of zero": (padded(header(n_tensors=1) + row(dims=(32, 0)), 64), "does not fit"),
    "sizes that overflow": (padded(header(n_tensors=1) + row(dims=(2**33, 2**33, 2**33)), 64), "but 64 are there"),
    "a tensor beyond the end": (padded(header(n_tensors=1) + row(), 64), "needs bytes 0 to 128, but 64 are there"),
    "an offset beyond the end": (padded(header(n_tensors=1) + row(offset=2**62), 128), "are there"),
    "an offset between": (padded(header(n_tensors=1) + row(offset=8), 256), "no multiple of 32"),
    "tensors on top of each other": (padded(header(n_tensors=2) + row("a") + row("b"), 256), "begins inside the one before it"),
    "a tensor twice": (padded(header(n_tensors=2) + row("a") + row("a", offset=128), 256), "second time"),
    "an unknown format": (padded(header(n_tensors=1) + row(kind=77), 256), "format 77"),
    "a format that is not read": (padded(header(n_tensors=1) + row(kind=16), 256), "IQ format"),
    "half a block": (padded(header(n_tensors=1) + row(dims=(33,), kind=8), 256), "does not fit the blocks of Q8_0"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_broken_file_is_refused_with_what_is_wrong(what, tmp_path):
    data, message = WRONG[what]
    (tmp_path / "bad.gguf").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=message):
        GGUF(tmp_path / "bad.gguf")
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


HOLLOW = {
    "a list of numbers": (KEY + struct.pack("<IIQ", 9, 2, 2**30), "the lists longer than the 16,777,216 items allowed"),
    "a list of truths": (KEY + struct.pack("<IIQ", 9, 7, 2**31), "the lists longer than the 16,777,216 items allowed"),
    "a list of empty strings": (KEY + struct.pack("<IIQ", 9, 8, 2**28), "the lists longer than the 16,777,216 items allowed"),
    "a list of lists": (KEY + struct.pack("<IIQ", 9, 9, 2**27), "the lists longer than the 16,777,216 items allowed"),
    "a list in a list": (
        KEY + struct.pack("<IIQ", 9, 9, 2) + struct.pack("<IQ", 4, 1) + bytes(4) + struct.pack("<IQ", 4, 2**24),
        "16,777,216 items of a make the lists longer",
    ),
    "keys": (header(n_keys=2**27), "134,217,728 keys are claimed, more than the 1,048,576 and 65,536 allowed"),
    "tensors": (header(n_tensors=2**26), "67,108,864 tensors and 0 keys are claimed"),
}  # fmt: skip


def hollow(path, head: bytes):
    """A file of four gigabytes that is one hole behind its first bytes: it costs nothing to make."""
    path.write_bytes(head)
    with path.open("r+b") as file:
        file.truncate(4 << 30)
    return path


@pytest.mark.parametrize("what", HOLLOW)
def test_a_file_that_is_one_hole_buys_no_memory_with_its_length(what, tmp_path):
    head, message = HOLLOW[what]
    path = hollow(tmp_path / "hollow.gguf", head)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=message):
        GGUF(path)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_a_header_is_no_longer_than_a_model_could_need(tmp_path):
    """Forty strings of zeros, each as long as one may be: the hole they lie in is read to the limit and no further."""
    path = hollow(tmp_path / "hollow.gguf", KEY + struct.pack("<IIQ", 9, 8, 40))
    with path.open("r+b") as file:
        for i in range(40):
            file.seek(len(KEY) + 16 + i * 10_000_008)
            file.write(struct.pack("<Q", 10_000_000))
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="makes the header longer than the 268,435,456 bytes allowed"):
        GGUF(path)
    assert tracemalloc.get_traced_memory()[1] < 300e6
    tracemalloc.stop()


HUGE = (2**63, 2**64 - 1, 2**32, 2**31, 255, 0)


def test_mutated_headers_are_read_or_refused_and_nothing_else(file, tmp_path):
    """Bytes changed, lengths blown up, ends cut off: 1,500 files, each read or refused with a CheckpointError."""
    data, random = file.read_bytes(), np.random.default_rng(0)
    bad, refused = tmp_path / "mutated.gguf", 0
    for _ in range(1500):
        broken = bytearray(data)
        for _ in range(random.integers(1, 4)):
            at = int(random.integers(0, 900))
            if random.random() < 0.3:
                broken[at : at + 8] = struct.pack("<Q", HUGE[random.integers(len(HUGE))])
            else:
                broken[at] = int(random.integers(0, 256))
        bad.write_bytes(broken[: random.integers(1, len(broken))] if random.random() < 0.2 else broken)
        try:
            read = GGUF(bad)
            assert all(read.tensor(name).shape == slot.shape for name, slot in read.slots.items())
        except CheckpointError:
            refused += 1
    assert 500 < refused < 1500


# the mixes


def test_the_layers_with_more_bits_by_hand():
    """Of 32 layers: the first 4, the last 4, and of those between every third, from 6 on."""
    more = [layer for layer in range(32) if more_bits(layer, 32)]
    assert more == [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]


def shapes(width: int, *, tied: bool = False) -> dict[str, tuple[int, ...]]:
    blocks = {
        f"blk.{i}.{name}.weight": (width, width)
        for i in range(8)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_down")
    }
    rest = {"token_embd.weight": (99, width), "output_norm.weight": (width,), "blk.0.attn_q_norm.weight": (2, width),
            "blk.0.attn_q.bias": (width,), "blk.0.ffn_gate_inp.weight": (4, width)}  # fmt: skip
    return blocks | rest | ({} if tied else {"output.weight": (99, width)})


def test_q4_k_m_gives_more_bits_where_llama_cpp_does():
    found = mix(shapes(256), "q4_k_m", n_layers=8)
    six = {name for name, kind in found.items() if kind == "Q6_K"}
    layers = [i for i in range(8) if more_bits(i, 8)]
    assert six == {"output.weight", *(f"blk.{i}.{name}.weight" for i in layers for name in ("attn_v", "ffn_down"))}
    kept = ("output_norm.weight", "blk.0.attn_q_norm.weight", "blk.0.attn_q.bias", "blk.0.ffn_gate_inp.weight")
    assert {found.pop(name) for name in kept} == {"F32"}
    assert set(found.values()) == {"Q4_K", "Q6_K"}
    assert mix(shapes(256, tied=True), "q4_k_m", n_layers=8)["token_embd.weight"] == "Q6_K"


def test_rows_that_do_not_fit_fall_back_as_in_llama_cpp():
    found = mix(shapes(96), "q4_k_m", n_layers=8)
    assert (found["blk.2.attn_q.weight"], found["blk.0.attn_v.weight"], found["output.weight"]) == ("Q5_0", "Q8_0", "Q8_0")
    assert set(mix(shapes(24), "q4_0", n_layers=8).values()) == {"F16", "F32"}
    eight = mix(shapes(256), "q4_k_m", n_layers=8, n_experts=8)
    assert [eight[f"blk.2.attn_{x}.weight"] for x in ("q", "k", "v", "output")] == ["Q4_K", "Q8_0", "Q8_0", "Q5_K"]


def test_every_mix_names_formats_that_can_be_written():
    for kind in ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_k_m", "q6_k"):
        for width in (24, 96, 256):
            assert all(FORMATS[one].pack_blocks for one in mix(shapes(width), kind, n_layers=8, n_experts=8).values())
