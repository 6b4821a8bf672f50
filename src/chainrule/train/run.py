"""A run: a folder that holds everything about one training, and can be gone on with.

    runs/NAME/recipe.yaml      as resolved          runs/NAME/checkpoints/step-00000100/
    runs/NAME/metrics.jsonl    a row a step         runs/NAME/model/    the result, in the Hugging Face layout

Two processes never share a run folder; a folder that exists is gone on with (``resume``), replaced (``force``) or refused.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from chainrule.core.datum import Batch, Layout
from chainrule.core.device import cpu_threads, pick_device
from chainrule.core.errors import CheckpointError
from chainrule.core.files import exists, unwritable, whole_folder, write_text
from chainrule.core.masked import MaskedModel, Model
from chainrule.core.tokenizer import Tokenizer
from chainrule.data.streams import Stream
from chainrule.hub.save import save
from chainrule.tokenizers.chat import ChatTemplate
from chainrule.train.checkpoint import Circumstances, checkpoints, load_checkpoint, save_checkpoint
from chainrule.train.loop import Hooks, Settings, train
from chainrule.train.material import Material, freeze_unused, fresh_model, prepare
from chainrule.train.objective import Objective, loss_of
from chainrule.train.optim import AdamW, Averaged, Muon, Optimizer
from chainrule.train.precision import pick_precision
from chainrule.train.recipe import Bpe, Recipe, Start, World, WorldChats, WorldPairs, read_recipe, write_recipe
from chainrule.world import VERSION

RUNS = Path("runs")
LOCK = ".lock"


@dataclass(frozen=True)
class Run:
    """What a finished training gives: its folder, model, tokenizer and chat template."""

    folder: Path
    model: Model
    tokenizer: Tokenizer
    template: ChatTemplate | None


Watch = Callable[[Any, Tokenizer], dict[str, Any]]
"""Looks at a model during its training; what it finds stands in ``metrics.jsonl`` beside the held-out loss."""


def run_recipe(
    recipe: Recipe,
    name: str,
    *,
    resume: bool = False,
    force: bool = False,
    runs: Path = RUNS,
    label: str = "train",
    watch: Watch | None = None,
) -> Run:
    """Train what the recipe says into ``runs/NAME``. Raises ``ChainruleError`` before work starts where it cannot go right."""
    folder = runs / name
    threads = recipe.threads or cpu_threads()
    torch.set_num_threads(threads)
    device = pick_device(recipe.device)
    precision = pick_precision(recipe.precision, device)
    dtype, scaling = precision.products, precision.scale()
    begun = (folder / LOCK).exists()
    _check(folder)
    with locked(folder):
        newest = _enter(folder, resume=resume, force=force, begun=begun)
        _check_kept(folder, recipe, newest)
        material = prepare(recipe, folder if newest else None)
        model = material.model.to(device, precision.weights)
        optimizer = _optimizer(recipe, model, dtype)
        now = Circumstances(
            recipe=_fingerprint(write_recipe(recipe)),
            data=_fingerprint(json.dumps(material.stream.describe())),
            threads=threads,
            dtype=str(dtype),
            compile=recipe.compile,
            device=str(device),
            torch=torch.__version__,
            world=_world(recipe),
        )
        loss = loss_of(model, recipe.balance)
        step = load_checkpoint(newest, model, optimizer, now, force=force, scaling=scaling) if newest else 0
        if step > recipe.steps:
            raise CheckpointError(
                f"{newest} has made {step} steps, and the recipe has steps={recipe.steps}; set steps to {step} or more, or "
                "start anew under another --name"
            )
        if newest is None:
            _begin(folder, recipe, material)
        else:  # a forced resume may have changed it
            write_text(folder / "recipe.yaml", write_recipe(recipe))
        log = _Log(folder, step)
        hooks = Hooks(
            log=log.write,
            save=lambda at: save_checkpoint(
                folder / "checkpoints", at, model, optimizer, now, keep=recipe.keep, scaling=scaling
            ),
            evaluate=lambda: _look(model, material, watch, device, dtype),
        )
        settings = Settings(
            steps=recipe.steps, schedule=recipe.schedule, clip=recipe.clip, dtype=dtype, device=device,
            eval_every=recipe.eval_every, save_every=recipe.save_every, label=label,
        )  # fmt: skip
        model.train()
        objective: torch.nn.Module = Objective(model, loss)
        objective = torch.compile(objective) if recipe.compile else objective  # type: ignore[assignment]
        train(objective, material.stream, optimizer, settings, hooks, start=step, scaling=scaling)
        model.eval()
        template = material.template
        source, tool_use = (None, None) if template is None else (template.source, template.tool_use)
        how: dict[str, Any] = {"tool_use": tool_use, "generation": material.generation}
        save(folder / "model", model, material.tokenizer, source, force=True, **how)
        return Run(folder, model, material.tokenizer, material.template)


def _optimizer(recipe: Recipe, model: Model, dtype: torch.dtype) -> Optimizer:
    one = _stepping(recipe, model, dtype)
    averaged = max(1, round(recipe.average * recipe.steps))
    return Averaged(one, model, recipe.steps - averaged) if recipe.average else one


def _stepping(recipe: Recipe, model: Model, dtype: torch.dtype) -> Optimizer:
    o = recipe.optimizer
    if o.kind == "adamw":
        return AdamW(model, lr=o.lr, betas=o.betas, weight_decay=o.weight_decay)
    return Muon(model, lr=o.lr, adam_lr=o.adam_lr, momentum=o.momentum, betas=o.betas, weight_decay=o.weight_decay, dtype=dtype)


@torch.no_grad()
def evaluate(objective: Objective, stream: Stream | None, device: torch.device, dtype: torch.dtype) -> dict[str, float]:
    """The mean loss over the first batches of held-out data; nothing where none was held out."""
    if stream is None:
        return {}
    objective.eval()
    total = weight = 0.0
    for batch in stream.batches(0):
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            loss = objective(batch.to(device))
        total, weight = total + float(loss.total), weight + float(loss.weight)
    objective.train()
    return {"held_out_loss": total / weight} if weight else {}


def _look(model: Model, material: Material, watch: Watch | None, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """The held-out loss, and what the watch finds."""
    seen: dict[str, Any] = dict(evaluate(Objective(model, loss_of(model)), material.held_out, device, dtype))
    if watch is not None:
        model.eval()
        with torch.no_grad():
            seen |= watch(model, material.tokenizer)
        model.train()
    return seen


def seconds_per_step(recipe: Recipe, *, vocab_size: int, steps: int = 12, stream: Stream | None = None) -> float:
    """How long an optimizer step of this recipe takes here, on random tokens packed like documents, or on a ``stream``.

    The median of the later half of the steps: the first ones warm up, and so does the machine, which then slows down. The model
    is a new one; word vectors are not learned for it.
    """
    torch.set_num_threads(recipe.threads or cpu_threads())
    device = pick_device(recipe.device)
    precision = pick_precision(recipe.precision, device)
    settings = Settings(
        steps=steps, schedule=recipe.schedule, clip=recipe.clip, dtype=precision.products, device=device,
        eval_every=steps + 1, save_every=steps + 1, label="measure",
    )  # fmt: skip
    model = fresh_model(recipe, vocab_size).to(device, precision.weights).train()
    if isinstance(model, MaskedModel):
        freeze_unused(model)
    rows: list[float] = []
    hooks = Hooks(log=lambda row: rows.append(row["seconds"]) if "seconds" in row else None, save=None, evaluate=dict)
    train(
        Objective(model, loss_of(model, recipe.balance)),
        stream or _Random(vocab_size, recipe),
        _optimizer(recipe, model, settings.dtype),
        settings,
        hooks,
        scaling=precision.scale(),
    )
    return median(rows[len(rows) // 2 :])


@dataclass(frozen=True)
class _Random:
    """Random tokens in three documents a row."""

    vocab_size: int
    recipe: Recipe

    def batches(self, step: int) -> list[Batch]:
        n, t = self.recipe.batch_rows, self.recipe.context
        tokens = torch.randint(self.vocab_size, (n, t), generator=torch.Generator().manual_seed(step))
        column = torch.arange(t)
        length = max(t // 3, 1)
        layout = Layout((column % length).expand(n, t).clone(), (column // length).expand(n, t).clone())
        return [Batch(tokens, torch.ones(n, t), layout)]

    def describe(self) -> dict[str, Any]:
        return {}


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run folder; raises ``CheckpointError`` where another process holds it. A killed process lets go by itself.

    A folder in which nothing came to be is removed again, and so are those that were made to hold it.
    """
    import fcntl

    lock = folder / LOCK
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise unwritable(folder, error) from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(f"{folder} is in use by another process; wait for it, or choose another --name") from error
        except OSError as error:
            raise CheckpointError(
                f"{folder} cannot be held against other processes: its file system has no locks ({error.strerror}); choose "
                "another place with --runs"
            ) from error
        try:
            yield
        finally:
            if [path.name for path in folder.iterdir()] == [lock.name]:
                lock.unlink()
                folder.rmdir()
                with suppress(OSError):  # another run may have come there meanwhile
                    for parent in made[1:]:
                        parent.rmdir()
    finally:
        os.close(handle)


