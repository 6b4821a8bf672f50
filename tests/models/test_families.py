"""Every published family against transformers, on tiny random configurations that exercise what is special about it."""

import json
import re
from dataclasses import replace

import pytest
import torch

from chainrule.core.datum import Layout
from chainrule.core.errors import CheckpointError
from chainrule.hub.build import family, parts
from chainrule.hub.export import export
from chainrule.hub.fresh import fresh_of_config
from chainrule.hub.load import load
from chainrule.hub.save import save
from chainrule.layers.rope import Rope
from chainrule.layers.scaling import Dynamic
from chainrule.models.families import FAMILIES as KNOWN
from chainrule.models.families.qwen3_moe import stacks
from chainrule.models.moves import loaded
from tests.models.parity import checkpoint, close, the_same_model, there_and_back

BASE = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
GPT2 = {"vocab_size": 61, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2}
MOE = BASE | {"moe_intermediate_size": 16, "num_experts_per_tok": 2}
GEMMA = BASE | {"head_dim": 8, "query_pre_attn_scalar": 16, "sliding_window": 5}
MLA = MOE | {
    "num_key_value_heads": 4, "q_lora_rank": 12, "kv_lora_rank": 10, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 5,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16, "rope_theta": 5e5,
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 1e4}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
GLM = {
    "plain": {},
    "no-biases": {"attention_bias": False, "num_key_value_heads": 1},
    "wide-heads": {"head_dim": 16, "num_hidden_layers": 3},
    "all-turned": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0}},
    "tied": {"tie_word_embeddings": True},
}
"""The variants of both releases of GLM-4, which differ in their norms alone."""
FAMILIES = {
    "GPT2": (
        GPT2,
        {
            "plain": {},
            "untied": {"tie_word_embeddings": False},
            "narrow-mlp": {"n_inner": 24, "n_layer": 3},
            "relu": {"activation_function": "relu", "layer_norm_epsilon": 1e-3},
            "one-head": {"n_head": 1},
            "scaled-by-layer": {"scale_attn_by_inverse_layer_idx": True, "n_layer": 3},
        },
    ),
    "Mistral": (
        BASE | {"sliding_window": None},
        {
            "plain": {},
            "window": {"sliding_window": 5},
            "window-of-two": {"sliding_window": 2, "num_key_value_heads": 1},
            "wide-heads": {"head_dim": 16, "sliding_window": 6},
            "yarn": {"rope_parameters": YARN, "tie_word_embeddings": True},
        },
    ),
    "Mixtral": (
        BASE | {"num_local_experts": 4, "num_experts_per_tok": 2},
        {
            "plain": {},
            "one-of-eight": {"num_local_experts": 8, "num_experts_per_tok": 1},
            "all": {"num_local_experts": 3, "num_experts_per_tok": 3},
            "window": {"sliding_window": 5, "head_dim": 16},
            "tied": {"tie_word_embeddings": True, "num_key_value_heads": 4},
        },
    ),
    "Qwen2": (
        BASE,
        {
            "plain": {},
            "tied": {"tie_word_embeddings": True, "num_key_value_heads": 1},
            "upper-windows": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1, "num_hidden_layers": 3},
            "yarn": {"rope_parameters": YARN},
            "theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 777.0}, "rms_norm_eps": 1e-3},
        },
    ),
    "Qwen3": (
        BASE | {"head_dim": 16},
        {
            "plain": {},
            "biases": {"attention_bias": True},
            "windows": {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 0},
            "windows-of-none": {"use_sliding_window": True, "sliding_window": None, "max_window_layers": 0},
            "tied": {"tie_word_embeddings": True, "num_key_value_heads": 4, "head_dim": 4},
            "linear": {"rope_parameters": LINEAR},
        },
    ),
    "Qwen3Moe": (
        MOE | {"num_experts": 4, "head_dim": 8},
        {
            "plain": {},
            "normalised": {"norm_topk_prob": True, "num_experts_per_tok": 3},
            "every-other": {"decoder_sparse_step": 2, "num_hidden_layers": 4},
            "some-dense": {"mlp_only_layers": [0], "num_hidden_layers": 3},
            "tied": {"tie_word_embeddings": True, "num_experts": 8},
            "windows": {"use_sliding_window": True, "sliding_window": 5},
            "windows-of-none": {"use_sliding_window": True, "sliding_window": None},
        },
    ),
    "Gemma2": (
        GEMMA,
        {
            "plain": {},
            "strong-caps": {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
            "no-caps": {"attn_logit_softcapping": None, "final_logit_softcapping": None},
            "three-layers": {"num_hidden_layers": 3, "num_key_value_heads": 1, "sliding_window": 3},
            "untied": {"tie_word_embeddings": False, "head_dim": 16},
        },
    ),
    "Gemma3Text": (
        GEMMA | {"num_hidden_layers": 3},
        {
            "plain": {"sliding_window_pattern": 2},
            "pattern": {"layer_types": ["full_attention", "sliding_attention", "full_attention"]},
            "scaled": {
                "layer_types": ["full_attention", "sliding_attention", "full_attention"],
                "rope_parameters": {"full_attention": LINEAR | {"rope_theta": 1e6},
                                    "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}},
            },
            "caps": {"final_logit_softcapping": 3.0, "num_key_value_heads": 4},
            "untied": {"tie_word_embeddings": False, "head_dim": 16, "sliding_window": 2},
        },
    ),
    "DeepseekV2": (
        MLA | {"num_hidden_layers": 3, "first_k_dense_replace": 1, "n_routed_experts": 4, "n_shared_experts": 2},
        {
            "plain": {},
            "no-query-rank": {"q_lora_rank": None, "first_k_dense_replace": 0},
            "groups": {"topk_method": "group_limited_greedy", "n_group": 2, "topk_group": 1, "routed_scaling_factor": 2.0},
            "yarn": {"rope_parameters": YARN | {"mscale": 0.7, "mscale_all_dim": 0.9}},
            "biases": {"attention_bias": True, "mlp_bias": True},
        },
    ),
    "DeepseekV3": (
        MLA | {"num_hidden_layers": 3, "first_k_dense_replace": 1, "n_routed_experts": 8, "n_group": 4, "topk_group": 2},
        {
            "plain": {},
            "no-query-rank": {"q_lora_rank": None, "n_shared_experts": 2},
            "halves": {"rope_interleave": False, "norm_topk_prob": False},
            "yarn": {"rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}},
            "one-group": {"n_group": 1, "topk_group": 1, "attention_bias": True},
        },
    ),
    "Glm": (BASE | {"head_dim": 8}, GLM),
    "Glm4": (BASE | {"head_dim": 8}, GLM),
    "Glm4Moe": (
        MOE | {"n_routed_experts": 8, "n_shared_experts": 1, "head_dim": 8, "num_hidden_layers": 3},
        {
            "plain": {},
            "norms-and-biases": {"use_qk_norm": True, "attention_bias": True},
            "groups": {"n_group": 4, "topk_group": 2, "routed_scaling_factor": 2.5},
            "two-shared": {"n_shared_experts": 2, "first_k_dense_replace": 2, "norm_topk_prob": False},
            "tied": {"tie_word_embeddings": True},
        },
    ),
    "Ernie4_5": (
        BASE | {"head_dim": 8},
        {
            "plain": {},
            "biases": {"use_bias": True},
            "untied": {"tie_word_embeddings": False, "num_key_value_heads": 4},
            "wide-heads": {"head_dim": 16, "num_key_value_heads": 1},
            "theta": {"rope_parameters": {"rope_type": "default", "rope_theta": 777.0}},
        },
    ),
    "Ernie4_5_Moe": (
        BASE | {"moe_intermediate_size": 16, "moe_k": 2, "moe_num_experts": 4, "num_hidden_layers": 3},
        {
            "plain": {"moe_num_shared_experts": 2},
            "none-shared": {"moe_num_shared_experts": 0},
            "biases": {"use_bias": True, "tie_word_embeddings": False},
            "middle": {"moe_layer_start_index": 1, "moe_layer_end_index": 1},
            "every-other": {"moe_layer_interval": 2, "moe_k": 3},
            "least-sum": {"moe_norm_min": 0.9},
        },
    ),
    "MiniMaxM2": (
        BASE | {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2},
        {
            "plain": {},
            "half-turned": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
            "one-kv-head": {"num_key_value_heads": 1, "num_local_experts": 8, "num_experts_per_tok": 3},
            "tied": {"tie_word_embeddings": True},
            "wide-heads": {"head_dim": 16, "num_hidden_layers": 3},
        },
    ),
    "Llama4Text": (
        BASE | {"head_dim": 8, "num_local_experts": 4, "intermediate_size_mlp": 40, "num_hidden_layers": 4, "attention_chunk_size": 6},
        {
            "plain": {},
            "temperature": {"floor_scale": 4, "attn_scale": 0.5, "no_rope_layer_interval": 2},
            "no-norms": {"use_qk_norm": False, "attn_temperature_tuning": False},
            "every-other": {"interleave_moe_layer_step": 2, "attention_bias": True},
            "two-experts": {"num_experts_per_tok": 2, "rope_parameters": LLAMA3},
            "step": {"rope_parameters": LLAMA3 | {"factor": 16.0, "high_freq_factor": 1.0}},
        },
    ),
    "Phi3": (
        BASE | {"pad_token_id": 0},
        {
            "plain": {},
            "window": {"sliding_window": 5, "num_key_value_heads": 1},
            "partly-turned": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
            "short": {
                "original_max_position_embeddings": 32,
                "rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0, 1.5, 2.0, 2.5],
                                    "long_factor": [1.0, 3.0, 5.0, 9.0], "partial_rotary_factor": 1.0},
            },
            "tied": {"tie_word_embeddings": True, "num_key_value_heads": 4},
        },
    ),
    "Olmo2": (
        BASE,
        {
            "plain": {},
            "biases": {"attention_bias": True},
            "one-kv-head": {"num_key_value_heads": 1},
            "llama3": {"rope_parameters": LLAMA3},
            "tied": {"tie_word_embeddings": True, "num_hidden_layers": 3},
        },
    ),
    "SmolLM3": (
        BASE | {"num_hidden_layers": 4},
        {
            "plain": {},
            "every-other": {"no_rope_layer_interval": 2},
            "chosen": {"no_rope_layers": [0, 1, 1, 0]},
            "windows": {"use_sliding_window": True, "sliding_window": 5},
            "biases": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False},
        },
    ),
    "GptOss": (
        BASE | {"head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 5},
        {
            "plain": {},
            "three-layers": {"num_hidden_layers": 3, "sliding_window": 3},
            "clamped": {"swiglu_limit": 0.1},
            "plain-rope": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
            "no-biases": {"attention_bias": False, "num_key_value_heads": 4},
        },
    ),
}  # fmt: skip
CASES = [(family, name) for family, (_, variants) in FAMILIES.items() for name in variants]


@pytest.mark.parametrize(("family", "name"), CASES, ids=["-".join(case) for case in CASES])
def test_a_family_equals_transformers_there_and_back(family, name, tmp_path):
    transformers = pytest.importorskip("transformers")
    base, variants = FAMILIES[family]
    config = getattr(transformers, family + "Config")(**(base | variants[name]))
    theirs = checkpoint(tmp_path / "theirs", config, seed=CASES.index((family, name)))
    ours = load(tmp_path / "theirs").model
    # transformers counts Llama 4's temperature from the row's first column, padding or not; here positions count
    the_same_model(ours, theirs, left=name != "temperature")
    there_and_back(ours, tmp_path / "ours")


@torch.no_grad()
def test_the_temperature_of_llama_4_counts_from_where_a_padded_row_begins(tmp_path):
    """Every row beside its padding, left or right, as transformers reads it alone."""
    transformers = pytest.importorskip("transformers")
    base, variants = FAMILIES["Llama4Text"]
    theirs = checkpoint(tmp_path, transformers.Llama4TextConfig(**(base | variants["temperature"])))
    ours, lengths = load(tmp_path).model, torch.tensor([17, 9, 1])
    tokens = torch.randint(61, (3, 17), generator=torch.Generator().manual_seed(3))
    for left in (True, False):
        found = ours(tokens, layout=Layout.lengths(lengths, 17, left=left))
        for row, logits, n in zip(tokens, found, lengths.tolist(), strict=True):
            real = slice(17 - n, None) if left else slice(n)
            close(logits[real], theirs(row[None, real]).logits[0])


KIMI = {
    "model_type": "kimi_k2", "scoring_func": "sigmoid", "topk_method": "noaux_tc", "moe_layer_freq": 1, "ep_size": 1,
    "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"},
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES["DeepseekV3"][1])
def test_kimi_k2_is_deepseek_v3_in_its_layout_and_saved_as_that(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    base, variants = FAMILIES["DeepseekV3"]
    theirs = checkpoint(tmp_path / "theirs", transformers.DeepseekV3Config(**(base | variants[name])))
    config = tmp_path / "theirs" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | KIMI))
    ours = load(tmp_path / "theirs").model
    the_same_model(ours, theirs)
    there_and_back(ours, tmp_path / "ours")
    saved = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert saved["model_type"] == "deepseek_v3"
    assert "auto_map" not in saved  # the code that it names is not there


