"""DeepSeek-V2 and V3, and Kimi K2 in their layout: latent attention, many small experts, some read by every token.

DeepSeek-V2, arXiv:2405.04434: softmax router, the choice limited to the best groups. DeepSeek-V3, arXiv:2412.19437: sigmoid
router, steered by a correction, groups as good as their best two. Kimi K2, arXiv:2507.20534: V3 with other numbers. The layers
that predict further tokens (multi-token prediction) take no part in p(next token) and are left out.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from chainrule.core.errors import CheckpointError
from chainrule.layers.latent import MultiHeadLatent
from chainrule.layers.moe import MixtureOfExperts
from chainrule.layers.rope import Rope
from chainrule.layers.router import Router
from chainrule.models.blocks import Block
from chainrule.models.decoder import DecoderConfig
from chainrule.models.families import llama
from chainrule.models.families.qwen3_moe import stacks
from chainrule.models.families.reading import Reading, yarn_mscale
from chainrule.models.moves import Drop, Move


def to_parts(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    v3 = config["model_type"] != "deepseek_v2"
    c = Reading(config, "DeepSeek-V3" if v3 else "DeepSeek-V2")
    c.only("moe_layer_freq", 1)
    c.only("num_key_value_heads", c("num_attention_heads"), why="every head has keys of its own, made of the latent")
    c.ignore("num_nextn_predict_layers", "qk_head_dim", "head_dim")
    if v3:
        c.only("mlp_bias", False)
    attention, position = _attention(c, v3)
    bias = c("mlp_bias", False)
    norm, dense = c.rms_norm(), c.gated(bias=bias)
    mixture = MixtureOfExperts(
        n_experts=c("n_routed_experts", 64, "num_local_experts", "num_experts"),
        d_ff=c("moe_intermediate_size"),
        router=_v3_router(c) if v3 else _v2_router(c),
        activation=c.activation(),
        d_shared=c("moe_intermediate_size") * (c.stated("n_shared_experts", none="0") or 0),
        shared_bias=bias,
    )
    n, first = c("num_hidden_layers"), c.stated("first_k_dense_replace", none="0") or 0
    blocks = [Block(attention=attention, mlp=mixture if i >= first else dense, norm=norm) for i in range(n)]
    return c.decoder(blocks, norm=norm, position=position, context=4096 if v3 else 2048)


def _attention(c: Reading, v3: bool) -> tuple[MultiHeadLatent, Rope]:
    neighbours = c("rope_interleave", True) if v3 else True
    position = c.rope(c("qk_rope_head_dim", 64), context=4096, pairs="neighbours" if neighbours else "halves")
    attention = MultiHeadLatent(
        n_heads=c("num_attention_heads"),
        d_nope=c("qk_nope_head_dim", 128),
        d_rope=c("qk_rope_head_dim", 64),
        d_value=c("v_head_dim", 128),
        kv_rank=c("kv_lora_rank", 512),
        q_rank=c.config.get("q_lora_rank", 1536),
        bias=c("attention_bias", False),
    )
    c.ignore("q_lora_rank")
    scaling: Mapping[str, Any] = c("rope_parameters", {}) or c("rope_scaling", {})
    if scaling.get("rope_type", scaling.get("type", "default")) != "default" and scaling.get("mscale_all_dim"):
        mscale = yarn_mscale(float(scaling["factor"]), float(scaling["mscale_all_dim"]))
        attention = replace(attention, scale=(attention.d_nope + attention.d_rope) ** -0.5 * mscale**2)
    return attention, position


def _v2_router(c: Reading) -> Router:
    c.only("scoring_func", "softmax")
    c.only("norm_topk_prob", False)
    method = c("topk_method", "greedy")
    if method not in ("greedy", "group_limited_greedy"):
        raise CheckpointError(f"topk_method={method!r} is not supported for DeepSeek-V2: greedy or group_limited_greedy is")
    limited = method != "greedy"
    groups, kept = c("n_group", 1), c("topk_group", 1)
    return Router(
        k=c("num_experts_per_tok"),
        normalize=False,
        scale=c("routed_scaling_factor", 1.0),
        groups=groups if limited else 1,
        kept=kept if limited else 1,
        best_of=1,
    )


def _v3_router(c: Reading) -> Router:
    c.only("scoring_func", "sigmoid")
    c.only("topk_method", "noaux_tc")
    return Router(
        k=c("num_experts_per_tok", 8),
        score="sigmoid",
        normalize=c("norm_topk_prob", True),
        scale=c("routed_scaling_factor", 2.5),
        correction=True,
        groups=c("n_group", 8),
        kept=c("topk_group", 4),
    )


def moves(config: Mapping[str, Any]) -> tuple[Move, ...]:
    """LLaMA's names and stacks of experts, without the layers that predict further tokens."""
    return (without_mtp(config["num_hidden_layers"]), *llama.moves(config), *stacks())


def without_mtp(n_layers: int) -> Drop:
    """Drop the layers of multi-token prediction, which stand behind the last of the model's own."""
    below = "|".join(map(re.escape, map(str, range(n_layers))))
    return Drop(rf"^model\.layers\.(?!(?:{below})\.)\d+\.")
