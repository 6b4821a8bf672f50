"""Plans of several devices, and of activations that are computed again: what one device holds, multiplies and sends, by hand."""

from dataclasses import replace

import pytest

from chainrule.eval.anatomy import Anatomy
from chainrule.eval.counted import count
from chainrule.eval.devices import device
from chainrule.eval.flops import flops, training_flops
from chainrule.eval.memory import (
    Setting,
    _workspace,
    gathered_bytes,
    held_bytes,
    inference_memory,
    shard,
    stored_bytes,
    training_memory,
)
from chainrule.eval.parallel import sent_bytes
from chainrule.eval.roofline import training_time
from chainrule.hub.fresh import recurrent
from chainrule.recipes.subject import subject
from tests.eval.test_plan import BLOCKS, anatomy

WIDE = 3 * 4096 * 14336
"""The parameters of the mlp of a block of Llama-8B."""


@pytest.fixture(scope="module")
def llama() -> Anatomy:
    return subject("meta-llama/Meta-Llama-3.1-8B-Instruct").anatomy


def test_zero_3_gathers_one_devices_part_of_a_block():
    some, block = anatomy(BLOCKS["llama"]), 2 * 48 * 48 + 2 * 48 * 24 + 3 * 48 * 80
    assert some.inner == 2 * block
    assert block > some.table == 50 * 48
    setting = Setting(precision="fp32", ranks=8, zero=3, tensor=2)
    held, _, _ = held_bytes(some, setting)
    assert held == pytest.approx(4 * shard(some, 2) / 8 + 4 * block / 2)
    adapted = replace(setting, precision="bf16", method="lora", rank=4)
    beside = 4 * 4 * (2 * (48 + 48) + 2 * (48 + 24) + 3 * (48 + 80))
    held, _, _ = held_bytes(some, adapted)
    assert held == pytest.approx(2 * shard(some, 2) / 8 + 2 * beside / 16 + (2 * block + beside) / 2)


def test_zero_3_gathers_a_table_or_head_that_is_larger_than_a_block():
    large = subject("meta-llama/Llama-3.1-70B-Instruct").anatomy
    block, table = 2 * 8192 * 8192 + 2 * 8192 * 1024 + 3 * 8192 * 28672, 128256 * 8192
    assert large.inner == 80 * block
    assert large.table == table > block
    setting = Setting(precision="fp32", ranks=8, zero=3, tensor=8)
    held, _, _ = held_bytes(large, setting)
    assert held == pytest.approx(4 * shard(large, 8) / 8 + 4 * table / 8)
    assert round(4 * table / 8 / 1e9, 2) == 0.53
    adapted = replace(setting, precision="bf16", method="qlora", rank=16)  # no table lies in four bits
    beside = 4 * 16 * (2 * (8192 + 8192) + 2 * (8192 + 1024) + 3 * (8192 + 28672))
    held, _, _ = held_bytes(large, adapted)
    assert held == pytest.approx(stored_bytes(large, "int4", 8) / 8 + 80 * beside / 64 + 2 * table / 8)
    hidden = count(recurrent(vocab_size=2570, d_model=16, d_hidden=400, tied=False), "lstm")  # its head is its largest matrix
    assert hidden.table == 2570 * 16
    assert gathered_bytes(hidden, replace(setting, tensor=1)) == 4 * 2570 * 400


def test_devices_share_what_muon_needs_while_it_steps(llama):
    """The largest stack is that of gate and up of 32 blocks; 16 bytes for each of its numbers in fp32."""
    setting = Setting(precision="fp32", optimizer="muon")
    stack = 16 * 32 * WIDE * 2 // 3
    assert _workspace(llama, setting) == stack
    assert _workspace(llama, replace(setting, tensor=8)) == stack / 8
    assert _workspace(llama, replace(setting, tensor=8, ranks=4)) == stack / 8
    assert _workspace(llama, replace(setting, tensor=8, ranks=4, zero=1)) == stack / 32


def test_gradients_that_stay_stand_beside_what_muon_needs(llama):
    memory = training_memory(llama, Setting(length=16, precision="fp32", optimizer="muon", micro_batches=2))
    assert memory.activations < 16 * 32 * WIDE * 2 // 3
    assert memory.peak == memory.weights + memory.gradients + memory.optimizer + 16 * 32 * WIDE * 2 // 3


