"""GLM-4's first release (glm-4-9b): LLaMA with biases of q, k, v, half of each head turned in neighbouring pairs.

GLM Team 2024, arXiv:2406.12793. Gate and up are one matrix. The later GLM-4-0414 norms behind each part as well (``glm4``).
"""

from collections.abc import Mapping
from typing import Any

from chainrule.layers.rope import Rope
from chainrule.models.blocks import Block, SandwichBlock
from chainrule.models.decoder import DecoderConfig
from chainrule.models.families import llama
from chainrule.models.families.reading import Reading
from chainrule.models.moves import Move, Split

EPS, CONTEXT = 1.5625e-07, 131072


def to_parts(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    return decoder(Reading(config, "GLM"), Block)


def decoder(c: Reading, part: type[Block | SandwichBlock]) -> DecoderConfig:
    """The decoder of either release: they differ in where the norms stand."""
    attention = c.attention(d_head=128, qkv_bias=c("attention_bias", True))
    norm, position = c.rms_norm(EPS), _position(c)
    block = part(attention=attention, mlp=c.gated(), norm=norm)
    for key, value in _once_more(c).items():
        c.only(key, value)
    return c.decoder([block] * c("num_hidden_layers"), norm=norm, position=position, context=CONTEXT)


def _position(c: Reading) -> Rope:
    return c.rope(c("head_dim", 128), context=CONTEXT, pairs="neighbours", share=0.5)


def also_said(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config says once more for programs that know the keys of the first release's own code alone."""
    return _once_more(Reading(config, "GLM"))


def _once_more(c: Reading) -> dict[str, Any]:
    return {
        "layernorm_epsilon": c.rms_norm(EPS).eps,
        "seq_length": c("max_position_embeddings", CONTEXT),
        "rope_ratio": _position(c).theta / 10000,
    }


def moves(config: Mapping[str, Any]) -> tuple[Move, ...]:
    """LLaMA's names, gate and up apart."""
    return (*llama.moves(config), gate_up(config["intermediate_size"]))


def gate_up(width: int) -> Split:
    """Gate and up, which are published as one matrix."""
    return Split("mlp.gate_up_proj.weight", ("mlp.gate_proj.weight", "mlp.up_proj.weight"), (width, width))
