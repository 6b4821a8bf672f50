"""Loading: what is in memory while it happens, what is refused, and every step as it is told."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import chainrule as cr
from chainrule.adapt.int4 import Int4Linear, Int4Stack
from chainrule.core.errors import CheckpointError, ConfigError
from chainrule.eval.anatomy import take_apart
from chainrule.hub.fresh import fresh
from chainrule.hub.gguf.model import write_model
from chainrule.hub.load import load, size_bytes
from chainrule.hub.pickles import read_pickle
from chainrule.hub.safetensors import Mapped, write_tensors
from chainrule.hub.save import save
from chainrule.hub.trace import TensorStep
from chainrule.layers.router import RouterLayer
from chainrule.models.moves import Permute, RenamePrefix, Transpose, loaded
from chainrule.models.routes import routes
from chainrule.tokenizers.byte import ByteTokenizer
from tests.hub.gguf_cases import published
from tests.measured import keep_measured

TOKENS = torch.randint(257, (2, 9), generator=torch.Generator().manual_seed(0))


def tiny(*, tied=True, d_model=64, vocab_size=257):
    return fresh(
        vocab_size=vocab_size, context=32, n_layers=2, d_model=d_model, n_heads=4, n_kv_heads=2, d_ff=96, rope_theta=1e4, tied=tied,
        init="normal", seed=0,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    return save(tmp_path / "tiny", tiny(), ByteTokenizer())


def rewrite(folder, change):
    """The folder's weights after ``change`` has had its way with the table."""
    file = Mapped(folder / "model.safetensors")
    table = {name: file.tensor(name).clone() for name in file.slots}
    write_tensors(change(table), folder / "model.safetensors")


def test_every_step_of_loading_is_told_in_order(folder):
    steps = []
    lm = load(folder, device="cpu", trace=steps.append)
    stages = list(dict.fromkeys(step.stage for step in steps))
    assert stages == [
        "resolve",
        "config",
        "build",
        "open",
        "match",
        "tensor",
        "tie",
        "tokenizer",
        "template",
        "generation",
        "device",
    ]
    tensors = [step for step in steps if isinstance(step, TensorStep)]
    assert {step.ours: step.shape for step in tensors} == {name: tuple(t.shape) for name, t in lm.model.state_dict().items()}
    assert all(step.way == "mapped" and step.stored == step.dtype == "float32" for step in tensors)
    assert tensors[0].published == ("model.embed_tokens.weight",)
    assert sum(step.size_bytes for step in tensors) == 4 * sum(p.numel() for p in lm.model.parameters())
    made = {step.stage: step.made for step in steps}
    assert made["config"]["model_type"] == "llama"
    assert made["build"] is lm.model
    assert made["generation"] == lm.generation == {"bos_token_id": 256, "eos_token_id": 256}


def test_a_listener_changes_nothing_and_the_formats_are_what_was_asked(folder):
    model = tiny()
    for dtype, ways in (("fp32", {"mapped"}), ("bf16", {"converted"}), ("int4", {"converted", "quantised"})):
        steps = []
        told, quiet = (
            load(folder, device="cpu", dtype=dtype, trace=steps.append).model,
            load(folder, device="cpu", dtype=dtype).model,
        )
        assert torch.equal(told(TOKENS), quiet(TOKENS))
        assert {step.way for step in steps if isinstance(step, TensorStep)} == ways
        error = (told(TOKENS).float() - model(TOKENS)).abs().max()
        assert error == 0 if dtype == "fp32" else 0 < error < 0.1


def test_a_trained_step_on_mapped_weights_leaves_the_file_alone(folder):
    before = (folder / "model.safetensors").read_bytes()
    model = load(folder, device="cpu").model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(TOKENS).logsumexp(-1).sum().backward()
    optimizer.step()
    assert not torch.equal(model.norm.weight, tiny().norm.weight)
    assert (folder / "model.safetensors").read_bytes() == before


