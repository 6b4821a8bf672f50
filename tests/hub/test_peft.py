"""Adapters on disk, held to PEFT: its folders here and ours there, the same scores; what does not fit is refused."""

import json

import pytest
import torch
from torch.testing import assert_close

from chainrule.adapt.lora import Lora, adapters, attach, merge
from chainrule.cli import main
from chainrule.core.errors import CheckpointError
from chainrule.hub.load import load
from chainrule.hub.peft import read_adapter, write_adapter
from chainrule.hub.peft.layout import CONFIG, WEIGHTS
from chainrule.hub.safetensors import Mapped, write_tensors

TOKENS = torch.randint(61, (2, 9), generator=torch.Generator().manual_seed(0))
SMALL = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL |= {"num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BASES = {
    "llama": ("LlamaConfig", SMALL | {"tie_word_embeddings": False}, ["q_proj", "v_proj", "down_proj", "lm_head"]),
    "tied": ("LlamaConfig", SMALL | {"tie_word_embeddings": True}, ["q_proj", "v_proj"]),
    "phi3": ("Phi3Config", SMALL, ["qkv_proj", "gate_up_proj", "o_proj"]),
    "gpt2": (
        "GPT2Config",
        {"vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
        ["c_attn", "c_proj", "c_fc"],
    ),
    "glm4": ("Glm4Config", SMALL | {"head_dim": 8}, ["q_proj", "k_proj", "gate_up_proj"]),
}
KINDS = {
    "plain": {"r": 4, "lora_alpha": 6},
    "stabilised": {"r": 4, "lora_alpha": 6, "use_rslora": True},
    "dora": {"r": 4, "lora_alpha": 6, "use_dora": True},
    "patterns": {"r": 4, "lora_alpha": 6, "rank_pattern": {"layers.1.self_attn.q_proj": 2}, "alpha_pattern": {"v_proj": 20}},
}


def bases(tmp_path, family):
    """(folder of a random base, the same in transformers, the names an adapter may go beside)."""
    transformers = pytest.importorskip("transformers")
    config, settings, targets = BASES[family]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, config)(**settings)).eval().float()
    model.save_pretrained(tmp_path / family)
    return tmp_path / family, model, targets


def theirs(tmp_path, family, **kind):
    """(folder of the base, PEFT's model, the folder of an adapter that has learned something)."""
    peft = pytest.importorskip("peft")
    folder, model, targets = bases(tmp_path, family)
    made = peft.get_peft_model(model, peft.LoraConfig(target_modules=targets, task_type="CAUSAL_LM", **kind)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    made.save_pretrained(tmp_path / "adapter")
    return folder, made, tmp_path / "adapter"


def close(ours, expected):
    assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def changed(folder, **settings):
    """The adapter's config with other settings."""
    config = json.loads((folder / CONFIG).read_text()) | settings
    (folder / CONFIG).write_text(json.dumps(config))
    return folder


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "kind"),
    [("llama", kind) for kind in KINDS] + [(f, k) for f in ("phi3", "gpt2", "glm4") for k in ("plain", "dora")],
)
def test_an_adapter_of_peft_gives_pefts_scores_here_and_back_there(tmp_path, family, kind):
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    folder, made, adapter = theirs(tmp_path, family, **KINDS[kind])
    expected = made(TOKENS).logits
    lm = load(folder, adapter=adapter)
    close(lm.model(TOKENS), expected)
    assert (lm.model(TOKENS) - load(folder).model(TOKENS)).abs().max() > 1e-2

    write_adapter(lm.model, tmp_path / "ours", base=str(folder))
    fresh_base = transformers.AutoModelForCausalLM.from_pretrained(folder)
    close(peft.PeftModel.from_pretrained(fresh_base, tmp_path / "ours").eval()(TOKENS).logits, expected)
    close(load(folder, adapter=tmp_path / "ours").model(TOKENS), expected)

    merge(lm.model)
    close(lm.model(TOKENS), expected)
    lm.save(tmp_path / "merged")
    close(transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()(TOKENS).logits, expected)