@torch.no_grad()
def test_layers_that_predict_further_tokens_are_left_out(tmp_path):
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import load_file, save_file

    base, _ = FAMILIES["DeepseekV3"]
    theirs = checkpoint(tmp_path, transformers.DeepseekV3Config(**base))
    tensors = load_file(tmp_path / "model.safetensors")
    further = {name.replace(".2.", ".3.", 1): tensor.clone() for name, tensor in tensors.items() if ".layers.2." in name}
    save_file(tensors | further, tmp_path / "model.safetensors", metadata={"format": "pt"})
    tokens = torch.arange(12)[None]
    close(load(tmp_path).model(tokens), theirs(tokens).logits)


@torch.no_grad()
def test_longrope_reads_a_document_by_its_own_length_beside_longer_ones(tmp_path):
    """As transformers reads it alone: packed into a long row, padded beside a long one."""
    transformers = pytest.importorskip("transformers")
    rope = FAMILIES["Phi3"][1]["short"]["rope_parameters"]
    config = transformers.Phi3Config(**BASE, original_max_position_embeddings=10, rope_parameters=rope)
    theirs, ours = checkpoint(tmp_path, config), load(tmp_path).model
    tokens = torch.randint(61, (2, 17), generator=torch.Generator().manual_seed(3))
    long, short = theirs(tokens[:1]).logits[0], theirs(tokens[1:, :6]).logits[0]
    found = ours(tokens, layout=Layout.lengths(torch.tensor([17, 6]), 17))
    close(found[0], long)
    close(found[1, :6], short)
    places = torch.tensor([[*range(17), *range(6)]])
    packed = ours(torch.cat([tokens[0], tokens[1, :6]])[None], layout=Layout(places, torch.tensor([[0] * 17 + [1] * 6])))
    close(packed[0].split([17, 6])[1], short)