def test_four_devices_keep_the_activations_of_one_head_each_and_a_quarter_of_the_rest():
    """Of a block: q, z and their sum, k and v of one of two groups; then four quarters of an mlp, a norm and a stream."""
    setting = Setting(rows=3, length=10, precision="fp32", tensor=4)
    one_head = 4 * 2 * 12 + 4 + 4 * 2 * 12
    quarters = (4 * 4 * 80 + 2 * 48 * (4 + 4) + 2 * 48 * 4) / 4
    last, scores = 48 * 12 / 4, 12 * 13  # of 50 words a device scores 13 at most
    assert training_memory(anatomy(BLOCKS["llama"]), setting).activations == 30 * (2 * (one_head + quarters) + last + scores)


def test_four_devices_read_with_one_head_each_and_hold_all_scores_of_the_last_words():
    setting = Setting(rows=3, length=10, tensor=4)
    heads, wide = 3 * 1 * 12 + 2 * 1 * 12, 3 * 80 / 4
    expected = 30 * 4 * (2 * 48 / 4 + max(heads, wide)) + 3 * 50 * 4
    assert inference_memory(anatomy(BLOCKS["llama"]), setting, "fp32").activations == expected


def test_what_is_computed_again_is_sent_again(llama):
    setting = Setting(rows=2, length=100, tensor=4, ranks=2, zero=3)
    once, again = (sent_bytes(llama, replace(setting, checkpointing=on)) for on in (False, True))
    a_way = 32 * 2 * 2 * (3 / 4) * 200 * 4096 * 2
    assert (once["tensor"], again["tensor"]) == (2 * a_way, 3 * a_way)
    assert once["data"] == again["data"]


def test_gradients_of_micro_batches_are_sent_once_but_those_that_ranks_share_out_after_each(llama):
    one = Setting(rows=2, length=100, precision="fp32", ranks=8)
    gradients = 4 * llama.total * 7 / 8
    for zero, sent in ((0, 2), (1, 2), (2, 4 + 1), (3, 4 * 3)):
        assert sent_bytes(llama, replace(one, zero=zero, micro_batches=4)) == {"data": pytest.approx(sent * gradients)}
    shared = replace(one, ranks=1, tensor=4)
    assert sent_bytes(llama, replace(shared, micro_batches=4))["tensor"] == 4 * sent_bytes(llama, shared)["tensor"]


def test_computing_again_is_one_more_pass_through_the_blocks(llama):
    forward = flops(llama, 2048)
    again = training_flops(forward, llama, Setting(checkpointing=True))
    head = 2 * 4096 * 128256
    assert again.total == 3 * forward.forward + (forward.forward - head)
    assert again.formula.endswith(f" + 1 · {forward.forward - head:,.0f} in blocks again = {again.total:,.0f}")


@pytest.mark.parametrize("tensor", [1, 4])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_a_device_of_endless_bandwidth_takes_the_time_of_the_flops(llama, method, checkpointing, tensor):
    setting = Setting(rows=2, length=512, precision="bf16", method=method, checkpointing=checkpointing, tensor=tensor)
    endless = replace(device("h100"), bandwidth=1e30)
    counted = 2 * 512 * training_flops(flops(llama, 512), llama, setting).total
    assert training_time(llama, setting, endless).compute * endless.rate("bf16") * tensor == pytest.approx(counted)


def test_sums_of_gradients_are_made_once(llama):
    """On a device of endless arithmetic: five sums a block, of two vectors each read and one written."""
    slow = replace(device("h100"), rates={"bf16": 1e30}, bandwidth=1e9)
    short, long = (training_time(llama, Setting(length=n, precision="bf16"), slow).compute for n in (1024, 2048))
    d, kv, f, v = 4096, 1024, 14336, 128256
    products = 4 * d + (d + kv) * 2 + (d + f) * 3
    others = (2 * d + 2 * kv) + 2 * (d + kv) + 2 * 2 * d + 2 * 3 * d + 3 * f  # scores, rope, norms, residual sums, the gate
    token = 3 * (32 * (products + others) + 2 * d + 2 * d + (d + v) + 2 * v) + 32 * 5 * 3 * d
    assert (long - short) * 1e9 == pytest.approx(1024 * 2 * token)
