"""The folder of a run of many stages: entered anew, gone on with, replaced or refused, as one.

What decides the run stands in ``plan.json``; a run that is gone on with must ask for the same, for half of its numbers would be
another run's. A run that is refused before its first stage is done leaves nothing behind.
"""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chainrule.core.errors import ChainruleError, CheckpointError, ConfigError
from chainrule.core.files import write_text
from chainrule.core.schema import dump
from chainrule.train.run import locked

PLAN = "plan.json"
DONE = "done"
"""The folder in which every stage that is done leaves a file."""


@contextmanager
def staged(folder: Path, plan: Any, *, resume: bool, force: bool) -> Iterator[None]:
    """Hold the folder of a run that the dataclass ``plan`` decides: its ``kind`` and all its settings but ``runs``.

    ``force`` empties it first; with ``resume`` it lets the run go on though it was begun otherwise.
    """
    asked = {key: str(value) if isinstance(value, Path) else value for key, value in dump(plan).items() if key != "runs"}
    asked = json.loads(json.dumps(asked))
    there = _content(folder)
    if there and not (resume or force):
        seen = f"see {folder / 'report.html'}" if (folder / "report.html").exists() else "go on with --resume"
        raise ConfigError(f"{folder} exists already; {seen}, replace it with --force, or choose another --name")
    if there and _begun(folder).get("kind") != asked["kind"]:
        raise ConfigError(f"{folder} holds another kind of run than {asked['kind']}; choose another --name")
    with locked(folder):
        if resume and there and not force:
            _compare(folder, asked)
        if force and not resume:
            _empty(folder)
        write_text(folder / PLAN, json.dumps(asked, ensure_ascii=False, indent=1))
        try:
            yield
        except ChainruleError:
            if not (folder / DONE).exists():
                _empty(folder)
            raise


def _content(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.name != ".lock"] if folder.exists() else []


def _empty(folder: Path) -> None:
    for path in _content(folder):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _begun(folder: Path) -> dict[str, Any]:
    """The settings that the run in a folder was begun with; none where it holds no such run."""
    return read_plan(folder / PLAN) if (folder / PLAN).exists() else {}


def read_plan(path: Path) -> dict[str, Any]:
    """The settings in a run's ``plan.json``; a ``CheckpointError`` says where it is damaged."""
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}); begin anew under another --name") from error
    if not isinstance(plan, dict):
        raise CheckpointError(f"{path} is damaged (it holds a {type(plan).__name__}); begin anew under another --name")
    return plan


def _compare(folder: Path, asked: Mapping[str, Any]) -> None:
    """Refuse to go on with a run under other settings."""
    begun = _begun(folder)
    changed = [f"{key} was {begun.get(key)!r}, is {value!r}" for key, value in asked.items() if begun.get(key) != value]
    if changed:
        raise ConfigError(f"{folder} was begun otherwise ({'; '.join(changed)}); restore that, or choose another --name")
