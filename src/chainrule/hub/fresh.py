"""New models, their weights drawn from a seed: what recipes and the ladder begin from."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch

from chainrule.core.errors import CheckpointError, ConfigError, nearest
from chainrule.hub.build import OWN, build, parts
from chainrule.hub.pictures import text_alone
from chainrule.layers.init import FanIn, Induction, Init, Mimetic, Normal
from chainrule.layers.rope import Rope
from chainrule.models.decoder import Decoder, DecoderConfig
from chainrule.models.encoder import Encoder, EncoderConfig
from chainrule.models.families.gpt2 import spelled
from chainrule.models.neural_ngram import NeuralNGram, NeuralNGramConfig
from chainrule.models.rnn import Recurrent, RecurrentConfig
from chainrule.models.seq2seq import Seq2Seq, Seq2SeqConfig
from chainrule.models.word2vec import Word2Vec, learn_vectors
from chainrule.models.word2vec_places import Ints

INITS: dict[str, Init] = {
    "normal": Normal(),
    "fan_in": FanIn(gain=0.5),
    "mimetic": Mimetic(),
    "induction": Induction(),
}
"""Where weights may begin, by the names that recipes use."""


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
    model = Decoder(config)
    model.init(torch.Generator().manual_seed(seed), _scheme(init, config))
    return model


def _named(init: str) -> Init:
    if init not in INITS:
        raise ConfigError(f"unknown init {init!r}{nearest(init, INITS)}")
    return INITS[init]


def _scheme(init: str, config: DecoderConfig) -> Init:
    """The scheme of that name; induction turns as the decoder's rope does, and is refused where that is no plain one."""
    scheme = _named(init)
    if not isinstance(scheme, Induction):
        return scheme
    rope = config.positions[0]
    if not isinstance(rope, Rope) or any(other != Rope(theta=rope.theta) for other in config.positions[:2]):
        kinds = " and ".join(sorted({str(other) for other in config.positions[:2]}))
        raise ConfigError(
            f"init='induction' looks back by plain rope, which turns a whole head in halves, but this decoder's positions are "
            f"{kinds}; use 'normal', 'fan_in' or 'mimetic'"
        )
    return replace(scheme, theta=rope.theta)


def fresh_seq2seq(
    *, plan: str, vocab_size: int, context: int, n_layers: int, d_model: int, n_heads: int, d_ff: int, init: str, seed: int
) -> Seq2Seq:
    """A new encoder–decoder, its weights drawn from the seed by one of ``INITS``."""
    plans = {"original": Seq2SeqConfig.original, "t5": Seq2SeqConfig.t5}
    if plan not in plans:
        raise ConfigError(f"unknown plan {plan!r} of an encoder–decoder{nearest(plan, plans)}")
    config = plans[plan](
        vocab_size=vocab_size, context=context, n_layers=n_layers, d_model=d_model, n_heads=n_heads, d_ff=d_ff
    )  # fmt: skip
    model = Seq2Seq(config)
    model.init(torch.Generator().manual_seed(seed), _named(init))
    return model


def fresh_encoder(*, vocab_size: int, context: int, n_layers: int, d_model: int, n_heads: int, d_ff: int, seed: int) -> Encoder:
    """A new encoder of BERT's shape with a masked-word head, its weights drawn from the seed."""
    config = EncoderConfig.uniform(
        vocab_size=vocab_size, context=context, n_layers=n_layers, d_model=d_model, n_heads=n_heads, d_ff=d_ff
    )
    return Encoder(config, torch.Generator().manual_seed(seed))


def fresh_of_config(
    config: Mapping[str, Any], *, vocab_size: int, context: int, init: str = "normal", std: float = 0.02, seed: int
) -> Decoder:
    """A new decoder of a published family, for another vocabulary and context, its weights drawn from the seed.

    ``init`` is one of ``INITS``; ``std`` is the deviation of ``normal``. Raises ``CheckpointError`` for a config that no family
    understands, or that is no decoder.
    """
    config = text_alone(config)
    gpt2 = config.get("model_type") == "gpt2"
    config, longest = (spelled(config), "n_positions") if gpt2 else (config, "max_position_embeddings")
    whole = {**config, "vocab_size": vocab_size, longest: context}
    if config.get("model_type") in OWN or not isinstance(parts(whole), DecoderConfig):
        raise CheckpointError(
            f"model_type {config.get('model_type')!r} is no published decoder; use another kind of model for it"
        )
    model = build(whole)
    if model.context != context:  # families.reading.Reading.decoder
        raise CheckpointError(
            f"context={context}, but by its YaRN this config reads {model.context} tokens; give as many, fewer than the "
            "original_max_position_embeddings, or a config without YaRN"
        )
    scheme = Normal(std=std) if init == "normal" else _scheme(init, model.config)
    model.init(torch.Generator().manual_seed(seed), scheme)
    return model


def recurrent(
    *,
    vocab_size: int,
    cell: Literal["lstm", "gru", "rnn"] = "lstm",
    n_layers: int = 1,
    d_model: int = 256,
    d_hidden: int | None = None,
    tied: bool = True,
    seed: int = 0,
) -> Recurrent:
    """A language model of equal cells, as wide as the embedding unless told otherwise."""
    config = RecurrentConfig.uniform(
        vocab_size=vocab_size, cell=cell, n_layers=n_layers, d_model=d_model, d_hidden=d_hidden, tied=tied
    )
    return Recurrent(config, torch.Generator().manual_seed(seed))


def neural_ngram(
    documents: Sequence[Ints] | None = None,
    *,
    vocab_size: int,
    order: int = 5,
    d_model: int = 64,
    d_hidden: int = 256,
    direct: bool = False,
    word2vec: Literal["skip_gram", "cbow"] | None = None,
    epochs: int = 2,
    seed: int = 0,
) -> NeuralNGram:
    """A neural n-gram; with ``word2vec`` its table begins with vectors learned from the ``documents`` of ids, if any."""
    config = NeuralNGramConfig(vocab_size=vocab_size, order=order, d_model=d_model, d_hidden=d_hidden, direct=direct)
    model = NeuralNGram(config, torch.Generator().manual_seed(seed))
    if word2vec is not None and documents is not None:
        settings = Word2Vec(method=word2vec, by="block", d_model=d_model, epochs=epochs, min_count=1, seed=seed)
        model.take_vectors(learn_vectors(documents, vocab_size, settings))
    return model