def test_moves_one_route_at_a_time_are_the_moves_all_at_once():
    class Stacked:
        """Experts of a layer as one tensor; a fused matrix cut in two."""

        def load(self, tensors):
            rest = {name: t for name, t in tensors.items() if ".experts." not in name and "qk" not in name}
            experts = sorted(name for name in tensors if ".experts." in name)
            for layer in sorted({name.split(".")[0] for name in experts}):
                rest[f"{layer}.experts"] = torch.stack([tensors[name] for name in experts if name.startswith(layer)])
            for name in [name for name in tensors if "qk" in name]:
                rest[name.replace("qk", "q_proj")], rest[name.replace("qk", "k_proj")] = tensors[name].chunk(2)
            return rest

        def save(self, tensors):
            raise NotImplementedError

    names = ["m.0.qk", "m.1.qk", "m.norm", "head"] + [f"m.{i}.experts.{j}" for i in range(2) for j in range(3)]
    generator = torch.Generator().manual_seed(0)
    table = {name: torch.randn(8, 4, generator=generator) for name in names}
    moves = [RenamePrefix("m.", ""), Stacked(), Permute([(r"q_proj$", 2)]), Transpose(r"^head$")]
    ways, empty = routes(moves, {name: tensor.to("meta") for name, tensor in table.items()})
    pieces = {}
    for way in ways:
        got = loaded(moves, {name: table[name] for name in way.sources})
        assert set(got) == set(way.ours)
        pieces |= got
    whole = loaded(moves, dict(table))
    assert set(pieces) == set(whole) == set(empty)
    assert all(torch.equal(pieces[name], whole[name]) and empty[name].shape == whole[name].shape for name in whole)
    assert [way.sources for way in ways] == [("m.0.qk",), ("m.1.qk",), ("m.norm",), ("head",),
                                             ("m.0.experts.0", "m.0.experts.1", "m.0.experts.2"),
                                             ("m.1.experts.0", "m.1.experts.1", "m.1.experts.2")]  # fmt: skip
    assert ways[0].ours == {"0.q_proj": ("m.0.qk",), "0.k_proj": ("m.0.qk",)}


def test_a_stored_copy_of_a_tied_readout_is_left_out_and_another_one_refused(folder):
    rewrite(folder, lambda table: table | {"lm_head.weight": table["model.embed_tokens.weight"].clone()})
    steps = []
    load(folder, device="cpu", trace=steps.append)
    assert [step.published for step in steps if isinstance(step, TensorStep) and step.way == "left out"] == [
        ("lm_head.weight",)
    ]
    rewrite(folder, lambda table: table | {"lm_head.weight": table["lm_head.weight"] + 1})
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs from embed_tokens\.weight, but its config ties"):
        load(folder, device="cpu")


def test_the_rotary_frequencies_of_old_checkpoints_are_left_out(folder):
    rewrite(folder, lambda table: table | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)})
    assert torch.equal(load(folder, device="cpu").model(TOKENS), tiny()(TOKENS))


@pytest.mark.parametrize(
    ("change", "because"),
    [
        (lambda t: {n: x for n, x in t.items() if "norm.weight" not in n}, r"lacks layers\.0\.input_layernorm\.weight, .* and 2 more"),
        (lambda t: t | {"model.extra": torch.ones(1)}, "has extra, which the model does not"),
        (lambda t: t | {"model.norm.weight": torch.ones(3)}, r"norm\.weight is \(3,\), but the config asks for \(64,\)"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_the_config_are_named(folder, change, because):
    rewrite(folder, change)
    with pytest.raises(CheckpointError, match=because):
        load(folder, device="cpu")


def test_a_fused_matrix_that_is_a_single_number_is_refused(tmp_path):
    published("phi3", tmp_path)
    rewrite(tmp_path, lambda t: {n: torch.ones(()) if n.endswith("0.self_attn.qkv_proj.weight") else x for n, x in t.items()})
    with pytest.raises(CheckpointError, match="holds tensors of other shapes than its config asks for"):
        load(tmp_path, device="cpu")


def test_a_link_out_of_the_folder_is_refused_but_not_the_caches_own(folder, tmp_path):
    cache = tmp_path / "models--org--tiny"
    (cache / "blobs").mkdir(parents=True)
    (cache / "snapshots" / "abc").mkdir(parents=True)
    for i, file in enumerate(sorted(folder.iterdir())):
        (cache / "blobs" / str(i)).write_bytes(file.read_bytes())
        (cache / "snapshots" / "abc" / file.name).symlink_to(f"../../blobs/{i}")
    assert torch.equal(load(cache / "snapshots" / "abc", device="cpu").model(TOKENS), tiny()(TOKENS))
    (tmp_path / "secret").write_bytes((folder / "model.safetensors").read_bytes())
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match=r"leads out of its folder, to .*secret"):
        load(folder, device="cpu")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../secret"}}))
    with pytest.raises(CheckpointError, match="leads out of its folder"):
        load(folder, device="cpu")


def test_a_damaged_index_and_a_missing_shard_are_named(folder):
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    for text, because in (
        ("{", "is damaged"),
        ("[]", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ('{"weight_map": {"a": "x.safetensors"}}', "lacks x.safetensors"),
    ):
        index.write_text(text)
        with pytest.raises(CheckpointError, match=because):
            load(folder, device="cpu")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "model", "safetensors"])
@pytest.mark.parametrize("pickle", [False, True])
def test_an_index_of_safetensors_that_names_a_pickle_is_refused(folder, name, pickle):
    file = Mapped(folder / "model.safetensors")
    torch.save({name: file.tensor(name).clone() for name in file.slots}, folder / name)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(file.slots, name)}))
    with pytest.raises(CheckpointError, match=rf"names '{name}', which is no \.safetensors file; .* pickle=True \(--pickle\)"):
        load(folder, device="cpu", pickle=pickle)


