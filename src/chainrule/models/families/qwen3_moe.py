"""Qwen3-MoE: Qwen3 whose mlps are mixtures of many small experts.

Yang et al. 2025, arXiv:2505.09388.
"""

from collections.abc import Mapping
from typing import Any

from chainrule.layers.moe import MixtureOfExperts
from chainrule.layers.router import Router
from chainrule.models.blocks import Block
from chainrule.models.decoder import DecoderConfig
from chainrule.models.families import llama
from chainrule.models.families.qwen2 import width
from chainrule.models.families.qwen3 import attention
from chainrule.models.families.reading import Reading
from chainrule.models.moves import Move, Stack

PROJECTIONS = ("gate_proj", "up_proj", "down_proj")


def to_parts(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    c = Reading(config, "Qwen3-MoE")
    c.ignore("max_window_layers")  # every layer has the window, or none has: so transformers reads it, below it too
    norm, dense, n = c.rms_norm(), c.gated(), c("num_hidden_layers")
    mixture = MixtureOfExperts(
        n_experts=c("num_local_experts", 128, "num_experts"),
        d_ff=c("moe_intermediate_size"),
        router=Router(k=c("num_experts_per_tok"), normalize=c("norm_topk_prob", False)),
        activation=c.activation(),
    )
    step, plain = c("decoder_sparse_step", 1), c("mlp_only_layers", [])
    window = width(c)
    kind = "full_attention" if window is None else "sliding_attention"
    windows = c.layer_types([kind] * n, **{kind: window})
    sparse = [i not in plain and (i + 1) % step == 0 for i in range(n)]
    blocks = [
        Block(attention=attention(c, window, None), mlp=mixture if routed else dense, norm=norm)
        for window, routed in zip(windows, sparse, strict=True)
    ]
    return c.decoder(blocks, norm=norm, position=c.rope(blocks[0].attention.d_rotary, context=32768), context=32768)


def moves(config: Mapping[str, Any]) -> tuple[Move, ...]:
    """LLaMA's names; a matrix for every expert becomes one stack of them."""
    return (*llama.moves(config), *stacks())


def stacks() -> tuple[Stack, ...]:
    """The three stacks of experts' matrices, in the names that most mixtures are published with."""
    return tuple(Stack(f"mlp.experts.{{e}}.{name}.weight", f"mlp.experts.{name}") for name in PROJECTIONS)
