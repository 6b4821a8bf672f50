"""A config to a model: the one place where rooms that never meet a particular model get one made."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import is_dataclass, replace
from importlib import import_module
from typing import Any

import torch

from chainrule.core.errors import ChainruleError, CheckpointError, ConfigError, nearest
from chainrule.core.schema import dump, parse
from chainrule.hub.pictures import TEXT_MODELS, text_alone, unwrapping
from chainrule.layers.init import FanIn, Induction, Init, Mimetic, Normal
from chainrule.layers.rope import Rope
from chainrule.models.decoder import Decoder, DecoderConfig
from chainrule.models.encoder import Encoder, EncoderConfig
from chainrule.models.families import FAMILIES
from chainrule.models.moves import Move
from chainrule.models.packed import unpacking
from chainrule.models.seq2seq import Seq2Seq, Seq2SeqConfig

OWN = {
    "decoder": ("chainrule.models.decoder", "DecoderConfig", "Decoder"),
    "encoder": ("chainrule.models.encoder", "EncoderConfig", "Encoder"),
    "neural_ngram": ("chainrule.models.neural_ngram", "NeuralNGramConfig", "NeuralNGram"),
    "ngram": ("chainrule.models.ngram", "NGramConfig", "NGram"),
    "recurrent": ("chainrule.models.rnn", "RecurrentConfig", "Recurrent"),
    "seq2seq": ("chainrule.models.seq2seq", "Seq2SeqConfig", "Seq2Seq"),
}
"""The kinds of our configs → (module, config, model): what every model here is built from, published or not."""

SHAPES = {"decoder": "llama", "encoder": "bert"}
"""The family as which a model of ours is published, where it has that family's shape."""

SAVED_AS = {"kimi_k2": "deepseek_v3"}
"""What other programs know only by code that comes with the model, which we do not write → the layout that it has, under which
they read what is saved."""

LEFT_OUT = ("quantization_config", "auto_map")
"""What a saved config does not say: a packing, since it is unpacked; files of code, since there are none beside it."""

TOLD_BY_WEIGHTS = {"bert"}
"""Families whose config.json does not say which heads there are: their module has ``told(config, names of the weights)``."""

INITS: dict[str, Init] = {
    "normal": Normal(),
    "fan_in": FanIn(gain=0.5),
    "mimetic": Mimetic(),
    "induction": Induction(),
}
"""Where weights may begin, by the names that recipes use."""


def family(model_type: str) -> Any:
    """The module of a published family; raises ``CheckpointError`` naming the families there are.

    It has ``to_parts(config)``, the config of ours that a published one means, and ``moves(config)``, where each weight lives.
    """
    if model_type not in FAMILIES:
        known = ", ".join(sorted([*FAMILIES, *TEXT_MODELS, *OWN]))
        raise CheckpointError(
            f"model_type {model_type!r} is not supported{nearest(str(model_type), [*FAMILIES, *TEXT_MODELS])} (all: {known})"
        )
    return import_module(FAMILIES[model_type])


def parts(config: Mapping[str, Any]) -> Any:
    """The config of ours that a ``config.json`` means: written by us, or published."""
    with understood(config):
        model_type = config.get("model_type")
        if model_type is None:
            raise CheckpointError("config.json names no model_type; add the one the model was published with")
        if model_type in OWN:
            module, name, _ = OWN[model_type]
            return parse(getattr(import_module(module), name), config["chainrule"])
        alone = text_alone(config)
        return family(alone["model_type"]).to_parts(alone)


@contextmanager
def understood(config: Mapping[str, Any]) -> Iterator[None]:
    """What breaks on a value of a ``config.json`` (a text for a number, a width of 0) is an error of the config."""
    try:
        yield
    except ChainruleError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        said = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"config.json (model_type {config.get('model_type')!r}) cannot be understood: a value in it has the wrong type "
            f"or size ({said[:120]})"
        ) from error