def test_a_config_without_a_key_it_needs_says_which(folder):
    config = json.loads((folder / "config.json").read_text())
    del config["hidden_size"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"config\.json lacks 'hidden_size'"):
        load(folder, device="cpu")


class Bomb:
    """What a pickle may do: call anything."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("shards", [1, 2])
def test_pickled_weights_are_read_where_they_are_asked_for(folder, shards):
    file = Mapped(folder / "model.safetensors")
    names = list(file.slots)
    parts = [{name: file.tensor(name).clone() for name in names[i::shards]} for i in range(shards)]
    (folder / "model.safetensors").unlink()
    files = ["pytorch_model.bin"] if shards == 1 else [f"pytorch_model-{i}.bin" for i in range(shards)]
    for part, name in zip(parts, files, strict=True):
        torch.save(part, folder / name)
    if shards > 1:
        index = {name: file for part, file in zip(parts, files, strict=True) for name in part}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    with pytest.raises(CheckpointError, match=r"is a pickle, which may run code: .* pickle=True \(--pickle\)"):
        load(folder, device="cpu")
    assert torch.equal(load(folder, device="cpu", pickle=True).model(TOKENS), tiny()(TOKENS))


def test_a_pickle_that_would_run_code_or_is_cut_off_does_not_get_to(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({"a": Bomb()}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="holds more than tensors"):
        load(folder, device="cpu", pickle=True)
    assert not (tmp_path / "exploded").exists()
    torch.save({"a": torch.ones(3)}, folder / "pytorch_model.bin")
    (folder / "pytorch_model.bin").write_bytes((folder / "pytorch_model.bin").read_bytes()[:-40])
    with pytest.raises(CheckpointError, match=r"damaged or cut off|more than tensors"):
        load(folder, device="cpu", pickle=True)
    torch.save([1, 2], folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="holds a list that is no table"):
        load(folder, device="cpu", pickle=True)


@pytest.fixture(scope="module")
def legacy():
    """A file of torch before 1.6: five pickles, one after the other, then the tensors' bytes."""
    file = io.BytesIO()
    torch.save({"a": torch.ones(3)}, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_damaged_pickle_is_one_clear_error_wherever_it_fails(legacy, tmp_path):
    """Cut off anywhere, bytes changed anywhere, and programs that use a stack which is empty."""
    random = np.random.default_rng(0)
    files = [legacy[:n] for n in range(len(legacy))]
    files += [bytes([code]) + rest for code in range(256) for rest in (b"", b"\xff" * 8)]
    for _ in range(100):
        broken = bytearray(legacy)
        for at in random.integers(0, len(legacy), 3):
            broken[at] = int(random.integers(0, 256))
        files.append(bytes(broken))
    refused = 0
    for data in files:
        (tmp_path / "old.bin").write_bytes(data)
        try:
            read_pickle(tmp_path / "old.bin")
        except CheckpointError:
            refused += 1
    assert refused > 500
    (tmp_path / "old.bin").write_bytes(legacy)
    assert torch.equal(read_pickle(tmp_path / "old.bin")["a"], torch.ones(3))


@pytest.mark.parametrize(
    ("dtype", "because"), [("fp23", "did you mean 'fp32'"), ("int8", "did you mean 'int4'"), ("q4", "known are")]
)
def test_a_wrong_number_format_is_named(folder, dtype, because):
    with pytest.raises(ConfigError, match=because):
        load(folder, dtype=dtype)


def test_int4_is_not_made_of_counts():
    with pytest.raises(ConfigError, match=r"int4 is made while reading safetensors, and .* is not a folder of them"):
        load("world", dtype="int4")


LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096,
    "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "hidden_act": "silu", "max_position_embeddings": 131072, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
    "rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192,
                     "rope_type": "llama3"},
    "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False, "torch_dtype": "bfloat16",
}  # fmt: skip
MEASURE = """
import math, sys, threading, torch, chainrule.hub.load
from chainrule.hub.trace import anonymous_bytes

class Peak(threading.Thread):
    most = 0

    def run(self):  # what is there for a moment only, such as a copy of a matrix, stands in no step
        while not done.wait(0.002):
            self.most = max(self.most, anonymous_bytes())

torch.set_num_threads(1)
steps, done, peak = [], threading.Event(), Peak(daemon=True)
peak.start()
model = chainrule.hub.load.load(sys.argv[1], device="cpu", dtype=sys.argv[2], trace=steps.append).model
done.set()
peak.join()
tensors = [step for step in steps if step.stage == "tensor"]
before = next(step.anonymous_bytes for step in steps if step.stage == "match")
print(len(tensors), sum(math.prod(step.shape) for step in tensors), before, peak.most, sum(step.seconds for step in steps))
"""


