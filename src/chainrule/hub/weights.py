"""Weights from safetensors files into a model: mapped, moved, checked, assigned.

Files are read by memory map, tensor by tensor, into the wanted format; a model built on the meta device takes them over without
a second copy. A missing, extra or misshapen tensor is an error that names it.
"""

import errno
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from chainrule.core.errors import CheckpointError
from chainrule.core.shapes import Tensor

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder; raises ``CheckpointError`` where there are none, or one is missing."""
    if (folder / SINGLE).exists():
        return [folder / SINGLE]
    if (folder / INDEX).exists():
        try:
            names = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        except (json.JSONDecodeError, KeyError) as error:
            raise CheckpointError(f"{folder / INDEX} is damaged: {error}; copy it again") from error
        missing = [name for name in names if not (folder / name).exists()]
        if missing:
            raise CheckpointError(f"{folder} lacks {', '.join(missing)}, which its index names; copy them too")
        return [folder / name for name in names]
    pickled = sorted(path.name for path in folder.glob("*.bin")) + sorted(path.name for path in folder.glob("*.pt"))
    hint = f"; {pickled[0]} is a pickle, which may run code: convert it to safetensors" if pickled else ""
    raise CheckpointError(f"{folder} holds no weights ({SINGLE} or {INDEX}){hint}")


def read_weights(folder: Path, dtype: torch.dtype | None) -> dict[str, Tensor]:
    """All tensors of a folder by their published names, floats in ``dtype`` (or as stored)."""
    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118
                    tensor = file.get_tensor(name)
                    tensors[name] = tensor.to(dtype) if dtype and tensor.is_floating_point() else tensor
        except Exception as error:  # safetensors raises its own family for truncated and corrupted files
            raise CheckpointError(f"{path} cannot be read ({error}); it is damaged or cut off, copy it again") from error
    return tensors


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file; a disk that is full or refuses raises ``OSError``, as other writes do."""
    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error)) from error


def assign(model: nn.Module, tensors: Mapping[str, Tensor], where: Path | str) -> None:
    """Give a model its tensors; raises ``CheckpointError`` naming what is missing, left over or of another shape."""
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    extra = sorted(set(tensors) - set(wanted))
    missing = sorted(set(wanted) - set(tensors))
    if missing or extra:
        what = [f"lacks {_some(missing)}"] * bool(missing) + [f"has {_some(extra)}, which the model does not"] * bool(extra)
        raise CheckpointError(f"{where} {' and '.join(what)}; config and weights do not belong together")
    for name, shape in wanted.items():
        if tuple(tensors[name].shape) != shape:
            raise CheckpointError(f"{where}: {name} is {tuple(tensors[name].shape)}, but the config asks for {shape}")
    model.load_state_dict(dict(tensors), assign=True)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
