"""gpt-oss: sinks, windows in every other layer, YaRN, experts with biases and a clamped activation.

OpenAI 2025, arXiv:2508.10925. Published in MXFP4; it is read into bf16 (``models/packed.py``).
"""

from collections.abc import Mapping
from typing import Any

from chainrule.layers.moe import MixtureOfExperts
from chainrule.layers.router import Router
from chainrule.models.blocks import Block
from chainrule.models.decoder import DecoderConfig
from chainrule.models.families import llama
from chainrule.models.families.reading import Reading
from chainrule.models.moves import Interleave, Move, Replace, Transpose

YARN = {"rope_type": "yarn", "factor": 32.0, "truncate": False, "original_max_position_embeddings": 4096}


def to_parts(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    scaled = config.get("rope_parameters") or config.get("rope_scaling")
    c = Reading(config if scaled else {**config, "rope_scaling": YARN}, "gpt-oss")
    c.only("swiglu_alpha", 1.702)
    c.only("norm_topk_prob", True)
    c.ignore("experts_per_token", "initial_context_length")
    n, norm, bias = c("num_hidden_layers"), c.rms_norm(1e-5), c("attention_bias", True)
    default = ["full_attention" if i % 2 else "sliding_attention" for i in range(n)]
    windows = c.layer_types(default, full_attention=None, sliding_attention=c("sliding_window", 128))
    mlp = MixtureOfExperts(
        n_experts=c("num_local_experts", 128, "num_experts"),
        d_ff=c("intermediate_size"),
        router=Router(k=c("num_experts_per_tok", 4), bias=True),
        activation=c.activation(),
        bias=True,
        clamp=float(c("swiglu_limit", 7.0)),
    )
    blocks = [
        Block(
            attention=c.attention(d_head=64, qkv_bias=bias, o_bias=bias, window=window, sinks=True),
            mlp=mlp,
            norm=norm,
        )
        for window in windows
    ]
    position = c.rope(blocks[0].attention.d_rotary, theta=150000.0, context=131072)
    return c.decoder(blocks, norm=norm, position=position, context=131072)


def moves(config: Mapping[str, Any]) -> tuple[Move, ...]:
    """LLaMA's names; gate and up are dealt out in turn, and matrices of experts stand the other way round."""
    stack = "mlp.experts."
    return (
        *llama.moves(config),
        Replace(".mlp.router.", ".mlp.gate."),
        Transpose(r"mlp\.experts\.(gate_up|down)_proj$"),
        Interleave(stack + "gate_up_proj", (stack + "gate_proj", stack + "up_proj"), dim=1),
        Interleave(stack + "gate_up_proj_bias", (stack + "gate_bias", stack + "up_bias"), dim=1),
        Replace(stack + "down_proj_bias", stack + "down_bias"),
    )