@torch.no_grad()
def test_longrope_is_chosen_by_the_declared_length(tmp_path):
    transformers = pytest.importorskip("transformers")
    rope = FAMILIES["Phi3"][1]["short"]["rope_parameters"]
    config = transformers.Phi3Config(**BASE, original_max_position_embeddings=10, rope_parameters=rope)
    theirs, ours = checkpoint(tmp_path, config), load(tmp_path).model
    tokens = torch.randint(61, (2, 17), generator=torch.Generator().manual_seed(3))
    close(ours(tokens), theirs(tokens).logits)  # longer than 10: the long factors
    close(ours(tokens[:, :10]), theirs(tokens[:, :10]).logits)  # the short ones
    cache = ours.cache(2, 17)  # declared for 17: the long ones from the first token on
    close(torch.cat([ours(part, cache) for part in tokens.split([8, 9], dim=1)], 1), theirs(tokens).logits)


TYPES = [name for name in KNOWN if name not in ("t5", "bert")]


def smallest(model_type):
    """A small config of a family."""
    name = {"kimi_k2": "DeepseekV3", "gemma3_text": "Gemma3Text", "llama4_text": "Llama4Text", "gpt_oss": "GptOss"}.get(
        model_type
    )
    name = name or next((known for known in FAMILIES if known.lower() == model_type.replace("_", "")), None)
    name = name or {"ernie4_5": "Ernie4_5", "ernie4_5_moe": "Ernie4_5_Moe", "llama": "Mistral"}[model_type]
    config = FAMILIES[name][0] | {"model_type": model_type}
    config.pop("sliding_window", None) if model_type == "llama" else None
    if model_type in ("deepseek_v2", "glm4_moe"):
        config |= {"n_group": 1, "topk_group": 1}
    caps = {"attn_logit_softcapping": None, "final_logit_softcapping": None}
    return {"gemma2": caps, "deepseek_v3": {"n_shared_experts": 1}, "kimi_k2": {"n_shared_experts": 1}}.get(
        model_type, {}
    ) | config


