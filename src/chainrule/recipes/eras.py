"""The neural rungs of history as recipes: each family with its own parts, of one size, on one text.

The Transformer of ``Shape`` says how many parameters there are. The models before it get the width that comes closest to as
many; the mixture of experts has as many for each token, and more in all. What differs is the family alone: its parts, where its
weights begin, and the learning rate that suits it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from chainrule.core.errors import ConfigError
from chainrule.data.parts import SHARE
from chainrule.train.material import fresh_model
from chainrule.train.recipe import (
    Fresh,
    FreshConfig,
    FreshEncoder,
    FreshNeuralNGram,
    FreshRecurrent,
    FreshSeq2Seq,
    Optimizing,
    Recipe,
    World,
)
from chainrule.train.schedule import Schedule

WIDEST = 4096


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The Transformer that gives the size, and how text is read."""

    d_model: int = 96
    n_layers: int = 4
    n_heads: int = 4
    context: int = 256
    batch_rows: int = 8
    """Few, for the minutes are short: from the same tokens twice as many steps of half the size teach more."""


def recipes(shape: Shape, vocab_size: int) -> dict[str, Recipe]:
    """A recipe for every neural rung, by its name in ``ERAS``; text, tokenizer and steps are still to be set."""
    transformer = of(shape, FreshConfig(config=gpt2(shape), init="mimetic"), Optimizing(lr=0.011, adam_lr=0.005))
    wanted = size(transformer, vocab_size)

    def alike(make: Callable[[int], Any], optimizer: Optimizing, step: int = 2) -> Recipe:
        return closest(lambda width: of(shape, make(width), optimizer), vocab_size, wanted, step)

    gated = alike(lambda d_ff: llama(shape, d_ff), Optimizing(lr=0.007, adam_lr=0.005), step=16)
    assert isinstance(gated.model, Fresh)
    experts = FreshConfig(config=mixture(shape, gated.model.d_ff), init=gated.model.init)
    d_vector = 2 * shape.d_model // 3
    plans: dict[Literal["original", "t5"], Optimizing] = {
        "original": Optimizing(lr=0.014, adam_lr=0.0035),
        "t5": Optimizing(lr=0.008, adam_lr=0.005),
    }
    two_stacks = {
        plan: replace(alike(lambda d_ff, plan=plan: seq2seq(shape, plan, d_ff), optimizer), batch_rows=SHARE * shape.batch_rows)
        for plan, optimizer in plans.items()
    }
    return {
        "neural-ngram": alike(
            lambda d: FreshNeuralNGram(order=8, d_model=d_vector, d_hidden=d), Optimizing(lr=0.021, adam_lr=0.0035)
        ),
        "rnn": alike(lambda d: FreshRecurrent(cell="rnn", d_model=d), Optimizing(lr=0.014, adam_lr=0.0035)),
        "lstm": alike(lambda d: FreshRecurrent(cell="lstm", d_model=d), Optimizing(lr=0.021, adam_lr=0.007)),
        "gru": alike(lambda d: FreshRecurrent(cell="gru", d_model=d), Optimizing(lr=0.021, adam_lr=0.007)),
        "transformer": transformer,
        "encoder-decoder": two_stacks["original"],
        "bert": alike(lambda d_ff: encoder(shape, d_ff), Optimizing(lr=0.014, adam_lr=0.0035)),
        "t5": two_stacks["t5"],
        "llama": gated,
        "moe": replace(of(shape, experts, Optimizing(lr=0.007, adam_lr=0.005)), balance=0.001),
    }


def of(shape: Shape, model: Any, optimizer: Optimizing) -> Recipe:
    """A recipe of this model that reads text as all do."""
    return Recipe(
        model=model, data=World(), optimizer=optimizer, schedule=Schedule(warmup=20, decay=0.6), context=shape.context,
        batch_rows=shape.batch_rows, keep=1,
    )  # fmt: skip


def gpt2(shape: Shape) -> dict[str, Any]:
    """LayerNorm, learned places, a plain mlp; it begins attending to what is alike."""
    return {"model_type": "gpt2", "n_embd": shape.d_model, "n_layer": shape.n_layers, "n_head": shape.n_heads}


def seq2seq(shape: Shape, plan: Literal["original", "t5"], d_ff: int) -> FreshSeq2Seq:
    """The layers in two stacks; a row is one part of a text, so a step has as many more rows."""
    return FreshSeq2Seq(
        plan=plan, n_layers=max(1, shape.n_layers // 2), d_model=shape.d_model, n_heads=shape.n_heads, d_ff=d_ff
    )


def encoder(shape: Shape, d_ff: int) -> FreshEncoder:
    """BERT's shape; it learns where a text ends too."""
    return FreshEncoder(n_layers=shape.n_layers, d_model=shape.d_model, n_heads=shape.n_heads, d_ff=d_ff, guesses_end=True)


def llama(shape: Shape, d_ff: int) -> Fresh:
    """RMSNorm, rope, a gated mlp; it begins with heads that look back and copy, which only rope lets one write down."""
    return Fresh(n_layers=shape.n_layers, d_model=shape.d_model, n_heads=shape.n_heads, d_ff=d_ff, init="induction")


def mixture(shape: Shape, d_ff: int) -> dict[str, Any]:
    """LLaMA with four mlps of half the width, of which two read each token; with more, each would read too little here.

    Queries and keys have norms of their own, as in OLMoE, Qwen3-MoE and GLM-4.5. The router is DeepSeek-V3's: a sigmoid for
    each expert. The weights of the two sum to two, so that a token gets from two halves as much as from one whole.
    """
    return {
        "model_type": "glm4_moe", "hidden_size": shape.d_model, "intermediate_size": d_ff, "moe_intermediate_size": d_ff // 2,
        "num_hidden_layers": shape.n_layers, "num_attention_heads": shape.n_heads, "num_key_value_heads": shape.n_heads,
        "n_routed_experts": 4, "num_experts_per_tok": 2, "routed_scaling_factor": 2.0, "n_shared_experts": 0,
        "first_k_dense_replace": 0, "use_qk_norm": True, "tie_word_embeddings": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
    }  # fmt: skip


def size(recipe: Recipe, vocab_size: int) -> int:
    """How many parameters the recipe's model has; nothing is drawn."""
    with torch.device("meta"):
        model = fresh_model(recipe, vocab_size)
    return sum(parameter.numel() for parameter in model.parameters())


def closest(make: Callable[[int], Recipe], vocab_size: int, wanted: int, step: int = 2) -> Recipe:
    """The recipe of the width, a multiple of ``step``, whose model comes closest to so many parameters."""
    low, high = 1, WIDEST // step
    if size(make(high * step), vocab_size) < wanted:
        raise ConfigError(f"no model of width {WIDEST} or less has {wanted:,} parameters; make the Transformer smaller")
    while high - low > 1:  # size(low) < wanted <= size(high), or low is the narrowest
        middle = (low + high) // 2
        low, high = (middle, high) if size(make(middle * step), vocab_size) < wanted else (low, middle)
    return min((make(low * step), make(high * step)), key=lambda recipe: abs(size(recipe, vocab_size) - wanted))
