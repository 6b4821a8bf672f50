"""Which of GGUF's keys means which key of ``config.json``: one table an architecture, read in both directions.

llama.attention.head_count = 32  <->  "num_attention_heads": 32
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

BASIC = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
HEADS = {"attention.head_count_kv": "num_key_value_heads", "attention.key_length": "head_dim"}
SIZES = BASIC | HEADS
CAPS = {
    "attention.sliding_window": "sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
GPT2_SIZES = {
    "context_length": "n_positions",
    "embedding_length": "n_embd",
    "block_count": "n_layer",
    "feed_forward_length": "n_inner",
    "attention.head_count": "n_head",
    "attention.layer_norm_epsilon": "layer_norm_epsilon",
}
LOCAL = {"expert_count": "num_local_experts", "expert_used_count": "num_experts_per_tok"}
ROUTED = {
    "expert_count": "n_routed_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_count": "n_shared_experts",
    "leading_dense_block_count": "first_k_dense_replace",
    "expert_weights_scale": "routed_scaling_factor",
    "expert_group_count": "n_group",
    "expert_group_used_count": "topk_group",
}
OPTIONAL = {"attention.q_lora_rank", "attention.kv_lora_rank", "expert_shared_count", "leading_dense_block_count",
            "expert_weights_scale", "expert_group_count", "expert_group_used_count", *HEADS, *CAPS}  # fmt: skip
"""What a file may leave out."""
GELU = {"hidden_activation": "gelu_pytorch_tanh"}
SOFTMAX, SIGMOID = 1, 2
"""How a router makes weights of scores, in llama.cpp's numbers."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """An architecture: its ``model_type``, GGUF's keys for those of the config, and what llama.cpp does without being told."""

    model_type: str
    keys: Mapping[str, str] = field(default_factory=lambda: SIZES)
    always: Mapping[str, Any] = field(default_factory=dict)
    """What the architecture always means, as the config says it; a model for which it is otherwise cannot be written."""
    seen: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Keys of the config that are true where one of some tensors is there: key → tensors."""
    written: Mapping[str, Any] = field(default_factory=dict)
    """Keys that llama.cpp wants and that say nothing new: a value, or the name of the config's key that has it."""
    rope: bool = True
    factors: bool = False
    """Whether llama.cpp reads LLaMA 3's ``rope_freqs`` for it."""
    head: Literal["either", "own", "tied"] = "either"
    """Whether llama.cpp wants a tensor for the head, wants none, or takes both."""
    square: bool = False
    """Whether llama.cpp takes for granted that the heads together are as wide as the model."""


BIAS = {"attention_bias": ("blk.0.attn_q.bias", "blk.0.attn_qkv.bias")}
TABLES = {
    "llama": Table(model_type="llama", factors=True, seen=BIAS | {"mlp_bias": ("blk.0.ffn_up.bias",)}),
    "mixtral": Table(model_type="mixtral", factors=True, keys=SIZES | LOCAL),
    "qwen2": Table(model_type="qwen2"),
    "qwen3": Table(model_type="qwen3"),
    "qwen3moe": Table(
        model_type="qwen3_moe",
        keys=SIZES
        | {
            "expert_count": "num_experts",
            "expert_used_count": "num_experts_per_tok",
            "expert_feed_forward_length": "moe_intermediate_size",
        },
        always={"norm_topk_prob": True},
    ),
    "gemma2": Table(model_type="gemma2", keys=SIZES | CAPS, always=GELU, head="tied"),
    "gemma3": Table(model_type="gemma3_text", keys=SIZES | CAPS, always=GELU),
    "deepseek2": Table(
        model_type="deepseek_v2",
        keys=BASIC | ROUTED | {"attention.q_lora_rank": "q_lora_rank", "attention.kv_lora_rank": "kv_lora_rank"},
        seen=BIAS,
    ),
    "phi3": Table(model_type="phi3", keys=SIZES | {"attention.sliding_window": "sliding_window"}),
    "chatglm": Table(model_type="glm", seen=BIAS, square=True),
    "glm4": Table(model_type="glm4", seen=BIAS),
    "glm4moe": Table(
        model_type="glm4_moe",
        keys=SIZES | ROUTED,
        seen=BIAS | {"use_qk_norm": ("blk.0.attn_q_norm.weight",)},
        written={"expert_gating_func": SIGMOID},
    ),
    "ernie4_5": Table(model_type="ernie4_5"),
    "ernie4_5-moe": Table(
        model_type="ernie4_5_moe",
        keys=SIZES
        | {
            "expert_count": "moe_num_experts",
            "expert_used_count": "moe_k",
            "expert_feed_forward_length": "moe_intermediate_size",
            "expert_shared_count": "moe_num_shared_experts",
            "leading_dense_block_count": "moe_layer_start_index",
        },
        written={"interleave_moe_layer_step": 1},
    ),
    "minimax-m2": Table(
        model_type="minimax_m2",
        head="own",
        keys=SIZES | LOCAL,
        written={"expert_gating_func": SIGMOID, "expert_feed_forward_length": "intermediate_size"},
    ),
    "llama4": Table(
        model_type="llama4_text",
        factors=True,
        keys=SIZES
        | LOCAL
        | {
            "feed_forward_length": "intermediate_size_mlp",
            "expert_feed_forward_length": "intermediate_size",
            "interleave_moe_layer_step": "interleave_moe_layer_step",
        },
    ),
    "olmo2": Table(model_type="olmo2", head="own"),
    "smollm3": Table(model_type="smollm3"),
    "gpt-oss": Table(
        model_type="gpt_oss",
        head="own",
        keys=SIZES | LOCAL | {"attention.sliding_window": "sliding_window"},
        written={"expert_feed_forward_length": "intermediate_size"},
    ),
    "gpt2": Table(model_type="gpt2", keys=GPT2_SIZES, rope=False),
}
"""llama.cpp's name of an architecture (``mixtral`` is its ``llama`` with experts) → its table."""
ARCH_OF = {table.model_type: arch for arch, table in TABLES.items()} | {
    "mistral": "llama", "gemma3": "gemma3", "deepseek_v3": "deepseek2", "kimi_k2": "deepseek2",
}  # fmt: skip
"""``model_type`` → the architecture that holds it."""
ALSO = {
    "num_experts": ("num_local_experts",),
    "num_local_experts": ("num_experts",),
    "n_routed_experts": ("num_local_experts", "num_experts"),
    "moe_num_experts": ("num_local_experts", "num_experts"),
    "moe_k": ("num_experts_per_tok",),
}
"""Other names of the same key, in configs of other versions."""