def hollow(folder, config=LLAMA_8B):
    """A folder with the layout of a model and a file of weights that is one hole: kilobytes of disk, every number zero."""
    from chainrule.hub.build import build, moves
    from chainrule.models.moves import saved

    with torch.device("meta"):
        table = saved(moves(config), dict(build(config).state_dict()))
    header, at = {}, 0
    for name, tensor in table.items():
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [at, at + 2 * tensor.numel()]}
        at += 2 * tensor.numel()
    raw = json.dumps(header).encode()
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + at)
    return folder


def measured(folder, dtype):
    """(tensors, parameters, anonymous memory before the first tensor, its peak, seconds) of a load in a fresh process."""
    done = subprocess.run([sys.executable, "-c", MEASURE, str(folder), dtype], check=True, capture_output=True, text=True)
    n, parameters, before, peak, seconds = done.stdout.split()
    return int(n), int(parameters), int(before), int(peak), float(seconds)


linux = pytest.mark.skipif(sys.platform != "linux", reason="anonymous memory is read from Linux' /proc/self/status")


@linux
def test_a_hollow_llama_8b_loads_mapped_in_bf16_under_a_gigabyte(tmp_path):
    folder = hollow(tmp_path / "8b")
    assert (folder / "model.safetensors").stat().st_blocks * 512 < 100_000
    n, parameters, _, peak, _ = measured(folder, "bf16")
    assert (n, parameters) == (291, 8_030_261_248)
    assert peak < 1e9


@linux
@pytest.mark.prove
def test_a_hollow_llama_8b_loads_as_int4_under_seven_gigabytes(tmp_path):
    """Keeps its numbers in docs/results.json."""
    n, parameters, _, peak, seconds = measured(hollow(tmp_path / "8b"), "int4")
    found = {"tensors": n, "parameters": parameters, "peak_anonymous_bytes": peak, "seconds": round(seconds, 1)}
    keep_measured("hollow 8B as int4", 1, found)
    assert (n, parameters) == (291, 8_030_261_248)
    assert peak < 7e9