@pytest.mark.parametrize("model_type", TYPES)
def test_a_family_refuses_a_key_that_it_does_not_know(model_type):
    config = smallest(model_type)
    parts(config)
    with pytest.raises(CheckpointError, match="'rms_norm_epsilonn'"):
        parts(config | {"rms_norm_epsilonn": 1})
    assert family(model_type).moves(config)


GENERATING = {
    "do_sample": False, "early_stopping": False, "max_length": 20, "num_beams": 1, "temperature": 1.0, "top_k": 50, "top_p": 1.0,
    "repetition_penalty": 1.0, "length_penalty": 1.0, "num_return_sequences": 1, "bad_words_ids": None, "prefix": None,
    "return_dict_in_generate": False, "pruned_heads": {}, "use_bfloat16": False, "torchscript": False, "finetuning_task": None,
}  # fmt: skip
"""What transformers before 5 wrote into a config that was dumped whole."""


@pytest.mark.parametrize("model_type", TYPES)
def test_a_key_that_asks_for_nothing_is_no_error(model_type):
    config = smallest(model_type)
    nothing = {"use_mrope": False, "n_twirls": 0, "twirled": [], "twirls": {}, "twirl": "", "twirl_ratio": 0.0}
    assert parts(config | nothing | GENERATING) == parts(config)
    for key, value in (("use_mrope", True), ("n_twirls", 1), ("pruned_heads", {"0": [1]})):
        with pytest.raises(CheckpointError, match=repr(key)):
            parts(config | {key: value})


