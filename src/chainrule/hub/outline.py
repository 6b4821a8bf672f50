"""A model without its weights: built on the meta device from its config, each tensor under the names it is published with.

    config.json → parts → shapes;     our tensors → the family's moves backwards → published names

Nothing is read and nothing computed: what a checkpoint will hold is known from the config alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from chainrule.core.device import DTYPES, SPELT, format_called
from chainrule.core.errors import ConfigError
from chainrule.hub.build import moves, shapes
from chainrule.hub.pictures import text_alone
from chainrule.models.moves import Inverse
from chainrule.models.packed import unpacking
from chainrule.models.routes import routes


@dataclass(frozen=True)
class Outline:
    """A model of shapes, and for each of its tensors the names under which it is published."""

    model: Any
    published: Mapping[str, tuple[str, ...]]
    tensors: int
    """How many tensors its checkpoint has."""
    packing: str
    """How the published file packs them (``fp8``, ``mxfp4``), or nothing: what is said here is said of the unpacked."""


def outline(config: Mapping[str, Any], dtype: torch.dtype | None = None) -> Outline:
    """The outline of a ``config.json``, in ``dtype`` or in the format that it names."""
    model = shapes(config)
    model.to(named_format(config) if dtype is None else dtype).eval()
    way = [Inverse(move) for move in reversed(moves(config))]
    found, published = routes(way, dict(model.state_dict()))
    names: dict[str, list[str]] = {}
    for route in found:
        for name, sources in route.ours.items():
            for ours in sources:
                names.setdefault(ours, []).append(name)
    packing = (text_alone(config).get("quantization_config") or {}).get("quant_method", "")
    return Outline(model, {ours: tuple(theirs) for ours, theirs in names.items()}, len(published), packing)


def named_format(config: Mapping[str, Any]) -> torch.dtype:
    """The number format that a config names for its weights; where it names none, what packed ones become, or float32.

    What the text model among parts for pictures says itself comes before what is said of the whole.
    """
    text = text_alone(config)
    said = [one[key] for one in (text, config) for key in ("dtype", "torch_dtype") if one.get(key)]
    name = said[0] if said else "bfloat16" if unpacking(text) else "float32"
    dtype = DTYPES.get(format_called(name))
    if dtype is None:
        raise ConfigError(f"config.json names the number format {name!r}; known are {', '.join(SPELT)}: say --dtype bf16")
    return dtype