@torch.no_grad()
@pytest.mark.parametrize(
    ("family", "modules"),
    [
        ("llama", ["lm_head"]),
        ("llama", ["model.embed_tokens"]),
        ("llama", ["lm_head", "model.norm"]),
        ("gpt2", ["transformer.wpe"]),
        ("gpt2", ["transformer.ln_f"]),
        ("tied", ["model.embed_tokens"]),
    ],
)
def test_modules_saved_whole_are_replaced_and_written_again(tmp_path, family, modules):
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    more = {"exclude_modules": ["lm_head"], "ensure_weight_tying": family == "tied"}
    folder, made, adapter = theirs(tmp_path, family, r=2, modules_to_save=modules, **more)
    for name, parameter in made.named_parameters():
        if ".modules_to_save." in name:
            parameter.mul_(1.5)
    made.save_pretrained(adapter)
    expected = made(TOKENS).logits
    lm = load(folder, adapter=adapter)
    close(lm.model(TOKENS), expected)

    write_adapter(lm.model, tmp_path / "ours", base=str(folder))
    config = json.loads((tmp_path / "ours" / CONFIG).read_text())
    assert (config["modules_to_save"], config["task_type"]) == (["lm_head"] * (family == "tied") + modules, "CAUSAL_LM")
    assert set(Mapped(tmp_path / "ours" / WEIGHTS).slots) == set(Mapped(adapter / WEIGHTS).slots)
    close(load(folder, adapter=tmp_path / "ours").model(TOKENS), expected)
    fresh_base = transformers.AutoModelForCausalLM.from_pretrained(folder)
    close(peft.PeftModel.from_pretrained(fresh_base, tmp_path / "ours").eval()(TOKENS).logits, expected)