@linux
def test_int4_while_loading_holds_what_it_has_packed_and_a_block_of_rows(tmp_path):
    """Five bits a weight; the table of tokens stays on its pages. No matrix is ever whole in another format."""
    table = 32768 * 1024
    shape = {"vocab_size": 32768, "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
    _, parameters, before, peak, _ = measured(hollow(tmp_path / "small", LLAMA_8B | shape | {"num_hidden_layers": 1}), "int4")
    assert peak - before < 5 / 8 * (parameters - table) + 32 * 2**20 < 2 * table  # the head in bf16, let alone in float32


@torch.no_grad()
@pytest.mark.parametrize("name", ["qwen3-moe", "gpt-oss"])
def test_the_experts_of_a_mixture_lie_in_four_bits_too(name, tmp_path):
    """Five bits a weight for every matrix but the table of tokens and the routers; the scores are those of the codes."""
    published(name, tmp_path / "moe")
    packed, plain = (load(tmp_path / "moe", device="cpu", dtype=dtype).model for dtype in ("int4", "fp32"))
    inner = [p.numel() for name, p in plain.named_parameters() if p.ndim > 1 and ("_proj" in name or name == "lm_head.weight")]
    rest = sum(p.numel() for p in plain.parameters()) - sum(inner)
    wider = sum(p.numel() for router in routers(plain) for p in router.parameters())
    assert size_bytes(packed) == sum(inner) * 5 // 8 + 2 * rest + 2 * wider  # routers stay as they are stored
    for name, parameter in packed.named_parameters():
        plain.get_parameter(name).copy_(parameter)
    for name, layer in packed.named_modules():
        if isinstance(layer, Int4Linear):
            plain.get_parameter(f"{name}.weight").copy_(layer.weight)
        if isinstance(layer, Int4Stack):
            plain.get_parameter(name).copy_(torch.stack([layer[i].weight for i in range(len(layer))]))
    tokens = torch.randint(plain.vocab_size, (2, 9), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(packed.float()(tokens), plain(tokens), atol=1e-3, rtol=1e-4)


def test_a_mixture_as_int4_takes_the_bytes_that_its_plan_counts(tmp_path):
    """Five bits for each weight between embedding and readout, two bytes for the rest; the readout is packed besides."""
    published("qwen3-moe", tmp_path / "moe", num_experts=64, hidden_size=128, moe_intermediate_size=64)
    anatomy = take_apart(load(tmp_path / "moe", device="cpu").model, "moe")
    planned = anatomy.inner * 5 / 8 + (anatomy.total - anatomy.inner) * 2
    assert size_bytes(load(tmp_path / "moe", device="cpu", dtype="int4").model) == pytest.approx(planned, rel=0.05)


@torch.no_grad()
@pytest.mark.parametrize("name", ["deepseek3", "ernie-moe"])
def test_a_router_chooses_the_same_experts_in_every_format(name, tmp_path):
    """Corrections near 7 that differ by less than bf16 tells apart there: a rounded one steers to other experts."""
    theirs = published(name, tmp_path / "moe")
    generator = torch.Generator().manual_seed(1)
    for key, buffer in [*theirs.named_buffers(), *theirs.named_parameters()]:
        if key.endswith("e_score_correction_bias"):
            buffer.copy_(7 + 0.1 * torch.rand(buffer.shape, generator=generator))
    theirs.save_pretrained(tmp_path / "moe")
    plain = cr.load(tmp_path / "moe", device="cpu", dtype="fp32")
    write_model(plain, tmp_path / "f16.gguf", "f16")
    write_model(plain, tmp_path / "bf16.gguf", "bf16")
    narrow = {dtype: load(tmp_path / "moe", device="cpu", dtype=dtype).model for dtype in ("bf16", "fp16", "int4")}
    narrow |= {kind: load(tmp_path / f"{kind}.gguf", device="cpu").model for kind in ("f16", "bf16")}
    narrow["moved"] = load(tmp_path / "moe", device="cpu", dtype="fp32").model.to(torch.bfloat16)
    save(tmp_path / "saved", load(tmp_path / "moe", device="cpu", dtype="bf16").model)
    narrow["saved"] = load(tmp_path / "saved", device="cpu", dtype="bf16").model
    x = torch.randn(64, plain.model.config.d_model, generator=generator)
    for how, model in narrow.items():
        assert model.embed_tokens.weight.dtype in (torch.bfloat16, torch.float16)
        for one, wanted in zip(routers(model), routers(plain.model), strict=True):
            assert torch.equal(one(x).experts, wanted(x).experts), how
            assert torch.equal(one.e_score_correction_bias, wanted.e_score_correction_bias), how


def routers(model):
    return [module for module in model.modules() if isinstance(module, RouterLayer)]
