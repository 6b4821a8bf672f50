"""GLM-4's first release (glm-4-9b): LLaMA with biases of q, k, v, half of each head turned in neighbouring pairs.

GLM Team 2024, arXiv:2406.12793. The later GLM-4-0414 norms behind each part as well (``glm4``).
"""

from collections.abc import Mapping
from typing import Any

from chainrule.models.blocks import Block
from chainrule.models.decoder import DecoderConfig
from chainrule.models.families import llama
from chainrule.models.families.glm4 import gate_up
from chainrule.models.families.reading import Reading
from chainrule.models.moves import Move


def to_parts(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    c = Reading(config, "GLM")
    attention = c.attention(d_head=128, qkv_bias=c("attention_bias", True))
    norm = c.rms_norm(1.5625e-07)
    block = Block(attention=attention, mlp=c.gated(), norm=norm)
    position = c.rope(attention.d_head, context=131072, pairs="neighbours", share=0.5)
    return c.decoder([block] * c("num_hidden_layers"), norm=norm, position=position, context=131072)


def moves(config: Mapping[str, Any]) -> tuple[Move, ...]:
    """LLaMA's names, gate and up apart."""
    return (*llama.moves(config), gate_up(config["intermediate_size"]))
