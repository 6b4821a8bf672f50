"""Small random models of every architecture that is written as GGUF, with the features that make each one special."""

from pathlib import Path
from typing import Any

import pytest
import torch

TINY = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "tie_word_embeddings": False,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32, "rope_theta": 5e5,
}  # fmt: skip
CAPS = {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8, "num_hidden_layers": 4}
HALF = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
LONGROPE = {
    "rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 4,
    "short_factor": [1.0, 1.0, 1.25, 1.25, 1.5, 1.5, 2.0, 2.5], "long_factor": [1.0, 1.25, 1.5, 2.0, 4.0, 6.5, 8.0, 12.0],
}  # fmt: skip
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "rope_theta": 1e4}
MOE = {"num_hidden_layers": 3, "first_k_dense_replace": 1, "moe_intermediate_size": 32, "num_experts_per_tok": 2}
MLA = MOE | {
    "q_lora_rank": 24, "kv_lora_rank": 32, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 12,
    "num_key_value_heads": 4,
}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama-tied-one-kv-head": ("Llama", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "llama-wide-heads": ("Llama", {"head_dim": 32}),
    "llama-biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama3-rope": ("Llama", {"rope_parameters": LLAMA3, "rms_norm_eps": 1e-5}),
    "llama-linear-rope": ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 777.0}}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 32}),
    "qwen3-moe": ("Qwen3Moe", {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "head_dim": 16,
                               "norm_topk_prob": True}),
    "gemma2": ("Gemma2", CAPS | {"tie_word_embeddings": True}),
    "gemma3": ("Gemma3", CAPS | {"tie_word_embeddings": True, "num_hidden_layers": 7}),
    "phi3": ("Phi3", {"pad_token_id": 0, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    "phi3-longrope": ("Phi3", {"pad_token_id": 0, "max_position_embeddings": 256, "original_max_position_embeddings": 4,
                               "rope_parameters": LONGROPE}),
    "glm": ("Glm", {"head_dim": 16, "attention_bias": True, "pad_token_id": 0}),
    "glm-no-biases": ("Glm", {"head_dim": 16, "attention_bias": False, "pad_token_id": 0}),
    "glm4": ("Glm4", {"head_dim": 16, "attention_bias": True, "pad_token_id": 0}),
    "olmo2": ("Olmo2", {}),
    "smollm3": ("SmolLM3", {"num_hidden_layers": 5, "pad_token_id": 0, "tie_word_embeddings": True}),
    "deepseek2": ("DeepseekV2", MLA | {"n_routed_experts": 4, "n_shared_experts": 2}),
    "deepseek2-no-query-rank": ("DeepseekV2", MLA | {"n_routed_experts": 4, "q_lora_rank": None, "num_hidden_layers": 27}),
    "deepseek3": ("DeepseekV3", MLA | {"n_routed_experts": 8, "n_group": 4, "topk_group": 2}),
    "deepseek3-yarn": ("DeepseekV3", MLA | {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "norm_topk_prob": False,
                                            "rope_parameters": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}}),
    "glm4-moe": ("Glm4Moe", MOE | {"n_routed_experts": 8, "n_shared_experts": 2, "head_dim": 16, "use_qk_norm": True,
                                   "attention_bias": True, "routed_scaling_factor": 2.5}),
    "ernie": ("Ernie4_5", {"head_dim": 16, "tie_word_embeddings": True}),
    "ernie-moe": ("Ernie4_5_Moe", {"moe_intermediate_size": 32, "moe_k": 2, "moe_num_experts": 4, "moe_num_shared_experts": 2,
                                   "num_hidden_layers": 3, "tie_word_embeddings": True}),
    "minimax-m2": ("MiniMaxM2", {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, "rope_parameters": HALF}),
    "llama4": ("Llama4Text", {"head_dim": 16, "num_local_experts": 4, "intermediate_size_mlp": 80, "num_hidden_layers": 5,
                              "interleave_moe_layer_step": 2, "pad_token_id": 0}),
    "llama4-step": ("Llama4Text", {"head_dim": 16, "num_local_experts": 4, "intermediate_size_mlp": 80, "num_hidden_layers": 5,
                                   "interleave_moe_layer_step": 2, "pad_token_id": 0,
                                   "rope_parameters": LLAMA3 | {"factor": 16.0, "high_freq_factor": 1.0,
                                                                "original_max_position_embeddings": 64}}),
    "gpt-oss": ("GptOss", {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8,
                           "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}),
    "gpt2": ("GPT2", {"vocab_size": 320, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64}),
}  # fmt: skip


def published(name: str, folder: Path, **more: Any) -> torch.nn.Module:
    """A random checkpoint written by transformers, and its model."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(sorted(CASES).index(name))
    family, settings = CASES[name]
    text = "Text" if family == "Gemma3" else ""
    causal = {"GPT2": "GPT2LMHeadModel", "Llama4Text": "Llama4ForCausalLM"}.get(family, f"{family}ForCausalLM")
    settings = (settings if family == "GPT2" else TINY | settings) | more
    config = getattr(transformers, f"{family}{text}Config")(**settings)
    model = getattr(transformers, causal)(config).eval()
    for tensor in model.parameters():  # larger than at birth, norms and biases too, so that nothing hides
        torch.nn.init.normal_(tensor, mean=1.0 if tensor.ndim == 1 and not family.startswith("Gemma") else 0.0, std=0.15)
    model.save_pretrained(folder)
    return model
