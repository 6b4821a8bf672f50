"""GLM-4-0414: GLM-4 with norms behind attention and mlp, too.

GLM Team 2024, arXiv:2406.12793.
"""

from collections.abc import Mapping
from typing import Any

from chainrule.models.blocks import SandwichBlock
from chainrule.models.decoder import DecoderConfig
from chainrule.models.families import glm
from chainrule.models.families.reading import Reading
from chainrule.models.moves import Move, Replace


def to_parts(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    return glm.decoder(Reading(config, "GLM-4"), SandwichBlock)


def moves(config: Mapping[str, Any]) -> tuple[Move, ...]:
    """Those of GLM-4's first release, and other names for the norms."""
    return (
        *glm.moves(config),
        Replace(".post_attention_layernorm.", ".pre_feedforward_layernorm."),
        Replace(".post_self_attn_layernorm.", ".post_attention_layernorm."),
        Replace(".post_mlp_layernorm.", ".post_feedforward_layernorm."),
    )
