"""Plans: numbers a reader can do by hand, FLOPs as torch counts them, activations as autograd keeps them."""

import json
from dataclasses import replace
from itertools import accumulate
from typing import get_args, get_type_hints

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from chainrule.cli import main
from chainrule.core.errors import ConfigError, DataError, DeviceError
from chainrule.core.schema import dump
from chainrule.eval.activations import WIDTHS, block_bytes, loss_bytes
from chainrule.eval.anatomy import Anatomy, Attention, attention_of, take_apart
from chainrule.eval.bricks import Scores, bricks
from chainrule.eval.devices import DEVICES, device
from chainrule.eval.flops import flops, flops_at, training_flops
from chainrule.eval.memory import (
    Setting,
    adapter_parameters,
    cache_bytes,
    inference_memory,
    shard,
    stored_bytes,
    training_memory,
)
from chainrule.eval.parallel import sent_bytes
from chainrule.eval.plan import changes, inference_row, plan, training_row
from chainrule.eval.plan_text import plan_text
from chainrule.eval.roofline import decode_time, prefill_time, training_time
from chainrule.hub.fresh import fresh
from chainrule.hub.load import load
from chainrule.hub.save import save
from chainrule.layers.attention import GroupedQuery, QKNorm, attend
from chainrule.layers.latent import MultiHeadLatent
from chainrule.layers.mlp import Gated, Plain
from chainrule.layers.moe import MixtureOfExperts
from chainrule.layers.norm import LayerNorm, OffsetRMSNorm, RMSNorm
from chainrule.layers.router import Router
from chainrule.logprobs.scoring import linear_logprobs
from chainrule.models.blocks import BareBlock, Block, OutputNormBlock, SandwichBlock
from chainrule.models.decoder import Decoder, DecoderConfig
from chainrule.models.ngram import NGram
from chainrule.recipes.subject import subject
from chainrule.tokenizers.byte import ByteTokenizer
from chainrule.train.recipe import read_recipe, write_recipe


def attention(**more) -> GroupedQuery:
    return GroupedQuery(**({"n_heads": 4, "n_kv_heads": 2, "d_head": 12} | more))


GATED = Gated(d_ff=80)
EXPERTS = MixtureOfExperts(n_experts=4, d_ff=32, router=Router(k=2), d_shared=40)
LATENT = MultiHeadLatent(n_heads=4, d_nope=8, d_rope=4, d_value=12, kv_rank=16, q_rank=24)
BLOCKS = {
    "llama": Block(attention=attention(), mlp=GATED),
    "window": Block(attention=attention(window=5), mlp=GATED),
    "plain": Block(attention=attention(), mlp=Plain(d_ff=80), norm=LayerNorm()),
    "relu": Block(attention=attention(), mlp=Gated(d_ff=80, activation="relu")),
    "q-k-norm": Block(attention=attention(qk_norm=QKNorm(norm=RMSNorm())), mlp=GATED),
    "soft-cap": Block(attention=attention(soft_cap=2.0), mlp=GATED),
    "sinks": Block(attention=attention(sinks=True), mlp=GATED),
    "sandwich": SandwichBlock(attention=attention(), mlp=GATED, norm=OffsetRMSNorm()),
    "output-norm": OutputNormBlock(attention=attention(), mlp=GATED),
    "bare": BareBlock(attention=attention(), mlp=GATED),
    "experts": Block(attention=attention(), mlp=EXPERTS),
    "latent": Block(attention=LATENT, mlp=GATED),
}
D, T, V = 48, 32, 50


def decoder(block, layers: int = 2, **more) -> Decoder:
    return Decoder(DecoderConfig(**({"vocab_size": V, "context": 64, "d_model": D, "blocks": (block,) * layers} | more)))


def anatomy(block, **more) -> Anatomy:
    return take_apart(decoder(block, **more), "tiny")


@pytest.fixture(scope="module")
def llama() -> Anatomy:
    return subject("meta-llama/Meta-Llama-3.1-8B-Instruct").anatomy


def test_llama_8b_by_part(llama):
    assert llama.total == llama.active == 8_030_261_248
    assert llama.parameters["embedding"] == llama.parameters["head"] == 128256 * 4096
    assert llama.parameters["attention"] == 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024)
    assert llama.parameters["mlp"] == 32 * 3 * 4096 * 14336
    assert llama.parameters["norms"] == 65 * 4096
    assert round(stored_bytes(llama, "bf16") / 1e9, 2) == 16.06


