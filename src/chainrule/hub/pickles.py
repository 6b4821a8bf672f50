"""Pickled weights, as ``torch.save`` writes them: a program that rebuilds objects, so read only where they are asked for.

torch reads them with ``weights_only``: tensors, numbers and containers, and no other code. A file in the format of torch 1.6
and later is a zip whose tensors are mapped; an older one is read whole.
"""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from chainrule.core.errors import CheckpointError
from chainrule.core.shapes import Tensor


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickled file; raises ``CheckpointError`` where it holds anything else, or would run code."""
    try:
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} holds more than tensors, so it is not read ({_reason(error)}); convert it to safetensors"
        ) from error
    except Exception as error:  # a damaged program fails wherever it happens to lead
        raise CheckpointError(f"{path} is damaged or cut off ({_reason(error)}); copy it again") from error
    tensors = _tensors(held)
    if not isinstance(tensors, Mapping) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise CheckpointError(f"{path} holds a {type(held).__name__} that is no table of tensors; convert it to safetensors")
    return dict(tensors)


def _reason(error: Exception) -> str:
    """The first line of an error, or what it is called where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _tensors(held: Any) -> Any:
    """The table itself, also where a training program put it under a name."""
    for key in ("state_dict", "model"):
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            return held[key]
    return held
