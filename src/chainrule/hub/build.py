"""A config to a model: the one place where rooms that never meet a particular model get one made."""

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch

from chainrule.core.errors import CheckpointError, nearest
from chainrule.core.model import LanguageModel
from chainrule.core.schema import dump, parse
from chainrule.layers.init import FanIn, Induction, Init, Mimetic, Normal
from chainrule.models.decoder import Decoder, DecoderConfig
from chainrule.models.families import FAMILIES
from chainrule.models.ngram import NGram, NGramConfig

OWN = {"decoder": (DecoderConfig, Decoder), "ngram": (NGramConfig, NGram)}
"""Our own config kinds, for models that no published family describes."""

INITS: dict[str, Init] = {
    "normal": Normal(),
    "fan_in": FanIn(gain=0.5),
    "mimetic": Mimetic(),
    "induction": Induction(),
}
"""Where weights may begin, by the names that recipes use."""


def family(model_type: str) -> Any:
    """The module of a published family; raises ``CheckpointError`` naming the families there are."""
    if model_type not in FAMILIES:
        known = ", ".join(sorted([*FAMILIES, *OWN]))
        raise CheckpointError(f"model_type {model_type!r} is not supported{nearest(model_type, FAMILIES)} (all: {known})")
    return import_module(FAMILIES[model_type])


def build(config: Mapping[str, Any] | DecoderConfig | NGramConfig) -> LanguageModel:
    """An empty model of this config: our own, or a published ``config.json``."""
    if isinstance(config, DecoderConfig):
        return Decoder(config)
    if isinstance(config, NGramConfig):
        return NGram(config)
    model_type = config.get("model_type")
    if model_type is None:
        raise CheckpointError("config.json names no model_type; add the one the model was published with")
    if model_type in OWN:
        return build(parse(OWN[model_type][0], config["chainrule"]))
    return Decoder(family(model_type).to_parts(config))


def fresh(
    *,
    vocab_size: int,
    context: int,
    n_layers: int,
    d_model: int,
    n_heads: int,
    n_kv_heads: int | None,
    d_ff: int,
    rope_theta: float,
    tied: bool,
    init: str,
    seed: int,
) -> Decoder:
    """A new decoder of LLaMA's shape, its weights drawn from the seed by one of ``INITS``."""
    config = DecoderConfig.uniform(
        vocab_size=vocab_size, context=context, n_layers=n_layers, d_model=d_model, n_heads=n_heads, n_kv_heads=n_kv_heads,
        d_ff=d_ff, tied=tied, theta=rope_theta,
    )  # fmt: skip
    scheme = INITS[init]
    if isinstance(scheme, Induction):
        scheme = replace(scheme, theta=rope_theta)
    model = Decoder(config)
    model.init(torch.Generator().manual_seed(seed), scheme)
    return model


def published_config(model: LanguageModel) -> dict[str, Any]:
    """The ``config.json`` of a model: LLaMA's where it is of that shape, our own otherwise."""
    if isinstance(model, Decoder):
        try:
            return family("llama").to_published(model.config)
        except CheckpointError:
            return {"model_type": "decoder", "chainrule": dump(model.config)}
    if isinstance(model, NGram):
        return {"model_type": "ngram", "chainrule": dump(model.config)}
    raise CheckpointError(f"a {type(model).__name__} has no files to be saved as")


def moves(config: Mapping[str, Any]) -> Any:
    """The weight moves of a published config; none for our own."""
    return () if config["model_type"] in OWN else family(config["model_type"]).MOVES
