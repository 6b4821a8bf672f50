"""Llama 4 (the text model): chunks turned by rope, every fourth layer without either, one expert a token and a shared one.

Meta AI 2025, model card of Llama 4. The expert's weight multiplies what it reads. Pictures are left out (``hub.pictures``).
"""

from collections.abc import Mapping
from typing import Any

from chainrule.layers.attention import QKNorm
from chainrule.layers.mlp import Gated
from chainrule.layers.moe import MixtureOfExperts
from chainrule.layers.norm import UnitRMSNorm
from chainrule.layers.position import NoPosition, Temperature
from chainrule.layers.router import Router
from chainrule.models.blocks import Block
from chainrule.models.decoder import DecoderConfig
from chainrule.models.families import llama
from chainrule.models.families.reading import Reading
from chainrule.models.moves import Move, Older, Replace, Split, Transpose


def to_parts(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    c = Reading(config, "Llama 4")
    c.ignore("for_llm_compressor")
    n, norm, act = c("num_hidden_layers"), c.rms_norm(1e-5), c.activation()
    mixture = MixtureOfExperts(
        n_experts=c("num_local_experts", 16, "num_experts"),
        d_ff=c("intermediate_size"),
        router=Router(k=c("num_experts_per_tok", 1), score="sigmoid", normalize=False),
        activation=act,
        d_shared=c("intermediate_size"),
        weigh="input",
    )
    dense = Gated(d_ff=c("intermediate_size_mlp", 16384), activation=act)
    step = c("interleave_moe_layer_step", 1)
    sparse = set(c("moe_layers", range(step - 1, n, step)))
    every = c("no_rope_layer_interval", 4)
    turned = c("no_rope_layers", None) or [int((i + 1) % every != 0) for i in range(n)]
    chunks = c.layer_types(
        ["chunked_attention" if rope else "full_attention" for rope in turned],
        full_attention=None,
        chunked_attention=c("attention_chunk_size", 8192),
    )
    unturned = _unturned(c)
    blocks = [
        Block(
            attention=_attention(c, chunk, bool(rope)),
            mlp=mixture if i in sparse else dense,
            norm=norm,
            position=None if rope else unturned,
        )
        for i, (chunk, rope) in enumerate(zip(chunks, turned, strict=True))
    ]
    position = c.rope(blocks[0].attention.d_rotary, theta=5e5, context=131072, pairs="neighbours")
    return c.decoder(blocks, norm=norm, position=position, context=131072)


def _attention(c: Reading, chunk: int | None, rope: bool) -> Any:
    bias, normed = c("attention_bias", False), c("use_qk_norm", True) and rope
    qk_norm = QKNorm(norm=UnitRMSNorm(eps=c("rms_norm_eps", 1e-5)), after_rope=True) if normed else None
    return c.attention(d_head=128, qkv_bias=bias, o_bias=bias, chunk=chunk, qk_norm=qk_norm)


def _unturned(c: Reading) -> NoPosition | Temperature:
    floor, scale = float(c("floor_scale", 8192)), float(c("attn_scale", 0.1))
    return Temperature(floor=floor, scale=scale) if c("attn_temperature_tuning", True) else NoPosition()


def moves(config: Mapping[str, Any]) -> tuple[Move, ...]:
    """LLaMA's names; stacks of experts are published as such, gate and up in one, the other way round."""
    f = config["intermediate_size"]
    return (
        Older("language_model.", ""),
        *llama.moves(config),
        Replace(".feed_forward.", ".mlp."),
        Replace(".mlp.router.", ".mlp.gate."),
        Replace(".mlp.shared_expert.", ".mlp.shared_experts."),
        Transpose(r"mlp\.experts\.(gate_up|down)_proj$"),
        Split("mlp.experts.gate_up_proj", ("mlp.experts.gate_proj", "mlp.experts.up_proj"), (f, f), dim=1),
    )