def content(folder: Path) -> list[Path]:
    """What a run folder holds beside its lock; what a killed write left half-written counts for nothing."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in found if path.name != LOCK and not (path.name.startswith(".") and path.suffix == ".part")]


def remove(path: Path) -> None:
    """Remove a file, or a folder with all it holds, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _check(folder: Path) -> None:
    """Raises where a folder holds something else than a run, before anything in it is touched: nobody asked to replace that."""
    found = content(folder)
    if found and not (folder / "recipe.yaml").exists():
        raise CheckpointError(
            f"{folder} holds {found[0].name}, but no run to go on with or to replace; choose another --name, or move that away"
        )


def _enter(folder: Path, *, resume: bool, force: bool, begun: bool) -> Path | None:
    """The checkpoint to go on from, None for a run from the beginning; raises where what the folder holds forbids either.

    A run that was killed before its first checkpoint, or (``begun``) before it wrote anything, begins anew on ``resume``.
    What a killed write left half-written is removed.
    """
    for part in folder.glob(".*.part"):
        remove(part)
    found = content(folder)
    if resume and not found and not begun:
        raise CheckpointError(f"{folder} holds no run to go on with; leave out --resume to start one")
    if found and not resume and not force:
        raise CheckpointError(
            f"{folder} exists already; go on with --resume, replace it with --force, or choose another --name"
        )
    newest = checkpoints(folder / "checkpoints") if resume else []
    if resume and not force and not newest and (folder / "model").exists():
        raise CheckpointError(
            f"{folder} holds a finished model and no checkpoint to go on from; train it anew with --force, or choose another "
            "--name"
        )
    return newest[-1] if newest else None


