"""Mixtral: Mistral whose mlp is eight experts, of which two read each token.

Jiang et al. 2024, arXiv:2401.04088.
"""

from collections.abc import Mapping
from typing import Any

from chainrule.layers.moe import MixtureOfExperts
from chainrule.layers.router import Router
from chainrule.models.blocks import Block
from chainrule.models.decoder import DecoderConfig
from chainrule.models.families import llama
from chainrule.models.families.reading import Reading
from chainrule.models.moves import Move, Replace, Stack

NAMES = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}


def to_parts(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    c = Reading(config, "Mixtral")
    c.only("norm_topk_prob", True)
    attention, norm = c.attention(window=c("sliding_window", None)), c.rms_norm(1e-5)
    mlp = MixtureOfExperts(
        n_experts=c("num_local_experts", 8, "num_experts"),
        d_ff=c("intermediate_size"),
        router=Router(k=c("num_experts_per_tok", 2)),
        activation=c.activation(),
    )
    block = Block(attention=attention, mlp=mlp, norm=norm)
    position = c.rope(attention.d_head, theta=1e6, context=131072)
    return c.decoder([block] * c("num_hidden_layers"), norm=norm, position=position, context=131072)


def moves(config: Mapping[str, Any]) -> tuple[Move, ...]:
    """LLaMA's names, and experts with names of their own."""
    stacks = (Stack(f"mlp.experts.{{e}}.{theirs}.weight", f"mlp.experts.{ours}") for theirs, ours in NAMES.items())
    return (*llama.moves(config), Replace(".block_sparse_moe.", ".mlp."), *stacks)