def told(config: dict[str, Any], names: Callable[[], Collection[str]]) -> dict[str, Any]:
    """A ``config.json`` with what only the names of its weights say."""
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type in TOLD_BY_WEIGHTS:
        return family(model_type).told(config, names())
    return config


def build(config: Any) -> Any:
    """An empty model of one of our configs, or of a ``config.json``, which it then remembers as ``published``."""
    if is_dataclass(config):
        module, _, name = OWN[config.kind]  # type: ignore[attr-defined]
        return getattr(import_module(module), name)(config)
    model = build(parts(config))
    if config["model_type"] not in OWN:
        published = {key: value for key, value in text_alone(config).items() if key not in LEFT_OUT}
        model.published = published | {"model_type": SAVED_AS.get(published["model_type"], published["model_type"])}
    return model


def shapes(config: Mapping[str, Any]) -> Any:
    """The empty model of a ``config.json`` on the meta device, which holds shapes alone; a size that cannot be is its error."""
    with understood(config), torch.device("meta"):
        return build(config)


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


def _scheme(init: str, config: DecoderConfig) -> Init:
    """The scheme of that name; induction turns as the decoder's rope does, and is refused where there is none."""
    scheme = INITS[init]
    if not isinstance(scheme, Induction):
        return scheme
    if not isinstance(config.position, Rope):
        raise ConfigError(
            f"init='induction' looks back by rope, but this decoder has positions of kind {config.position.kind!r}; "
            "use 'normal', 'fan_in' or 'mimetic'"
        )
    return replace(scheme, theta=config.position.theta)


def fresh_seq2seq(
    *, plan: str, vocab_size: int, context: int, n_layers: int, d_model: int, n_heads: int, d_ff: int, init: str, seed: int
) -> Seq2Seq:
    """A new encoder–decoder, its weights drawn from the seed by one of ``INITS``."""
    shape = Seq2SeqConfig.original if plan == "original" else Seq2SeqConfig.t5
    config = shape(
        vocab_size=vocab_size, context=context, n_layers=n_layers, d_model=d_model, n_heads=n_heads, d_ff=d_ff
    )  # fmt: skip
    model = Seq2Seq(config)
    model.init(torch.Generator().manual_seed(seed), INITS[init])
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
    longest = "n_positions" if config.get("model_type") == "gpt2" else "max_position_embeddings"
    whole = {**config, "vocab_size": vocab_size, longest: context}
    if config.get("model_type") in OWN or not isinstance(parts(whole), DecoderConfig):
        raise CheckpointError(
            f"model_type {config.get('model_type')!r} is no published decoder; use another kind of model for it"
        )
    model = build(whole)
    scheme = Normal(std=std) if init == "normal" else _scheme(init, model.config)
    model.init(torch.Generator().manual_seed(seed), scheme)
    return model


def published_config(model: Any) -> dict[str, Any]:
    """The ``config.json`` of a model: the one it came with, that of its shape's family (``SHAPES``), or our own."""
    came_with = getattr(model, "published", None)
    if came_with is not None and parts(came_with) == model.config:
        return dict(came_with)
    config = getattr(model, "config", None)
    if not is_dataclass(config) or config.kind not in OWN:  # type: ignore[attr-defined]
        raise CheckpointError(f"a {type(model).__name__} has no files to be saved as")
    kind: str = config.kind  # type: ignore[attr-defined]
    if kind in SHAPES:
        with suppress(CheckpointError):
            return family(SHAPES[kind]).to_published(config)
    return {"model_type": kind, "chainrule": dump(config)}


def moves(config: Mapping[str, Any]) -> Sequence[Move]:
    """The weight moves of a published config, packed weights unpacked first; none for our own."""
    with understood(config):
        if config["model_type"] in OWN:
            return ()
        alone = text_alone(config)
        return (*unwrapping(config), *unpacking(alone), *family(alone["model_type"]).moves(alone))