@pytest.mark.parametrize(
    ("window", "chunk"), [(None, None), (1, None), (5, None), (99, None), (None, 4), (None, 7), (None, 64)]
)
@pytest.mark.parametrize("t", [1, 4, 13])
def test_keys_that_a_token_sees_are_counted_one_by_one(window, chunk, t):
    one = Attention(1, 1, 8, 8, 16, window, chunk)
    seen = [
        [j <= i and i - j < (window or 99) and i // (chunk or 99) == j // (chunk or 99) for j in range(t)] for i in range(t)
    ]
    assert one.keys(t) == pytest.approx(sum(map(sum, seen)) / t)
    assert [one.seen(i) for i in range(t)] == [sum(row) for row in seen]


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("tied", [True, False])
def test_matrix_flops_are_those_that_torch_counts(name, tied):
    model = decoder(BLOCKS[name], tied=tied, logit_cap=3.0 if name == "soft-cap" else None)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.randint(V, (2, T)))
    counted = {str(op): n for op, n in counter.get_flop_counts()["Global"].items()}
    products = sum(n for op, n in counted.items() if "mm" in op and "bmm" not in op)
    ours = flops(take_apart(model, "tiny"), T).matrices
    assert sum(ours.values()) * 2 * T == products + missed(name)


def missed(name: str) -> int:
    """The products of experts, which torch's counter does not know."""
    return 2 * 2 * T * 2 * 2 * 3 * D * 32 if name == "experts" else 0


def test_a_causal_row_costs_half_of_the_square_and_a_window_less():
    full, windowed = (flops(anatomy(BLOCKS[name]), T) for name in ("llama", "window"))
    assert full.scores == 2 * 2 * 4 * (12 + 12) * (T + 1) / 2
    assert windowed.scores == pytest.approx(2 * 2 * 4 * (12 + 12) * (5 * T - 10) / T)
    assert flops_at(anatomy(BLOCKS["llama"]), T - 1).scores == 2 * 2 * 4 * 24 * T
    assert training_flops(full, anatomy(BLOCKS["llama"]), Setting()).total == 3 * full.forward


def test_one_more_token_of_a_latent_cache_is_counted_as_wide_as_it_is_compared():
    seen = []

    def kernel(q, k, v, mask):
        seen.append((q.shape[1], k.shape[-1], v.shape[-1]))
        return attend(q, k, v, mask)

    layer, memory = LATENT.build(D, kernel), (torch.randn(1, 1, T, 16), torch.randn(1, 1, T, 4))
    layer(torch.randn(1, 1, D), None, remember=lambda latent, shared: memory)
    layer(torch.randn(1, T, D), None)
    shape, one = attention_of(LATENT), anatomy(BLOCKS["latent"])
    assert seen == [(4, *shape.decoding), (4, shape.d_key, shape.d_value)] == [(4, 20, 16), (4, 12, 12)]
    row, last = flops(one, T), flops_at(one, T - 1)
    assert (row.scores, last.scores) == (2 * 2 * 4 * (12 + 12) * (T + 1) / 2, 2 * 2 * 4 * (20 + 16) * T)
    assert last.matrices == row.matrices  # queries and results pass the matrix that would make keys and values
    for new, once in ((T, T * row.forward), (1, last.forward)):
        laid = bricks(one, 3, new, T)
        assert sum(n * brick.flops for brick, n in laid.items()) == pytest.approx(3 * once)
        moved = {brick.moved for brick in laid if isinstance(brick, Scores)}
        assert moved == {3 * (new * 4 * (24 if new == T else 36) + T * 20)}


