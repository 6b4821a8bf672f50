"""Loading takes the weights themselves and one file of them more, measured in processes of their own.

The files are hollow: the layout of a model whose every number is zero, in a few kilobytes of disk.
"""

import json
import math
import struct
import subprocess
import sys

import pytest

from chainrule.hub.build import shapes

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux' /proc/self")

MEASURE = """
import re, sys, threading, torch
import chainrule.models.decoder, chainrule.models.families.gpt2, chainrule.models.families.llama, chainrule.models.routes
from chainrule.hub.load import load
from chainrule.hub.trace import PAGE, anonymous_bytes

def resident():
    return [int(pages) * PAGE for pages in open("/proc/self/statm").read().split()[1:3]]  # in all, and backed by files

class Peak(threading.Thread):
    most = 0

    def run(self):
        while not done.wait(0.002):
            self.most = max(self.most, resident()[1])

torch.set_num_threads(1)
before, told, done, peak = [], [], threading.Event(), Peak(daemon=True)

def listen(step):
    if step.stage == "resolve":
        before.extend((*resident(), anonymous_bytes()))
        peak.start()
    told.append(step.anonymous_bytes)

model = load(sys.argv[1], device="cpu", dtype=sys.argv[2], trace=listen).model
done.set()
peak.join()
whole = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) * 1024
print(sum(tensor.numel() for tensor in model.parameters()), whole - before[0], peak.most - before[1], max(told) - before[2])
"""
SLACK, ROUNDED = 32 * 2**20, 1.15
"""What a process takes besides; and how much larger weights are in memory, where each is rounded up to large pages."""
D, F, LAYERS, HEADS, VOCAB, CONTEXT = 1024, 2816, 4, 16, 8192, 64
LLAMA = {
    "model_type": "llama", "vocab_size": VOCAB, "hidden_size": D, "intermediate_size": F, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "max_position_embeddings": CONTEXT, "tie_word_embeddings": False,
}  # fmt: skip


def measured(path, dtype):
    """(parameters, growth at its peak of resident memory, of that which files back, and of that which none backs) of a load."""
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path), dtype], check=True, capture_output=True, text=True)
    return tuple(map(int, done.stdout.split()))


def hole(path, head, size_bytes):
    """A file that begins with ``head`` and goes on in zeros that no disk holds."""
    with path.open("wb") as file:
        file.write(head)
        file.truncate(size_bytes)
    return path


def hollow_shards(folder, n):
    """A folder of ``n`` files of zeros in bf16; returns it and the size of the largest."""
    table = {f"model.{name}" if name != "lm_head.weight" else name: t.shape for name, t in shapes(LLAMA).state_dict().items()}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA))
    index, sizes = {}, []
    for i in range(n):
        header, at = {}, 0
        for name in list(table)[i * len(table) // n : (i + 1) * len(table) // n]:
            end = at + 2 * math.prod(table[name])
            header[name] = {"dtype": "BF16", "shape": list(table[name]), "data_offsets": [at, end]}
            index[name], at = f"model-{i}.safetensors", end
        raw = json.dumps(header).encode()
        hole(folder / f"model-{i}.safetensors", len(raw).to_bytes(8, "little") + raw, 8 + len(raw) + at)
        sizes.append(at)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return folder, max(sizes)


def test_a_checkpoint_in_shards_takes_its_weights_and_one_shard(tmp_path):
    folder, shard = hollow_shards(tmp_path / "m", 5)
    parameters, resident, pages, _ = measured(folder, "fp32")
    assert resident < ROUNDED * 4 * parameters + shard + SLACK
    assert shard / 2 < pages < shard + SLACK / 2 < 2 * shard  # another one that is still resident would be seen


def llama2c(path):
    layer = 4 * D * D + 3 * F * D + 2 * D
    numbers = 2 * VOCAB * D + LAYERS * layer + D + CONTEXT * D // HEADS
    return hole(path, struct.pack("<7i", D, F, LAYERS, HEADS, HEADS, -VOCAB, CONTEXT), 28 + 4 * numbers)


def llama2c_int8(path):
    matrices = 2 * VOCAB * D + LAYERS * (4 * D * D + 3 * F * D)
    head = b"24ka" + struct.pack("<i7iBi", 2, D, F, LAYERS, HEADS, HEADS, VOCAB, CONTEXT, 0, 64)
    return hole(path, head, 256 + 4 * D * (2 * LAYERS + 1) + matrices + matrices // 64 * 4)


def llmc(path):
    numbers = (VOCAB + CONTEXT) * D + LAYERS * (12 * D * D + 13 * D) + 2 * D
    return hole(path, struct.pack("<8i", 20240326, 3, CONTEXT, VOCAB, LAYERS, HEADS, D, VOCAB), 1024 + 4 * numbers)


@pytest.mark.parametrize(("write", "copied"), [(llama2c, 2 * LAYERS * D * D), (llmc, 0)])
def test_a_file_of_bare_numbers_stays_on_its_pages(write, copied, tmp_path):
    """All but q and k of llama2.c, whose rows stand in another order there."""
    parameters, _, _, anonymous = measured(write(tmp_path / "m.bin"), "auto")
    assert anonymous < ROUNDED * 4 * copied + SLACK < 4 * parameters / 2


@pytest.mark.parametrize(("write", "dtype", "width"), [(llama2c_int8, "auto", 4), (llmc, "bf16", 2)])
def test_in_another_format_it_takes_the_weights_and_its_own_pages(write, dtype, width, tmp_path):
    path = write(tmp_path / "m.bin")
    size, largest = path.stat().st_size, 4 * VOCAB * D
    parameters, resident, _, _ = measured(path, dtype)
    assert resident < ROUNDED * width * parameters + size + largest + SLACK < 2 * width * parameters + size
