"""Checkpoints: complete or absent, never half.

``checkpoints/step-00000100/`` holds the weights, the optimizer, the random state and where the run stood; it is written aside,
put on the disk and renamed. A run killed at any moment goes on from the newest one to the same weights, bit for bit, as
long as what the arithmetic depends on (threads, number format, compile mode) is the same; a change is refused.
"""

import errno
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from chainrule.core.errors import CheckpointError
from chainrule.core.files import whole_folder
from chainrule.hub.safetensors import write_tensors
from chainrule.train.optim import Optimizer
from chainrule.train.precision import LossScale

LAST_BITS = {"threads", "dtype", "compile", "device", "torch"}
"""The circumstances that change last bits alone; any other says what is learned."""


@dataclass(frozen=True)
class Circumstances:
    """What the last bit of a training step depends on, besides the recipe."""

    recipe: str
    data: str
    threads: int
    dtype: str
    compile: bool
    device: str
    torch: str
    world: int | None = None

    def check(self, now: "Circumstances") -> None:
        """Raises ``CheckpointError`` naming what has changed."""
        changed = [(key, old, asdict(now)[key]) for key, old in asdict(self).items() if asdict(now)[key] != old]
        if changed:
            in_words = {"recipe": "the recipe", "data": "the data"}
            what = "; ".join(in_words.get(key, f"{key} was {old}, is {new}") for key, old, new in changed)
            forced = (
                "accept other last bits with --force"
                if LAST_BITS.issuperset(key for key, _, _ in changed)
                else "go on with --force to a mixed model: its steps so far stay as they were learned, and recipe.yaml will "
                "tell only how the others were"
            )
            raise CheckpointError(
                f"the run would not go on as it began ({what}); restore that, start anew under another --name, or {forced}"
            )


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: Optimizer,
    circumstances: Circumstances,
    *,
    keep: int,
    scaling: LossScale | None = None,
) -> Path:
    """Write ``folder/step-XXXXXXXX`` whole, then remove all but the newest ``keep``."""
    path = folder / f"step-{step:08d}"
    with whole_folder(path) as aside:
        write_tensors(_own_tensors(model), aside / "model.safetensors")
        scale = {} if scaling is None else {"scaling": scaling.state_dict()}
        _write_state({"optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()} | scale, aside / "optimizer.pt")
        state = {"step": step, "circumstances": asdict(circumstances)}
        (aside / "state.json").write_text(json.dumps(state, indent=2), encoding="utf-8")
    for old in [*checkpoints(folder)[:-keep], *folder.glob(".step-*")]:  # and what a kill left half-written
        shutil.rmtree(old, ignore_errors=True)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints, oldest first; what a killed write left behind does not count."""
    found = sorted(path for path in folder.glob("step-*") if path.is_dir()) if folder.exists() else []
    return [path for path in found if (path / "state.json").exists()]


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: Optimizer,
    circumstances: Circumstances,
    *,
    force: bool = False,
    scaling: LossScale | None = None,
) -> int:
    """Put model, optimizer, loss scale and random state back; returns the step to go on from."""
    try:
        state: dict[str, Any] = json.loads((path / "state.json").read_text(encoding="utf-8"))
        step, begun = int(state["step"]), state["circumstances"]
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); remove it, and the run goes on from the one before") from error
    if not force:
        _circumstances(path, begun).check(circumstances)
    try:
        tensors = load_file(path / "model.safetensors")
        saved = torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files fail in the libraries' own ways
        raise CheckpointError(f"{path} is damaged ({error}); remove it, and the run goes on from the one before") from error
    _check_shapes(path, tensors, _own_tensors(model))
    model.load_state_dict(tensors, strict=False)  # a tied tensor is written once
    try:
        optimizer.load_state_dict(saved["optimizer"])
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} holds the state of another optimizer ({' '.join(str(error).split())[:80]}); keep optimizer.kind and "
            "average as they were, or start anew under another --name"
        ) from error
    if scaling is not None and "scaling" in saved:  # a run forced on in fp16 may have begun without
        scaling.load_state_dict(saved["scaling"])
    torch.set_rng_state(saved["rng"])
    return step


def _circumstances(path: Path, saved: dict[str, Any]) -> Circumstances:
    try:
        return Circumstances(**saved)
    except TypeError as error:
        raise CheckpointError(
            f"{path} was written by another version of chainrule ({error}); go on with that one, or accept it with --force"
        ) from error


def _check_shapes(path: Path, saved: Mapping[str, torch.Tensor], here: Mapping[str, torch.Tensor]) -> None:
    """Raises ``CheckpointError`` where a whole checkpoint is that of another model."""
    for name in [*here, *sorted(set(saved) - set(here))]:
        if difference := _difference(name, saved.get(name), here.get(name)):
            raise CheckpointError(
                f"{path} holds a model of another shape ({difference}); keep model and tokenizer as they were, or start anew "
                "under another --name"
            )


def _difference(name: str, saved: torch.Tensor | None, here: torch.Tensor | None) -> str | None:
    if saved is None:
        return f"it lacks {name}"
    if here is None:
        return f"it holds {name}, which the recipe's does not"
    return f"its {name} is {list(saved.shape)}, the recipe's {list(here.shape)}" if saved.shape != here.shape else None


def _write_state(state: dict[str, Any], path: Path) -> None:
    """``torch.save`` whose failures to write are ``OSError``, as other writes' are."""
    try:
        torch.save(state, path)
    except RuntimeError as error:
        raise OSError(errno.EIO, str(error).splitlines()[0]) from error


def _own_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every tensor once: a tied head is its embedding."""
    seen: set[int] = set()
    own: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen or tensor.numel() == 0:
            seen.add(tensor.data_ptr())
            own[name] = tensor.contiguous()
    return own
