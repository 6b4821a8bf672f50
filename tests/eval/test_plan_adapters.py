"""Plans of adapters: FLOPs as torch counts them, activations as autograd keeps them, bytes as matrices are packed."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from chainrule.adapt.blocks import pack
from chainrule.adapt.int4 import Int4Linear
from chainrule.adapt.lora import Lora, attach, linears, put
from chainrule.core.errors import ConfigError
from chainrule.eval.activations import WIDTHS, Adapters, adapter_bytes, block_bytes
from chainrule.eval.anatomy import Anatomy, take_apart
from chainrule.eval.devices import device
from chainrule.eval.flops import flops, training_flops
from chainrule.eval.memory import BYTES, TARGETS, Setting, held_bytes
from chainrule.eval.parallel import sent_bytes
from chainrule.eval.plan import plan, training_row
from chainrule.eval.plan_text import plan_text
from chainrule.eval.roofline import training_time
from chainrule.layers.attention import GroupedQuery
from chainrule.layers.mlp import Gated
from chainrule.models.blocks import Block
from chainrule.models.decoder import Decoder
from chainrule.recipes.subject import subject
from tests.eval.test_plan import BLOCKS, D, T, V, decoder, kept_by_autograd

LORA = Setting(method="lora", precision="bf16", rank=8)
SIDES = 2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 14336)
"""d_in + d_out of all matrices of a block of Llama-8B."""


@pytest.fixture(scope="module")
def llama() -> Anatomy:
    return subject("meta-llama/Meta-Llama-3.1-8B-Instruct").anatomy


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_frozen_matrices_are_passed_twice_adapters_and_scores_three_times(llama, method):
    forward, setting = flops(llama, 100), replace(LORA, method=method)
    matrices, adapters, scores = 2 * (llama.inner + 4096 * 128256), 2 * 32 * 8 * SIDES, 32 * 2 * 32 * 256 * 50.5
    counted = training_flops(forward, llama, setting)
    assert counted.total == 2 * matrices + 3 * adapters + 3 * scores
    terms = f"2 · {matrices:,} in matrices + 3 · {adapters:,} in adapters + 3 · {scores:,.0f} in scores"
    assert counted.formula == f"{terms} = {counted.total:,.0f}"
    again = training_flops(forward, llama, replace(setting, checkpointing=True))
    assert again.total - counted.total == matrices - 2 * 4096 * 128256 + adapters + scores


def test_a_plan_prints_the_formula_and_counts_its_rows_by_it(llama):
    made = plan(llama, Setting(rows=2, length=100, rank=8), device("h100"))
    rows = {row.way: row.flops for row in made.training}
    assert rows["full, fp32"] == rows["full, mixed bf16"] == 200 * made.flops.training
    assert rows["LoRA, bf16"] == rows["QLoRA, bf16"] == 200 * made.flops.adapting
    said = plan_text(made)
    assert f"\ntraining = {made.flops.training_formula}\n" in said
    assert f"\ntraining adapters of rank 8 = {made.flops.adapting_formula}\n" in said


def adapted(block, layers: int, adapters: Adapters, *, packed: bool = False, **more) -> Decoder:
    model = decoder(block, layers, **more).to(torch.bfloat16)
    if packed:
        for name, layer in linears(model).items():
            put(model, name, Int4Linear.of(layer.weight, layer.bias))
    attach(model, Lora(rank=adapters.rank), adapters.targets)
    return model


def targets(block, names=TARGETS) -> tuple[str, ...]:
    known = {matrix.name for matrix in take_apart(decoder(block), "tiny").inside}
    return tuple(name for name in names if name in known)


@pytest.mark.parametrize("name", ["llama", "plain"])
def test_flops_of_a_step_are_those_that_torch_counts(name):
    setting = replace(LORA, rank=3, targets=targets(BLOCKS[name]))
    counted, ours = [], []
    for layers in (1, 2):  # the first layer reads an embedding that wants no gradient, so it is the second that is counted
        model = adapted(BLOCKS[name], layers, Adapters(3, setting.targets))
        with FlopCounterMode(display=False) as counter:
            model.hidden(torch.randint(V, (2, T))).sum().backward()
        by_operation = {str(op): n for op, n in counter.get_flop_counts()["Global"].items()}
        counted.append(sum(n for op, n in by_operation.items() if "mm" in op and "bmm" not in op))
        parts = take_apart(decoder(BLOCKS[name], layers), "tiny")
        inside = replace(flops(parts, T), scores=0.0)
        ours.append(2 * T * training_flops(inside, parts, setting).total)
    assert counted[1] - counted[0] == ours[1] - ours[0]


SOME = {"all": TARGETS, "queries and values": ("q_proj", "v_proj"), "narrow": ("o_proj", "down_proj")}
WIDER = {
    "d_model": 64,
    "block": Block(attention=GroupedQuery(n_heads=4, n_kv_heads=2, d_head=16), mlp=Gated(d_ff=96)),
}


@pytest.mark.usefixtures("as_a_gpu_attends")
@pytest.mark.parametrize("some", SOME)
@pytest.mark.parametrize("name", ["llama", "plain", "relu", "q-k-norm", "sandwich", "output-norm", "latent", "four bits"])
def test_activations_beside_adapters_are_what_autograd_keeps(name, some):
    packed = name == "four bits"
    block, d_model = (WIDER["block"], WIDER["d_model"]) if packed else (BLOCKS[name], D)
    adapters = Adapters(4, targets(block, SOME[some]))
    if not adapters.targets:
        pytest.skip("there is no such matrix to adapt")
    tokens = torch.randint(V, (2, T), generator=torch.Generator().manual_seed(0))
    models = [adapted(block, layers, adapters, packed=packed, d_model=d_model) for layers in (2, 3)]
    kept = [kept_by_autograd(model, tokens, mixed=False) for model in models]
    matrices = take_apart(decoder(block, d_model=d_model), "tiny").inside
    ours = block_bytes(block, d_model, T, WIDTHS["bf16"], frozen=True) + adapter_bytes(adapters, matrices, 1)
    assert ours == pytest.approx((kept[1] - kept[0]) / tokens.numel(), rel=0.06)


def test_a_weight_takes_the_bytes_that_a_packed_matrix_has():
    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(0))
    assert pack(weight.numpy().astype(np.float32), "Q8_0").nbytes == BYTES["int8"] * 64 * 96
    for kernel in (False, None):
        layer = Int4Linear.of(weight, kernel=kernel)
        assert sum(one.nbytes for one in layer.buffers()) == BYTES["int4"] * 64 * 96


def test_devices_share_adapters_once(llama):
    learned = 32 * 8 * SIDES
    h100, shared = device("h100"), replace(LORA, tensor=4)
    assert training_row(llama, shared, h100).learned == learned
    _, gradients, optimizer = held_bytes(llama, shared)
    assert (gradients, optimizer) == (4 * learned / 4, 8 * learned / 4)
    for setting, share in ((LORA, 1), (shared, 4), (replace(shared, ranks=2, zero=1), 8)):
        assert training_time(llama, setting, h100).update == pytest.approx(28 * learned / h100.bandwidth / share)
    sent = sent_bytes(llama, replace(shared, ranks=2, zero=3))["data"]
    frozen, _, _ = held_bytes(llama, shared)
    assert sent == pytest.approx((2 * frozen + 4 * learned / 4) / 2)


@pytest.mark.parametrize(("optimizer", "states"), [("adamw", 2), ("muon", 1), ("sgd", 0)])
def test_the_optimizer_of_adapters_remembers_what_it_does_of_all_weights(llama, optimizer, states):
    learned, h100 = 32 * 8 * SIDES, device("h100")
    for method in ("lora", "qlora"):
        setting = replace(LORA, method=method, optimizer=optimizer)
        assert held_bytes(llama, setting)[1:] == (4 * learned, 4 * states * learned)
        moved = 3 + 2 * states  # weight and gradient are read, the weight is written; each state is read and written
        assert training_time(llama, setting, h100).update == pytest.approx(4 * moved * learned / h100.bandwidth)


def test_adapters_stand_beside_a_base_of_sixteen_bits_or_four():
    with pytest.raises(ConfigError, match="precision='fp32': method='lora' freezes 16 or 4 bits"):
        Setting(method="lora", precision="fp32")
