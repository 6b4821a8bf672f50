"""The safetensors format: what we write others read, what others write we read, and what is hostile is refused."""

import json
import struct
import tracemalloc

import pytest
import safetensors.torch
import torch

from chainrule.core.errors import CheckpointError
from chainrule.hub.safetensors import DTYPES, Mapped, read_header, write_tensors


def file(path, header, data=b""):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def entry(begin, end, shape=None, dtype="U8"):
    return {"dtype": dtype, "shape": [end - begin] if shape is None else shape, "data_offsets": [begin, end]}


def tensors():
    generator = torch.Generator().manual_seed(0)
    made = {code: torch.randint(0, 100, (3, 5), generator=generator).to(dtype) for code, dtype in DTYPES.items()}
    return made | {
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 4),
        "transposed": torch.randn(3, 2, generator=generator).mT,
    }


def test_what_we_write_the_library_reads(tmp_path):
    write_tensors(tensors(), tmp_path / "a.safetensors")
    theirs = safetensors.torch.load_file(tmp_path / "a.safetensors")
    assert set(theirs) == set(tensors())
    for name, tensor in tensors().items():
        assert theirs[name].dtype == tensor.dtype
        assert torch.equal(theirs[name].float(), tensor.float()), name


def test_what_the_library_writes_we_read(tmp_path):
    ours = {name: tensor.contiguous() for name, tensor in tensors().items()}
    safetensors.torch.save_file(ours, tmp_path / "a.safetensors", metadata={"format": "pt"})
    file = Mapped(tmp_path / "a.safetensors")
    assert set(file.slots) == set(ours)
    for name, tensor in ours.items():
        assert file.tensor(name).shape == tensor.shape
        assert torch.equal(file.tensor(name).float(), tensor.float()), name


def test_a_write_to_a_mapped_tensor_leaves_the_file_alone(tmp_path):
    write_tensors({"a": torch.ones(4)}, tmp_path / "a.safetensors")
    before = (tmp_path / "a.safetensors").read_bytes()
    tensor = Mapped(tmp_path / "a.safetensors").tensor("a")
    tensor += 1
    assert tensor.tolist() == [2, 2, 2, 2]
    assert (tmp_path / "a.safetensors").read_bytes() == before


def test_a_tensor_at_an_odd_address_is_read_all_the_same(tmp_path):
    data = b"\x07" + struct.pack("<f", 1.5)
    file(tmp_path / "odd", {"a": entry(0, 1), "b": entry(1, 5, [1], "F32")}, data)
    assert Mapped(tmp_path / "odd").tensor("b").tolist() == [1.5]


HOSTILE = {
    "nothing": (b"", "claims 0 bytes"),
    "four bytes": (b"\x08\x00\x00\x00", "claims 0 bytes"),
    "a header as long as memory": (struct.pack("<Q", 2**62) + b"{}", "claims 4,611"),
    "a header longer than the file": (struct.pack("<Q", 100) + b"{}", "claims 100 bytes"),
    "a pointer of git lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "no JSON": (b'{"a":', "not JSON"),
    "nested beyond reason": (b"[" * 100_000, "not JSON"),
    "a list": (b"[1]", "no table"),
    "a name twice": (b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', "there twice"),
    "an entry that is none": ({"a": 3}, "has no dtype"),
    "an unknown format": ({"a": entry(0, 1, dtype="F13")}, "unknown number format 'F13'"),
    "a negative size": ({"a": entry(0, 1, [-1])}, "whole numbers"),
    "a size of truth": ({"a": entry(0, 1, [True])}, "whole numbers"),
    "a size that is no number": ({"a": entry(0, 1, ["1"])}, "whole numbers"),
    "a size that overflows": ({"a": entry(0, 4, [2**62, 2**62, 4])}, "its offsets are"),
    "a hundred dimensions": ({"a": entry(0, 1, [1] * 100)}, "whole numbers"),
    "offsets backwards": ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 0]}}, "its offsets are"),
    "beyond the end": ({"a": entry(0, 99)}, "fill 99 bytes"),
    "overlapping": ({"a": entry(0, 4), "b": entry(2, 6)}, "begins at byte 2"),
    "a hole": ({"a": entry(0, 2), "b": entry(3, 4)}, "begins at byte 3"),
    "data that nothing names": ({"a": entry(0, 2)}, "fill 2 bytes"),
    "a number of a million digits": (b'{"a":' + b"9" * 1_000_000 + b"}", "not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_or_cut_off_file_is_refused_in_bounded_memory(case, tmp_path):
    header, because = HOSTILE[case]
    whole = isinstance(header, bytes) and header[:1] not in (b"{", b"[")
    path = tmp_path / "bad"
    path.write_bytes(header) if whole else file(path, header, b"\0" * 8 if case != "no JSON" else b"")
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=because):
        Mapped(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_every_cut_of_a_good_file_is_refused(tmp_path):
    write_tensors({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.int64)}, tmp_path / "good")
    data = (tmp_path / "good").read_bytes()
    for length in range(len(data)):
        (tmp_path / "cut").write_bytes(data[:length])
        with pytest.raises(CheckpointError, match="damaged or cut off"):
            read_header(tmp_path / "cut")