GPT2_OLD = {"n_ctx": 64, "summary_type": "cls_index", "summary_use_proj": True, "summary_first_dropout": 0.1}
PUBLISHED = {
    "Qwen2.5-0.5B": ("qwen2", {"use_mrope": False, "use_sliding_window": False, "sliding_window": 32768, "max_window_layers": 24}),
    "SmolLM2-135M": ("llama", {"is_llama_config": True, "rope_interleaved": False, "transformers.js_config": {"dtype": "q4"}}),
    "llama-7b": ("llama", {"max_sequence_length": 2048}),
    "Llama-2-13b": ("llama", {"pretraining_tp": 2}),
    "gpt2-medium": ("gpt2", GPT2_OLD | {"n_special": 0, "predict_special_tokens": True}),
    "distilgpt2": ("gpt2", GPT2_OLD | {"_num_labels": 1, "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}),
    "gpt2-xl": ("gpt2", GPT2_OLD | {"output_past": True, "gradient_checkpointing": False, "num_labels": 1}),
    "gemma-2-9b": ("gemma2", {"sliding_window": 5, "sliding_window_size": 5, "cache_implementation": "hybrid"}),
    "Qwen3-Coder-30B-A3B": ("qwen3_moe", {"use_qk_norm": True, "shared_expert_intermediate_size": 0, "qkv_bias": False}),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_published_configs_say_beside_is_read(name):
    model_type, more = PUBLISHED[name]
    assert parts(smallest(model_type) | more) == parts(smallest(model_type))


@pytest.mark.parametrize(
    ("model_type", "more", "message"),
    [
        ("llama", {"rope_interleaved": True}, "rope_interleaved=True"),
        ("ernie4_5", {"rope_interleave": False}, "rope_interleave=False"),
        ("qwen2", {"is_causal": False}, "is_causal=False"),
        ("gpt2", {"is_causal": False}, "is_causal=False"),
        ("mixtral", {"norm_topk_prob": False}, "norm_topk_prob=False"),
        ("ernie4_5_moe", {"norm_topk_prob": False}, "norm_topk_prob=False"),
        ("qwen3_moe", {"use_qk_norm": False}, "use_qk_norm=False"),
        ("qwen2", {"qkv_bias": False}, "qkv_bias=False"),
        ("mistral", {"sliding_window": 5, "use_sliding_window": False}, "use_sliding_window=False"),
        ("gemma2", {"sliding_window_size": 4096}, "sliding_window_size=4096"),
        ("gemma2", {"tie_word_embedding": False}, "did you mean 'tie_word_embeddings'"),
    ],
)
def test_a_false_that_turns_off_what_a_family_does_is_refused(model_type, more, message):
    with pytest.raises(CheckpointError, match=message):
        parts(smallest(model_type) | more)


@pytest.mark.parametrize(
    ("model_type", "key", "value"),
    [
        ("minimax_m2", "layernorm_full_attention_beta", 3.5),
        ("minimax_m2", "layernorm_linear_attention_beta", 0.5),
        ("minimax_m2", "layernorm_mlp_beta", 0),
        ("phi3", "full_attn_mod", 2),
        ("phi3", "interpolate_factor", 4),
        ("deepseek_v3", "mlp_bias", True),
        ("deepseek_v3", "num_key_value_heads", 2),
        ("deepseek_v2", "num_key_value_heads", 1),
    ],
)
def test_a_key_that_would_mean_another_model_has_the_one_value_that_does_not(model_type, key, value):
    config, usual = smallest(model_type), {"mlp_bias": False, "num_key_value_heads": 4}.get(key, 1)
    assert parts(config | {key: usual}) == parts(config | {key: None})
    with pytest.raises(CheckpointError, match=f"{key}={value} is not supported"):
        parts(config | {key: value})


def test_qwen3_moe_has_windows_in_every_layer_or_in_none():
    config, window = smallest("qwen3_moe"), {"use_sliding_window": True, "sliding_window": 5}
    full, sliding = ["full_attention"] * 2, ["sliding_attention"] * 2
    assert parts(config | {"layer_types": full, "max_window_layers": 1}) == parts(config)
    assert parts(config | window | {"layer_types": sliding, "max_window_layers": 1}) == parts(config | window)
    for more in (window | {"layer_types": [full[0], sliding[0]]}, window | {"layer_types": full}, {"layer_types": sliding}):
        with pytest.raises(CheckpointError, match=r"layer_types holds '(full|sliding)_attention'"):
            parts(config | more)


FACTORS = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}


@pytest.mark.parametrize(
    ("rope", "key"),
    [
        ({"rope_type": "default", "factor": 8}, "factor=8, .* 'default' does not read; say the type that does"),
        ({"factor": 8.0}, "factor=8.0"),
        ({"type": "linear", "factor": 4.0, "attention_factor": 0.5}, "attention_factor=0.5"),
        ({"rope_type": "dynamic", "factor": 2.0, "beta_fast": 32}, "beta_fast=32"),
        (LLAMA3 | {"mscale": 0.7}, "mscale=0.7"),
        (YARN | {"low_freq_factor": 1.0}, "low_freq_factor=1.0"),
        (YARN | FACTORS, "short_factor="),
        (FACTORS | {"rope_type": "su", "truncate": False}, "truncate=False"),
    ],
)
def test_what_the_type_of_rope_does_not_read_is_refused(rope, key):
    for style in ("rope_scaling", "rope_parameters"):
        with pytest.raises(CheckpointError, match=f"the rope parameters say {key}"):
            parts(smallest("llama") | {style: rope})


def test_yarn_that_says_how_long_rows_were_lengthens_the_context():
    """As the cards of Qwen2.5 and Qwen3 tell their users to, who leave ``max_position_embeddings`` as it was."""
    config, yarn = smallest("qwen2"), {"type": "yarn", "factor": 4.0}
    assert parts(config | {"rope_scaling": yarn | {"original_max_position_embeddings": 64}}).context == 256
    assert parts(config | {"rope_scaling": yarn | {"original_max_position_embeddings": 16}}).context == 64
    assert parts(config | {"rope_scaling": yarn}).context == 64
    finetuned = {"original_max_position_embeddings": 16, "finetuned": True}  # as Nous' models say
    assert parts(config | {"rope_scaling": yarn | finetuned}).context == 64


def test_a_new_model_reads_the_context_that_is_asked_or_is_refused():
    yarn = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
    config = smallest("qwen2") | {"rope_scaling": yarn}
    assert [fresh_of_config(config, vocab_size=61, context=n, seed=0).context for n in (48, 256)] == [48, 256]
    with pytest.raises(CheckpointError, match="context=100, but by its YaRN this config reads 256"):
        fresh_of_config(config, vocab_size=61, context=100, seed=0)


def test_a_dynamic_rope_stretches_beyond_the_context_whatever_else_the_config_says():
    rope = {"type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 16}
    dynamic = parts(smallest("llama") | {"rope_scaling": rope})
    assert dynamic.position.scaling.original == 64
    other = replace(dynamic, position=Rope(scaling=Dynamic(factor=2.0, original=16)))
    with pytest.raises(CheckpointError, match=r"as long as its context \(64\); here they are 16"):
        family("llama").to_published(other)


def test_two_styles_of_rope_in_one_config_are_refused():
    both = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}, "rope_scaling": YARN}
    for model_type in ("deepseek_v3", "llama"):
        with pytest.raises(CheckpointError, match="'rope_scaling'"):
            parts(smallest(model_type) | both)


@pytest.mark.parametrize("model_type", ["deepseek_v3", "kimi_k2", "glm4_moe", "ernie4_5_moe"])
def test_what_is_saved_has_no_layers_that_predict_further_tokens(model_type, tmp_path):
    """They were not loaded: programs that count them would look for their weights."""
    config = smallest(model_type) | {"num_nextn_predict_layers": 1}
    save(tmp_path, fresh_of_config(config, vocab_size=61, context=64, seed=0))
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["num_nextn_predict_layers"] == 0


def test_ernie_without_shared_experts_says_so_when_it_is_saved(tmp_path):
    """Left out, transformers makes two of them."""
    config = {key: value for key, value in smallest("ernie4_5_moe").items() if key != "moe_num_shared_experts"}
    save(tmp_path, fresh_of_config(config, vocab_size=61, context=64, seed=0))
    assert json.loads((tmp_path / "config.json").read_text())["moe_num_shared_experts"] == 0


def test_what_asks_for_nothing_of_a_rope_is_read():
    config, nothing = smallest("llama"), {"low_freq_factor": None, "high_freq_factor": None, "attention_factor": 1.0}
    plain = nothing | {"rope_type": "default", "factor": 1.0, "original_max_position_embeddings": 16}
    assert parts(config | {"rope_scaling": plain}) == parts(config)
    linear = {"type": "linear", "factor": 4.0}
    scaled = parts(config | {"rope_scaling": linear})
    assert parts(config | {"rope_scaling": linear | nothing | {"original_max_position_embeddings": 16}}) == scaled


@torch.no_grad()
def test_gpt2_knows_its_sizes_by_the_names_of_other_families_too(tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs = checkpoint(tmp_path / "theirs", transformers.GPT2Config(**GPT2))
    path = tmp_path / "theirs" / "config.json"
    config = json.loads(path.read_text())
    others = {
        "n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads",
        "n_positions": "max_position_embeddings",
    }  # fmt: skip
    path.write_text(json.dumps({others.get(key, key): value for key, value in config.items()}))
    lm = load(tmp_path / "theirs")
    the_same_model(lm.model, theirs)
    there_and_back(lm.model, tmp_path / "ours")
    for to, name in (("gguf", "x.gguf"), ("llmc", "x.bin")):
        export(lm, tmp_path / name, to=to, kind="f32")
        tokens = torch.arange(12)[None]
        close(load(tmp_path / name).model(tokens), theirs(tokens).logits)


def test_an_unknown_family_is_named_with_the_nearest(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mistrall"}))
    with pytest.raises(CheckpointError, match="did you mean 'mistral'") as raised:
        load(tmp_path)
    assert set(KNOWN) <= set(re.findall(r"\w+", str(raised.value).partition("(all: ")[2]))


@pytest.mark.parametrize("there", [(1, 2), (0, 2), (0, 999_999_999)])
def test_an_expert_that_is_missing_is_named_however_far_the_others_are_numbered(there):
    gates = {f"layers.0.mlp.experts.{e}.gate_proj.weight": torch.zeros(3, 2) for e in there}
    missing = min({0, 1} - set(there))
    with pytest.raises(CheckpointError, match=rf"layers\.0\.mlp\.experts\.{missing}\.gate_proj\.weight is missing"):
        loaded(stacks(), gates)