def kept_by_autograd(model: Decoder, tokens: torch.Tensor, *, mixed: bool) -> int:
    """Bytes of all storages that a forward pass keeps, weights and their narrow copies apart."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    shapes = {tuple(parameter.shape) for parameter in model.parameters() if parameter.ndim > 1}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        at = tensor.untyped_storage().data_ptr()
        copy = tensor.dtype == torch.bfloat16 and mixed and shapes & {tuple(tensor.shape), tuple(tensor.mT.shape)}
        if at not in weights and not copy:
            kept[at] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            model.hidden(tokens)
        return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.usefixtures("as_a_gpu_attends")
@pytest.mark.parametrize("precision", ["fp32", "mixed", "bf16"])
@pytest.mark.parametrize("name", BLOCKS)
def test_activations_are_what_autograd_keeps(name, precision):
    tokens = torch.randint(V, (2, T), generator=torch.Generator().manual_seed(0))
    kept = []
    for layers in (1, 2):
        model = decoder(BLOCKS[name], layers)
        model = model.to(torch.bfloat16) if precision == "bf16" else model
        kept.append(kept_by_autograd(model, tokens, mixed=precision == "mixed"))
    a_layer = (kept[1] - kept[0]) / tokens.numel()
    exotic = name in ("soft-cap", "sinks", "experts")
    assert block_bytes(BLOCKS[name], D, T, WIDTHS[precision]) == pytest.approx(a_layer, rel=0.15 if exotic else 0.05)


def test_the_bytes_of_a_parameter_in_training_by_hand(llama):
    n = llama.total
    fp32, mixed, bf16 = (training_memory(llama, Setting(precision=p)) for p in ("fp32", "mixed", "bf16"))
    assert (fp32.weights, fp32.gradients, fp32.optimizer) == (4 * n, 4 * n, 8 * n)
    assert (mixed.weights, mixed.gradients, mixed.optimizer) == (4 * n, 4 * n, 8 * n)
    assert (bf16.weights, bf16.gradients, bf16.optimizer) == (2 * n, 2 * n, 4 * n)
    muon = training_memory(llama, Setting(precision="fp32", optimizer="muon"))
    assert muon.optimizer == 4 * llama.inner + 8 * (n - llama.inner)


def test_lora_learns_r_times_both_sides_of_each_matrix(llama):
    setting = Setting(method="lora", precision="bf16", rank=8, targets=("q_proj", "v_proj"))
    learned = 32 * 8 * ((4096 + 4096) + (4096 + 1024))
    assert adapter_parameters(llama, setting) == learned
    memory = training_memory(llama, setting)
    assert (memory.gradients, memory.optimizer) == (4 * learned, 8 * learned)
    assert memory.weights == 2 * llama.total + 4 * learned
    assert training_memory(llama, replace(setting, method="qlora")).weights < 0.4 * memory.weights
    with pytest.raises(ConfigError, match="did you mean 'q_proj'"):
        training_memory(llama, replace(setting, targets=("q_porj",)))


def test_zero_splits_the_optimizer_then_gradients_then_weights(llama):
    stages = [training_memory(llama, Setting(precision="fp32", ranks=4, zero=stage)) for stage in range(4)]
    whole = stages[0]
    assert [stage.optimizer for stage in stages[1:]] == [whole.optimizer / 4] * 3
    assert [stage.gradients for stage in stages] == [whole.gradients] * 2 + [whole.gradients / 4] * 2
    assert [stage.weights for stage in stages[:3]] == [whole.weights] * 3
    assert whole.weights / 4 < stages[3].weights < whole.weights / 3


def test_bytes_sent_by_hand(llama):
    gradients = 4 * llama.total
    assert sent_bytes(llama, Setting()) == {}
    for zero in (0, 1, 2):
        assert sent_bytes(llama, Setting(ranks=8, zero=zero)) == {"data": 2 * gradients * 7 / 8}
    assert sent_bytes(llama, Setting(ranks=8, zero=3)) == {"data": 3 * gradients * 7 / 8}
    tensor = sent_bytes(llama, Setting(rows=2, length=100, tensor=4))["tensor"]
    assert tensor == 32 * 4 * 2 * (3 / 4) * 200 * 4096 * 2


def test_the_cache_and_the_time_of_a_token_by_hand(llama):
    assert cache_bytes(llama, 1, 2.0) == 32 * 2 * 8 * 128 * 2
    memory = inference_memory(llama, Setting(rows=3, length=1000), "bf16")
    assert memory.cache == 3 * 1000 * 131_072
    # one token reads every matrix once: 15 GB at 3.35 TB/s
    read = 2 * (llama.total - 128256 * 4096) / 3.35e12
    assert decode_time(llama, Setting(length=1), device("h100"), "bf16") == pytest.approx(read, rel=0.01)
    step = training_time(llama, Setting(rows=4, length=2048), device("h100"))
    arithmetic = 4 * 2048 * 3 * flops(llama, 2048).forward / 989.4e12
    assert arithmetic < step.compute < 1.3 * arithmetic


def test_devices_share_the_cache_by_heads_and_a_latent_cache_not_at_all(llama):
    def cache(one: Anatomy, devices: int) -> float:
        return inference_memory(one, Setting(rows=3, length=1000, tensor=devices), "bf16").cache

    whole = 3 * 1000 * 131_072
    assert [cache(llama, devices) for devices in (1, 2, 8, 16, 32)] == [whole, whole / 2, whole / 8, whole / 8, whole / 8]
    deepseek = subject("DeepSeek-V3").anatomy
    assert cache(deepseek, 8) == cache(deepseek, 1) > 0
    # sixteen devices hold a sixteenth of every matrix, but an eighth of those that make 8 heads of keys and values
    keys_and_values = 32 * 2 * 4096 * 1024
    norms = 65 * 4096
    assert shard(llama, 16) == norms + (llama.total - norms - keys_and_values) / 16 + keys_and_values / 8


def test_devices_that_share_matrices_sum_up_twice_a_layer(llama):
    setting, slow = Setting(rows=3, length=1000, tensor=4), replace(device("h100"), link=1e6)
    sent = inference_row(llama, setting, slow, "bf16").sent_bytes
    ring = 2 * 3 / 4
    assert sent == {"prefill": 32 * 2 * ring * 3000 * 4096 * 2, "decode": 32 * 2 * ring * 3 * 4096 * 2}
    fast = replace(slow, link=1e30)
    for time, what in ((prefill_time, "prefill"), (decode_time, "decode")):
        waited = time(llama, setting, slow, "bf16") - time(llama, setting, fast, "bf16")
        assert waited == pytest.approx(sent[what] / 1e6)
    assert inference_row(llama, Setting(rows=3, length=1000), slow, "bf16").sent_bytes == {}


@pytest.mark.parametrize(("name", "tied"), [("llama", True), ("llama", False), ("plain", False), ("latent", True)])
def test_four_bits_take_the_bytes_that_a_load_takes(name, tied, tmp_path):
    model = decoder(BLOCKS[name], tied=tied, d_model=64, vocab_size=257)
    save(tmp_path, model, ByteTokenizer())
    loaded = load(str(tmp_path), device="cpu", dtype="int4").model
    taken = sum(tensor.nbytes for tensor in loaded.state_dict().values())
    assert stored_bytes(take_apart(model, name), "int4") == taken < 0.9 * sum(2 * p.numel() for p in model.parameters())


def test_experts_are_stored_in_four_bits_too_and_tables_are_not():
    mixtral = subject("Mixtral-8x7B-v0.1").anatomy
    inside = 32 * (8 * 3 * 4096 * 14336 + 2 * 4096 * 4096 + 2 * 4096 * 1024)
    head, router = 32000 * 4096, 32 * 8 * 4096
    assert stored_bytes(mixtral, "int4") == 0.625 * (inside + head) + 2 * (mixtral.total - inside - head)
    assert mixtral.parameters["router"] == router


@pytest.mark.parametrize(("name", "tied"), [("meta-llama/Meta-Llama-3.1-8B-Instruct", False), ("Llama-3.2-1B", True)])
def test_a_token_reads_matrices_in_four_bits_and_a_tied_table_in_sixteen(name, tied):
    one = subject(name).anatomy
    assert one.tied == tied
    head = one.vocab_size * one.d_model
    read = 0.625 * (one.inner + (0 if tied else head)) + (2 * head if tied else 0)
    slow = replace(device("h100"), bandwidth=1e9)
    assert decode_time(one, Setting(length=1), slow, "int4") == pytest.approx(read / 1e9, rel=0.01)


def test_a_config_is_planned_by_itself_in_a_folder_and_from_the_cache(tmp_path, monkeypatch, capsys):
    model = fresh(vocab_size=64, context=32, n_layers=1, d_model=16, n_heads=2, n_kv_heads=2, d_ff=32, rope_theta=1e4,
                  tied=True, init="normal", seed=0)  # fmt: skip
    home = save(tmp_path / "hub" / "models--me--tiny" / "snapshots" / "abc", model)
    (tmp_path / "hub" / "models--me--tiny" / "refs").mkdir()
    (tmp_path / "hub" / "models--me--tiny" / "refs" / "main").write_text("abc")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    found = {subject(str(name)).anatomy.total for name in (home, home / "config.json", "me/tiny")}
    assert found == {sum(one.numel() for one in model.parameters())}
    assert (
        main(["plan", str(home / "config.json"), "--batch", "2", "--context", "8", "--device", "h100", "--tp", "2", "--json"])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["setting"]["rows"] == 2


def test_of_experts_only_the_chosen_are_active():
    some = anatomy(BLOCKS["experts"])
    assert some.parameters["experts"] == 2 * 4 * 3 * D * 32
    assert some.total - some.active == 2 * 2 * 3 * D * 32


def test_recomputation_keeps_a_block_at_a_time():
    block = BLOCKS["llama"]
    deep, deeper = (anatomy(block, layers=n) for n in (8, 16))
    setting = Setting(rows=4, length=T, precision="fp32", checkpointing=True)
    more = training_memory(deeper, setting).activations - training_memory(deep, setting).activations
    assert more == 8 * D * 4 * setting.tokens
    assert loss_bytes(V, setting.tokens, WIDTHS["fp32"]) == 12 * V * setting.tokens
    assert loss_bytes(150_000, 4096, WIDTHS["fp32"]) < 0.01 * 12 * 150_000 * 4096


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("tokens", "vocab_size"), [(512, 65_537), (16_384, 2_049)])
def test_scores_of_many_words_take_what_their_slices_take(tokens, vocab_size, mixed):
    hidden, weight = (torch.randn(n, 4).requires_grad_() for n in (tokens, vocab_size))
    targets = torch.zeros(tokens, dtype=torch.long)
    profile = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)
    with profile, torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        linear_logprobs(hidden, weight, targets).sum().backward()
    allocated = [event.nbytes() for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    expected = loss_bytes(vocab_size, tokens, WIDTHS["mixed" if mixed else "fp32"])
    assert max(accumulate(allocated)) == pytest.approx(expected, rel=0.1)


def test_every_part_that_a_block_may_have_is_known(llama):
    hints = get_type_hints(Block)
    assert {part.__name__ for part in get_args(hints["mlp"])} == {"Gated", "Plain", "MixtureOfExperts"}
    assert {part.__name__ for part in get_args(hints["attention"])} == {"GroupedQuery", "MultiHeadLatent"}
    assert attention_of(LATENT).memory == 16 + 4
    with pytest.raises(ConfigError, match="of kind 'ngram'; only a decoder"):
        take_apart(NGram.fit([[0, 1, 2]], order=2, vocab_size=3), "counts")


def test_changes_make_it_fit_and_each_helps(llama):
    setting = Setting(rows=8, length=4096, precision="fp32")
    advice = list(changes(llama, setting, device("h100")))
    peaks = [training_memory(llama, setting).peak, *(step.peak for step in advice)]
    assert peaks == sorted(peaks, reverse=True)
    assert advice[0].change.startswith("one row at a time")
    assert [step.fits for step in advice] == [False] * (len(advice) - 1) + [True]


def test_what_is_read_one_row_at_a_time_already_is_not_advised(llama):
    setting = Setting(rows=1, length=4096, precision="fp32", micro_batches=8)
    before, advice = training_memory(llama, setting).peak, list(changes(llama, setting, device("h100")))
    assert advice[0].change.startswith("compute activations again")
    assert before > advice[0].peak


def test_a_step_of_micro_batches_computes_each_and_updates_once(llama):
    h100, one = device("h100"), Setting(rows=2, length=512)
    four = replace(one, micro_batches=4)
    once, often = (training_time(llama, setting, h100) for setting in (one, four))
    assert often.compute == pytest.approx(4 * once.compute)
    assert often.update == once.update > 0
    row = training_row(llama, four, h100)
    assert row.flops == 4 * training_row(llama, one, h100).flops
    assert row.seconds == often.step == often.compute + often.update
    assert row.tokens_per_second == pytest.approx(4 * 2 * 512 / often.step)
    assert ", 4 times a step\n" in plan_text(plan(llama, four, h100))
    assert "times a step" not in plan_text(plan(llama, one, h100))
    with pytest.raises(ConfigError, match="micro_batches=0"):
        Setting(micro_batches=0)


def test_a_recipe_whose_batch_is_no_whole_number_of_micro_batches_is_refused(tmp_path):
    (tmp_path / "recipe.yaml").write_text(write_recipe(read_recipe("pretrain_world", ["micro_rows=5"])))
    with pytest.raises(DataError, match="batch_rows=16 is not a multiple of micro_rows=5"):
        subject(str(tmp_path / "recipe.yaml"))


@pytest.mark.parametrize("name", DEVICES)
def test_a_plan_is_json_and_text_on_every_device(llama, name):
    made = plan(llama, Setting(length=4096), device(name))
    assert json.loads(json.dumps(dump(made)))["parameters"]["total"] == 8_030_261_248
    assert "8,030,261,248" in plan_text(made)
    assert [row.format for row in made.inference] == ["fp32", "bf16", "int8", "int4"]


def test_a_format_without_a_published_rate_is_refused():
    with pytest.raises(DeviceError, match="no published rate for fp8"):
        device("laptop").rate("fp8")
    with pytest.raises(DeviceError, match="did you mean 'h100'"):
        device("h10")


def test_plan_reads_recipes_folders_and_ids(capsys, tmp_path):
    assert main(["plan", "pretrain_world", "--device", "laptop", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["setting"]["rows"] == 16
    assert made["setting"]["optimizer"] == "muon"
    assert made["parameters"]["embedding"] == 2048 * 192
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 10, "hidden_size": 8, "intermediate_size": 8,
                                                      "num_hidden_layers": 1, "num_attention_heads": 1}))  # fmt: skip
    assert main(["plan", str(tmp_path), "--device", "4090"]) == 0
    assert "RTX 4090" in capsys.readouterr().out
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text(write_recipe(read_recipe("pretrain_world", ["micro_rows=4", "context=64"])))
    assert main(["plan", str(run), "--device", "laptop", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)["setting"]
    assert (made["rows"], made["length"], made["micro_batches"]) == (4, 64, 4)
    assert main(["plan", "llama-3.2-1b", "--device", "h100", "--ranks", "8", "--zero", "2"]) == 0
    assert "ZeRO-2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "because"),
    [
        (("nowhere",), "neither here nor among the configs that ship, such as meta-llama/Llama-3.1-8B-Instruct"),
        (("Llama-3.2-2B",), "did you mean 'Llama-3.2-1B'"),
        (("llama-3.2-1b", "--device", "h20"), "did you mean 'h200'"),
        (("llama-3.2-1b", "--rows", "0"), "rows=0"),
        (("llama-3.2-1b", "--zero", "4"), "zero=4"),
        (("llama-3.2-1b", "--zero", "1"), "there is 1"),
        (("llama-3.2-1b", "--tensor", "3"), "tensor=3 devices cannot share 32 heads evenly"),
        (("llama-3.2-1b", "--length", "999999"), "length=999999 is more than the 131072 tokens"),
        (("llama-3.2-1b", "--targets", "w_proj"), "no matrix 'w_proj'"),
    ],
)
def test_bad_requests_are_refused(capsys, argv, because):
    assert main(["plan", *argv, *(() if "--device" in argv else ("--device", "h100"))]) == 2
    said = capsys.readouterr()
    assert because in said.err
    assert said.out == ""


@pytest.mark.parametrize(
    ("name", "active"),
    [("Mixtral-8x7B-v0.1", 12.9e9), ("Qwen3-30B-A3B", 3.3e9), ("DeepSeek-V3", 37e9), ("Kimi-K2-Instruct", 32e9)],
)
def test_published_mixtures_have_the_published_active_parameters(name, active):
    assert subject(name).anatomy.active == pytest.approx(active, rel=0.03)


def test_the_latent_cache_of_deepseek_is_that_of_its_paper():
    # arXiv:2412.19437: 512 channels of the latent vector and 64 of the shared key, in 61 layers
    assert cache_bytes(subject("DeepSeek-V3").anatomy, 1, 2.0) == 61 * (512 + 64) * 2