def _check_kept(folder: Path, recipe: Recipe, newest: Path | None) -> None:
    """Raises where a new run would remove what it reads, or one that goes on keep another tokenizer than its recipe names."""
    if newest is None:
        reads = {"model": recipe.model, "tokenizer": recipe.tokenizer, "data": recipe.data}
        for name, path in ((name, getattr(part, "path", None)) for name, part in reads.items()):
            if path and exists(Path(path)) and Path(path).resolve().is_relative_to(folder.resolve()):
                raise CheckpointError(
                    f"{name}.path={path} lies in {folder}, which a run that begins there empties; choose another --name, or "
                    "move that elsewhere first"
                )
    elif not isinstance(recipe.model, Start):
        before = read_recipe(str(folder / "recipe.yaml")).tokenizer
        if recipe.tokenizer != before:
            raise CheckpointError(
                f"the tokenizer was {before}, is {recipe.tokenizer}; the weights of {newest} know that one alone: restore it, "
                "or start anew under another --name"
            )


def _begin(folder: Path, recipe: Recipe, material: Material) -> None:
    """Empty the folder, then write what is known of the run before its first step."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == "recipe.yaml"):  # last: what is left is still a run
        if path.name != LOCK:
            remove(path)
    write_text(folder / "recipe.yaml", write_recipe(recipe))
    facts = {"world": _world(recipe), **material.stream.describe(), "making_seconds": round(material.making_s, 3)}
    write_text(folder / "data.json", json.dumps({key: value for key, value in facts.items() if value is not None}, indent=2))
    if isinstance(recipe.tokenizer, Bpe) and not isinstance(recipe.model, Start):
        with whole_folder(folder / "tokenizer") as aside:
            material.tokenizer.save(aside)


def _world(recipe: Recipe) -> int | None:
    """The version of the world that the data are drawn from, None where they are a user's own."""
    return VERSION if isinstance(recipe.data, World | WorldChats | WorldPairs) else None


def _fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of a run's ``metrics.jsonl``; none where it has not begun."""
    path = folder / "metrics.jsonl"
    rows: list[dict[str, Any]] = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with suppress(json.JSONDecodeError):  # a kill cut it off
            rows.append(json.loads(line))
    return rows


class _Log:
    """``metrics.jsonl``, cut back to the step a run goes on from."""

    def __init__(self, folder: Path, step: int) -> None:
        kept = [row for row in read_metrics(folder) if row["step"] <= step] if step else []
        self._path = folder / "metrics.jsonl"
        write_text(self._path, "".join(f"{json.dumps(row)}\n" for row in kept))

    def write(self, row: dict[str, Any]) -> None:
        """Append a row; where there is no room for it, none of it."""
        before = self._path.stat().st_size if self._path.exists() else 0
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            with suppress(OSError):
                os.truncate(self._path, before)
            raise unwritable(self._path, error) from error