def test_a_head_in_four_bits_is_not_replaced(tmp_path):
    folder, made, adapter = theirs(tmp_path, "llama", r=2, modules_to_save=["lm_head"], exclude_modules=["lm_head"])
    with torch.no_grad():
        made.base_model.model.lm_head.modules_to_save["default"].weight.mul_(1.5)
    made.save_pretrained(adapter)
    with pytest.raises(CheckpointError, match=r"replaces lm_head.weight, which lies in four bits here; load the base in bf16"):
        load(folder, adapter=adapter, dtype="int4")


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "targets", "task"),
    [
        ("T5ForConditionalGeneration", ("q_proj", "v_proj"), "SEQ_2_SEQ_LM"),
        ("BertForMaskedLM", ("q_proj", "v_proj"), None),
        ("BertModel", ("q_proj", "v_proj"), "FEATURE_EXTRACTION"),
    ],
)
def test_an_adapter_says_what_its_model_is_for(tmp_path, kind, targets, task):
    """PEFT wraps a model by the task's name; the states or scores with it are ours."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 61,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "decoder_start_token_id": 0,
    }
    bert = {"vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.T5Config(**sizes) if task == "SEQ_2_SEQ_LM" else transformers.BertConfig(**bert)
    model = getattr(transformers, kind)(config).eval()
    model.save_pretrained(tmp_path / "base")
    ours = load(tmp_path / "base").model
    attach(ours, Lora(rank=2), targets, torch.Generator().manual_seed(2))
    for layer in adapters(ours).values():
        layer.b.copy_(torch.randn(layer.b.shape, generator=torch.Generator().manual_seed(3)))
    write_adapter(ours, tmp_path / "adapter", base=str(tmp_path / "base"))
    assert json.loads((tmp_path / "adapter" / CONFIG).read_text())["task_type"] == task
    wrapped = peft.PeftModel.from_pretrained(model, tmp_path / "adapter").eval()
    assert (task is None) == (type(wrapped) is peft.PeftModel)
    if task == "SEQ_2_SEQ_LM":
        source = TOKENS.flip(1)
        close(ours(TOKENS, given={"source": source}), wrapped(input_ids=source, decoder_input_ids=TOKENS).logits)
        return
    found = wrapped(input_ids=TOKENS)
    close(ours.states(TOKENS) if task else ours(TOKENS), found.last_hidden_state if task else found.logits)


@torch.no_grad()
def test_an_adapter_made_here_runs_in_peft(tmp_path):
    peft = pytest.importorskip("peft")
    folder, model, _ = bases(tmp_path, "llama")
    lm = load(folder)
    attach(lm.model, Lora(rank=3, alpha=5.0), ("q_proj", "up_proj"), torch.Generator().manual_seed(2))
    for layer in adapters(lm.model).values():
        layer.b.copy_(torch.randn(layer.b.shape, generator=torch.Generator().manual_seed(3)))
    write_adapter(lm.model, tmp_path / "ours", base=str(folder))
    config = json.loads((tmp_path / "ours" / CONFIG).read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (3, 5, ["q_proj", "up_proj"])
    assert list(config) == sorted(config)
    close(peft.PeftModel.from_pretrained(model, tmp_path / "ours").eval()(TOKENS).logits, lm.model(TOKENS))


EMBEDDINGS = {
    "lora": ("llama", {"target_modules": ["q_proj", "embed_tokens"], "r": 4, "lora_alpha": 6}),
    "stabilised": ("llama", {"target_modules": ["q_proj", "embed_tokens"], "r": 4, "use_rslora": True}),
    "patterns": ("llama", {"target_modules": ["q_proj", "embed_tokens"], "r": 4, "rank_pattern": {"embed_tokens": 3},
                           "alpha_pattern": {"embed_tokens": 20}}),
    "rows": ("llama", {"target_modules": ["q_proj"], "r": 4, "trainable_token_indices": [60, 3, 5]}),
    "rows-by-name": ("llama", {"target_modules": ["q_proj"], "r": 4, "trainable_token_indices": {"embed_tokens": [3]}}),
    "rows-tied": ("tied", {"target_modules": ["q_proj"], "r": 4, "trainable_token_indices": [3, 5]}),
    "rows-gpt2": ("gpt2", {"target_modules": ["c_attn"], "r": 4, "trainable_token_indices": [3, 5]}),
}  # fmt: skip


def embedding_adapter(tmp_path, name):
    """(folder of the base, PEFT's model, the folder of an adapter that changes the embedding table)."""
    peft = pytest.importorskip("peft")
    family, settings = EMBEDDINGS[name]
    folder, model, _ = bases(tmp_path, family)
    made = peft.get_peft_model(model, peft.LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in [one for one in made.parameters() if one.requires_grad]:
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    made.save_pretrained(tmp_path / "adapter")
    return folder, made, tmp_path / "adapter"


@torch.no_grad()
@pytest.mark.parametrize("name", EMBEDDINGS)
def test_an_adapter_of_the_embedding_table_becomes_part_of_it_and_goes_back_to_peft(tmp_path, name):
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    folder, made, adapter = embedding_adapter(tmp_path, name)
    tokens = torch.arange(60).view(4, 15) + 1
    expected = made(tokens).logits
    lm = load(folder, adapter=adapter)
    close(lm.model(tokens), expected)
    write_adapter(lm.model, tmp_path / "ours")
    base = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    close(peft.PeftModel.from_pretrained(base, tmp_path / "ours").eval()(tokens).logits, expected)
    merge(lm.model)
    close(lm.model(tokens), expected)
    assert all(parameter.requires_grad for parameter in lm.model.parameters())


def test_an_adapter_of_the_table_that_does_not_fit_is_refused(tmp_path):
    folder, _, adapter = embedding_adapter(tmp_path, "lora")
    file = Mapped(adapter / WEIGHTS)
    table = {name: file.tensor(name).clone() for name in file.slots}
    stem = "base_model.model.model.embed_tokens."
    for change, because in [
        ({stem + "lora_embedding_A": torch.zeros(4, 62)}, r"embed_tokens is 62 × 32 .*, but this model's is 61 × 32"),
        ({stem + "lora_embedding_A": torch.zeros(3, 61)}, "a rank of 4, its tensors have 3"),
        ({stem + "lora_embedding_A": torch.zeros(4)}, r"are \(4,\) and \(32, 4\); both are matrices"),
        (
            {stem + "token_adapter.trainable_tokens_delta": torch.zeros(2, 32)},
            "new rows of model.embed_tokens for the tokens None",
        ),
        ({"base_model.model.elsewhere.lora_embedding_A": torch.zeros(4, 61)}, "changes elsewhere, of which .* no table"),
    ]:
        write_tensors(table | change, adapter / WEIGHTS)
        with pytest.raises(CheckpointError, match=because):
            load(folder, adapter=adapter)
    write_tensors(table, adapter / WEIGHTS)
    tied, _, _ = bases(tmp_path, "tied")
    with pytest.raises(
        CheckpointError, match=r"adapts model.embed_tokens alone, but this model reads and writes with one table"
    ):
        load(tied, adapter=adapter)
    for tokens in ([3, 5, 61], [3, 5], {"lm_head": [3, 5, 6]}, "all"):
        folder, _, adapter = embedding_adapter(tmp_path, "rows")
        with pytest.raises(CheckpointError, match=r"has \(3, 32\) new rows of model.embed_tokens for the tokens"):
            load(folder, adapter=changed(adapter, trainable_token_indices=tokens))


def test_a_fused_matrix_is_adapted_whole_or_not_at_all(tmp_path):
    folder, _, _ = bases(tmp_path, "phi3")
    for target in ("q_proj", "v_proj"):
        lm = load(folder)
        attach(lm.model, Lora(rank=2), (target,))
        with pytest.raises(CheckpointError, match=r"self_attn.._proj.* is one matrix with its neighbours"):
            write_adapter(lm.model, tmp_path / "ours")
    lm = load(folder)
    attach(lm.model, Lora(rank=2), ("q_proj", "k_proj", "v_proj"))
    with pytest.raises(CheckpointError, match="its parts learned each their own"):
        write_adapter(lm.model, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_an_adapter_for_another_base_shows_both_shapes(tmp_path):
    _, _, adapter = theirs(tmp_path, "llama", r=2)
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(**SMALL | {"hidden_size": 64, "tie_word_embeddings": False})
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match=r"for another base: its lm_head is 61 × 32, but this model's is 61 × 64"):
        load(tmp_path / "other", adapter=adapter)
    other, _, _ = bases(tmp_path, "gpt2")
    with pytest.raises(CheckpointError, match=r"for another base: it changes .*which this model does not have"):
        load(other, adapter=adapter)


@pytest.mark.parametrize(
    ("settings", "because"),
    [
        ({"peft_type": "IA3"}, "adapter of type 'IA3'; LORA"),
        ({"bias": "all"}, "bias='all' is not supported"),
        ({"init_lora_weights": "pissa"}, "begun by 'pissa', which changes the base"),
        ({"trainable_token_indices": [1, 2]}, "names trainable_token_indices, but .*trainable_tokens_delta is nowhere"),
        ({"use_rslora2": True}, "uses use_rslora2=True, which is not supported.*did you mean 'use_rslora'"),
        ({"use_dora": True}, "says use_dora=true, which .* tensors contradict"),
        ({"r": 3}, "a rank of 3, its tensors have 2"),
        ({"rank_pattern": {"q_proj": 7}}, "q_proj a rank of 7, its tensors have 2"),
        ({"lora_alpha": "x"}, "lora_alpha is 'x'; it must be a number"),
        ({"lora_dropout": [1]}, r"lora_dropout is \[1\]; it must be a number"),
        ({"alpha_pattern": ["a"]}, "must be a table of names and numbers"),
        ({"alpha_pattern": {"(": 3}}, "is no pattern"),
        ({"alpha_pattern": {"q_proj": "x"}}, "alpha_pattern holds 'x'"),
    ],
)
def test_what_an_adapter_asks_for_and_is_not_here_is_refused(tmp_path, settings, because):
    folder, _, adapter = theirs(tmp_path, "llama", r=2)
    with pytest.raises(CheckpointError, match=because):
        load(folder, adapter=changed(adapter, **settings))


def test_an_adapter_made_for_a_model_of_another_name_says_so(tmp_path, capsys):
    folder, _, adapter = theirs(tmp_path, "llama", r=2)
    load(folder, adapter=changed(adapter, base_model_name_or_path="somewhere/llama"))
    assert "note: " not in capsys.readouterr().err
    load(folder, adapter=changed(adapter, base_model_name_or_path="org/alpaca"))
    assert "was trained beside org/alpaca, and stands beside llama here" in capsys.readouterr().err
    (adapter / CONFIG).write_text("[]")
    with pytest.raises(CheckpointError, match="holds a list, not names with values; copy it again"):
        load(folder, adapter=adapter)


def test_a_damaged_adapter_is_refused_and_leaves_the_model_as_it_was(tmp_path):
    folder, _, adapter = theirs(tmp_path, "llama", r=2)
    file = Mapped(adapter / WEIGHTS)
    table = {name: file.tensor(name).clone() for name in file.slots}
    lm = load(folder)
    before = lm.model(TOKENS)
    for change, because in [
        (
            lambda t: {n: x for n, x in t.items() if "layers.1.self_attn.v_proj.lora_B" not in n},
            "only one of lora_A and lora_B",
        ),
        (
            lambda t: t | {"base_model.model.model.embed_tokens.lora_embedding_A": torch.zeros(2, 61)},
            "has only one of lora_embedding_A and lora_embedding_B",
        ),
        (lambda t: t | {"base_model.model.model.embed_tokens.vera_lambda_b": torch.zeros(2)}, "no part of a LoRA of linear"),
        (
            lambda t: {n: x[:1] if n.endswith("v_proj.lora_A.weight") else x for n, x in t.items()},
            "lora_A of 1 rows and lora_B of 2",
        ),
    ]:
        write_tensors(change(table), adapter / WEIGHTS)
        with pytest.raises(CheckpointError, match=because):
            read_adapter(lm.model, adapter)
        assert torch.equal(lm.model(TOKENS), before)
    (adapter / WEIGHTS).write_bytes(b"\x10\0\0\0\0\0\0\0{")
    with pytest.raises(CheckpointError, match="damaged or cut off"):
        read_adapter(lm.model, adapter)
    (adapter / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"holds no adapter_model.safetensors"):
        read_adapter(lm.model, adapter)


@pytest.mark.parametrize(
    ("part", "shape", "because"),
    [
        ("lora_A.weight", (2,), r"q_proj\.lora_A\.weight is \(2,\); lora_A and lora_B are matrices"),
        ("lora_B.weight", (), r"q_proj\.lora_B\.weight is \(\); lora_A and lora_B are matrices"),
        ("lora_magnitude_vector", (), r"q_proj\.lora_magnitude_vector is \(\); .* a magnitude is a vector"),
        ("lora_magnitude_vector", (3,), "q_proj has a magnitude for 3 rows, but lora_B has 32"),
    ],
)
def test_a_tensor_of_an_odd_shape_in_an_adapter_is_refused(tmp_path, part, shape, because):
    folder, _, adapter = theirs(tmp_path, "llama", r=2, use_dora=True)
    file = Mapped(adapter / WEIGHTS)
    table = {name: file.tensor(name).clone() for name in file.slots}
    name = f"base_model.model.model.layers.0.self_attn.q_proj.{part}"
    assert name in table
    write_tensors(table | {name: torch.zeros(shape)}, adapter / WEIGHTS)
    with pytest.raises(CheckpointError, match=because):
        load(folder, adapter=adapter)


def test_a_module_saved_whole_in_an_odd_shape_is_refused(tmp_path):
    folder, _, adapter = theirs(tmp_path, "phi3", r=2)
    file = Mapped(adapter / WEIGHTS)
    table = {name: file.tensor(name).clone() for name in file.slots}
    whole = {"base_model.model.model.layers.0.self_attn.qkv_proj.weight": torch.zeros(())}
    write_tensors(table | whole, adapter / WEIGHTS)
    with pytest.raises(CheckpointError, match="holds tensors of other shapes"):
        load(folder, adapter=adapter)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_an_adapters_link_out_of_its_folder_is_refused(tmp_path, name):
    folder, _, adapter = theirs(tmp_path, "llama", r=2)
    (adapter / name).rename(tmp_path / name)
    (adapter / name).symlink_to(tmp_path / name)
    with pytest.raises(CheckpointError, match=rf"{name} leads out of its folder, to .*; copy the file itself into {adapter}"):
        load(folder, adapter=adapter)


def test_an_adapter_is_neither_model_nor_saved_beside_one(tmp_path):
    folder, _, adapter = theirs(tmp_path, "llama", r=2)
    changed(adapter, base_model_name_or_path=str(folder))
    with pytest.raises(CheckpointError, match=f"is an adapter, not a model; load its base and it: {folder} --adapter"):
        load(adapter)
    lm = load(folder, adapter=adapter)
    with pytest.raises(CheckpointError, match="has an adapter beside its weights; merge the two first"):
        lm.save(tmp_path / "out")
    with pytest.raises(CheckpointError, match="has an adapter already"):
        read_adapter(lm.model, adapter)
    with pytest.raises(CheckpointError, match=r"is no folder with adapter_config.json"):
        load(folder, adapter=tmp_path / "none")
    with pytest.raises(CheckpointError, match="has no linear layers"):
        load("world", adapter=adapter)


def test_the_step_is_told_and_the_terminal_knows_adapters(tmp_path):
    folder, made, adapter = theirs(tmp_path, "llama", r=2)
    steps = []
    load(folder, adapter=adapter, trace=steps.append)
    assert [step.stage for step in steps][-2:] == ["device", "adapter"]
    assert main(["export", str(folder), str(tmp_path / "merged"), "--adapter", str(adapter), "--device", "cpu"]) == 0
    with torch.no_grad():
        close(load(tmp_path / "merged").model(TOKENS), made(TOKENS).logits)
