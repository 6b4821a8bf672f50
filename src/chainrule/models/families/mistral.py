"""Mistral: LLaMA whose attention looks through a window.

Jiang et al. 2023, arXiv:2310.06825.
"""

from collections.abc import Mapping
from typing import Any

from chainrule.models.blocks import Block
from chainrule.models.decoder import DecoderConfig
from chainrule.models.families import llama
from chainrule.models.families.reading import Reading

moves = llama.moves


def to_parts(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    c = Reading(config, "Mistral")
    attention, norm = c.attention(window=c.stated("sliding_window")), c.rms_norm()
    block = Block(attention=attention, mlp=c.gated(), norm=norm)
    position = c.rope(attention.d_head, context=131072)
    return c.decoder([block] * c("num_hidden_layers"), norm=norm, position=position, context=131072)
