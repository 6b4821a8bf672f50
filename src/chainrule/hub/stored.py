"""Tensors in files, before a model takes them: format and shape from the file's header, the numbers when they are asked for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from chainrule.core.device import format_name
from chainrule.core.errors import CheckpointError, some
from chainrule.core.shapes import Tensor
from chainrule.hub.safetensors import Mapped
from chainrule.hub.trace import Stopwatch
from chainrule.hub.weight_files import SAFETENSORS


@dataclass(frozen=True)
class Stored:
    """A tensor in a file, not yet read."""

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    read: Callable[[], Tensor]
    block: str | None = None
    """The format of GGUF's blocks that it is stored in, where it is no plain array of ``dtype``."""
    block_bytes: int = 0

    @property
    def size_bytes(self) -> int:
        """How long it is in the file."""
        return self.block_bytes or torch.Size(self.shape).numel() * self.dtype.itemsize

    @property
    def format(self) -> str:
        """The number format in the file."""
        return self.block or format_name(self.dtype)

    def empty(self) -> Tensor:
        """Its shape alone."""
        return torch.empty(self.shape, dtype=self.dtype, device="meta")


def open_weights(files: Sequence[Path], watch: Stopwatch) -> dict[str, Stored]:
    """Every tensor of the files by its published name; of safetensors nothing but the headers is read."""
    stored: dict[str, Stored] = {}
    for path in files:
        found = _open(path)
        twice = sorted(set(found) & set(stored))
        if twice:
            raise CheckpointError(
                f"{path} and {stored[twice[0]].file} both hold {some(twice)}; remove the one that is not meant"
            )
        stored |= found
        what = f"{len(found)} tensors, mapped" if path.suffix == SAFETENSORS else f"{len(found)} tensors, unpickled"
        watch.lap("open", what, file=path, size_bytes=path.stat().st_size, made=found)
    return stored


def _open(path: Path) -> dict[str, Stored]:
    if path.suffix != SAFETENSORS:
        from chainrule.hub.pickles import read_pickle

        return in_memory(path, read_pickle(path))
    file = Mapped(path)
    return {
        name: Stored(path, slot.dtype, slot.shape, lambda name=name: file.tensor(name)) for name, slot in file.slots.items()
    }


def in_memory(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Stored]:
    """Tensors of a file that had to be read whole."""
    return {
        name: Stored(path, tensor.dtype, tuple(tensor.shape), lambda tensor=tensor: tensor) for name, tensor in tensors.items()
    }
