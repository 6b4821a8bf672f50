"""Which files of a folder hold its weights: safetensors, whole or in shards that an index names; pickles only if asked for."""

import json
from collections.abc import Sequence
from pathlib import Path

from chainrule.core.errors import CheckpointError, some
from chainrule.hub.links import inside

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED, PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
SAFETENSORS = Path(SINGLE).suffix
PICKLES = ("*.bin", "*.pt", "*.pth")
"""What files that ``torch.save`` wrote are usually called."""


def weight_files(folder: Path, *, pickle: bool = False) -> list[Path]:
    """The files of weights in a folder: safetensors, or with ``pickle`` what ``torch.save`` wrote.

    Raises ``CheckpointError`` where there are none, one is missing, or one leads out of the folder.
    """
    for single, index in [(SINGLE, INDEX)] + [(PICKLED, PICKLED_INDEX)] * pickle:
        if (folder / single).is_file():
            return [inside(folder, single)]
        if (folder / index).exists():
            return _sharded(folder, index)
    pickled = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickled and pickle:
        raise CheckpointError(
            f"{folder} holds {pickled[0]}, but pickled weights are read from {PICKLED} or its index; rename it"
        )
    hint = f"; {pickled[0]} is a pickle, which may run code: if you trust it, say pickle=True (--pickle)" if pickled else ""
    raise CheckpointError(f"{folder} holds no weights ({SINGLE} or {INDEX}){hint}")


def has_weights(folder: Path) -> bool:
    """Whether a folder holds anything that may be weights, or a list of them."""
    return any(any(folder.glob(pattern)) for pattern in ("*.safetensors", "*.index.json", *PICKLES))


def is_whole(folder: Path, *, pickle: bool = False) -> bool:
    """Whether a folder holds a config and every file of the weights."""
    if not (folder / "config.json").exists():
        return False
    try:
        return bool(weight_files(folder, pickle=pickle))
    except CheckpointError:
        return False


def _sharded(folder: Path, index: str) -> list[Path]:
    names = shard_names(folder / index, "copy it again")
    files = [inside(folder, name) for name in names]
    refuse_pickles(folder / index, names)
    missing = [name for name, file in zip(names, files, strict=True) if not file.exists()]
    if missing:
        raise CheckpointError(f"{folder} lacks {some(missing)}, which its index names; copy them too")
    return files


def refuse_pickles(index: Path, names: Sequence[str]) -> None:
    """Raise ``CheckpointError`` where the index of safetensors names another kind of file, which might be a pickle."""
    others = [name for name in names if Path(name).suffix != SAFETENSORS]
    if index.name == INDEX and others:
        raise CheckpointError(
            f"{index} names {others[0]!r}, which is no {SAFETENSORS} file; pickles are read from {PICKLED} or its index "
            f"{PICKLED_INDEX} alone, if you say pickle=True (--pickle)"
        )


def shard_names(index: Path, cure: str) -> list[str]:
    """The files that an index names; ``cure`` is what to do about a damaged one."""
    try:
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return sorted({str(name) for name in files})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{index} is damaged ({type(error).__name__}: {error}); {cure}") from error
