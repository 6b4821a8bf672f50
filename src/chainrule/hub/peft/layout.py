"""What a PEFT folder calls things, and how the rows of a published matrix lie here."""

import re
from typing import Any

from chainrule.core.shapes import Tensor
from chainrule.models.moves import Move, Transpose, loaded

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
STEM = "base_model.model."
TABLE, HEAD = "embed_tokens.weight", "lm_head.weight"


def rows_here(changes: tuple[Move, ...], module: str, tensor: Tensor) -> dict[str, Tensor]:
    """A tensor with a row for each output of a module, moved as its matrix is: name of ours → its rows."""
    name = f"{module}.weight"
    return loaded(changes, {name: tensor.mT if inputs_first(changes, name, tensor) else tensor})


def inputs_first(changes: tuple[Move, ...], name: str, tensor: Tensor) -> bool:
    """Whether a matrix is published with its inputs first, as GPT-2's Conv1D are; the adapter's two never are."""
    tensors = {name: tensor}
    for move in changes:
        if isinstance(move, Transpose):
            return any(re.search(move.pattern, one) for one in tensors)
        tensors = move.load(tensors)
    return False


def is_tied(model: Any) -> bool:
    """Whether the readout is the embedding table."""
    return bool(getattr(model.config, "tied", False))
