"""A config to a model: the one place where rooms that never meet a particular model get one made."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import is_dataclass
from importlib import import_module
from typing import Any

import torch

from chainrule.core.errors import ChainruleError, CheckpointError, ConfigError, nearest
from chainrule.core.schema import dump, parse
from chainrule.hub.pictures import TEXT_MODELS, text_alone, unwrapping
from chainrule.models.families import FAMILIES
from chainrule.models.moves import Move
from chainrule.models.packed import unpacking

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

NOT_SAVED = ("quantization_config", "auto_map")
"""What a saved config does not say: a packing, since it is unpacked; files of code, since there are none beside it."""

LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "num_decoder_layers")
"""How families spell the number of their layers."""

MOST_LAYERS = 10_000

HEADS_IN_WEIGHTS = {"bert"}
"""Families whose config.json does not say which heads there are: their module has ``with_heads(config, names)``."""


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
        _check_layers(alone)
        return family(alone["model_type"]).to_parts(alone)


def _check_layers(config: Mapping[str, Any]) -> None:
    """Raise ``CheckpointError`` for more layers than any model has, before a family makes a list of them."""
    for key in LAYERS:
        n = config.get(key)
        if isinstance(n, int | float) and n > MOST_LAYERS:
            raise CheckpointError(
                f"config.json: {key!r} is {n}, and a model of more than {MOST_LAYERS:,} layers is not built here; "
                "copy it again from where it came"
            )


@contextmanager
def understood(config: Mapping[str, Any], where: str = "config.json") -> Iterator[None]:
    """What breaks on a value of a config (a text for a number, a width of 0) is an error of the file that says it."""
    try:
        yield
    except ChainruleError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        said = f"it has no {error}" if isinstance(error, KeyError) else " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"{where} (model_type {config.get('model_type')!r}) cannot be understood: a value in it has the wrong type or "
            f"size ({said[:120]}); copy it again from where it came"
        ) from error


def with_heads(config: dict[str, Any], names: Callable[[], Collection[str]]) -> dict[str, Any]:
    """A ``config.json`` with the heads that only the names of its weights tell of."""
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type in HEADS_IN_WEIGHTS:
        return family(model_type).with_heads(config, names())
    return config


def build(config: Any) -> Any:
    """An empty model of one of our configs, or of a ``config.json``, which it then remembers as ``published``."""
    if is_dataclass(config):
        module, _, name = OWN[config.kind]  # type: ignore[attr-defined]
        return getattr(import_module(module), name)(config)
    model = build(parts(config))
    if config["model_type"] not in OWN:
        published = {key: value for key, value in text_alone(config).items() if key not in NOT_SAVED}
        model.published = published | {"model_type": SAVED_AS.get(published["model_type"], published["model_type"])}
    return model


def shapes(config: Mapping[str, Any]) -> Any:
    """The empty model of a ``config.json`` on the meta device, which holds shapes alone; a size that cannot be is its error."""
    with understood(config), torch.device("meta"):
        return build(config)


def published_config(model: Any) -> dict[str, Any]:
    """The ``config.json`` of a model: the one it came with, that of its shape's family (``SHAPES``), or our own."""
    came_with = getattr(model, "published", None)
    if came_with is not None and parts(came_with) == model.config:
        return dict(came_with)
    config = getattr(model, "config", None)
    if not is_dataclass(config) or config.kind not in OWN:  # type: ignore[attr-defined]
        name = type(model).__name__
        raise CheckpointError(f"{name} has no files to be saved as; give a model that was read from files or trained here")
    kind: str = config.kind  # type: ignore[attr-defined]
    said = _own_words(config)
    if kind in SHAPES:
        with suppress(CheckpointError):
            return family(SHAPES[kind]).to_published(config)
    return {"model_type": kind, "chainrule": said}


def _own_words(config: Any) -> dict[str, Any]:
    """A config of ours as it stands in a file; raises ``CheckpointError`` where a part of it would not be read back."""
    said = dump(config)
    try:
        back, why = parse(type(config), said), "a part of it would be read back as another"
    except ConfigError as error:
        back, why = None, str(error)
    if back != config:
        raise CheckpointError(
            f"no config.json can say what this {config.kind} is made of ({why}); "
            "keep its weights with torch.save(model.state_dict(), FILE) beside the code of its parts"
        )
    return said


def moves(config: Mapping[str, Any]) -> Sequence[Move]:
    """The weight moves of a published config, packed weights unpacked first; none for our own."""
    with understood(config):
        if config["model_type"] in OWN:
            return ()
        alone = text_alone(config)
        return (*unwrapping(config), *unpacking(alone), *family(alone["model_type"]).moves(alone))
