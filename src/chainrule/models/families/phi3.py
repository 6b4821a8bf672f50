"""Phi-3 and Phi-4-mini: LLaMA with q, k and v in one matrix, gate and up in another, and LongRoPE for long rows.

Abdin et al. 2024, arXiv:2404.14219.
"""

from collections.abc import Mapping
from typing import Any

from chainrule.models.blocks import Block
from chainrule.models.decoder import DecoderConfig
from chainrule.models.families import llama
from chainrule.models.families.glm import gate_up
from chainrule.models.families.reading import Reading
from chainrule.models.moves import Move, Split


def to_parts(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    c = Reading(_renamed(config), "Phi-3")
    c.only("attention_bias", False)
    c.only("lm_head_bias", False)
    c.only("mlp_bias", False)
    c.only("full_attn_mod", 1)
    c.only("interpolate_factor", 1)
    attention, norm = c.attention(window=c("sliding_window", None)), c.rms_norm(1e-5)
    block = Block(attention=attention, mlp=c.gated(), norm=norm)
    position = c.rope(attention.d_head, context=4096)
    return c.decoder([block] * c("num_hidden_layers"), norm=norm, position=position, context=4096)


def _renamed(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Phi-3 calls its scaling "su" or even "yarn" where it means LongRoPE."""
    scaling = config.get("rope_scaling")
    return {**config, "rope_scaling": {**scaling, "type": "longrope", "rope_type": "longrope"}} if scaling else config


def moves(config: Mapping[str, Any]) -> tuple[Move, ...]:
    """LLaMA's names; what is one matrix there is three here, or two."""
    n, d = config["num_attention_heads"], config["hidden_size"]
    c = config.get("head_dim") or d // n
    keys = (config.get("num_key_value_heads") or n) * c
    parts = tuple(f"self_attn.{name}_proj.weight" for name in "qkv")
    qkv = Split("self_attn.qkv_proj.weight", parts, (n * c, keys, keys))
    return (*llama.moves(config), qkv, gate_up(config["intermediate_size"]))
