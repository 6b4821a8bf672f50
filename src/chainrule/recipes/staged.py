"""The folder of a run of many stages: entered anew, gone on with, replaced or refused, as one.

What decides the run stands in ``plan.json``, with a hash of the text where that is a user's; a run that is gone on with must
ask for the same, forced or not, for half of its numbers would be another run's. A run that is refused before it has begun in
earnest leaves the folder as it found it: what it was to replace is kept aside until then. ``plan.json`` is taken away first
and put back last, so a kill in between is told from a run.
"""

import hashlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chainrule.core.errors import ChainruleError, CheckpointError, ConfigError
from chainrule.core.files import unwritable, write_text
from chainrule.core.schema import dump
from chainrule.data.documents import read_documents
from chainrule.train.run import LOCK, content, locked, remove

PLAN = "plan.json"
DONE = "done"
"""The folder in which every stage that is done leaves a file."""
TEXT_HASH = "text_sha256"
"""The key in ``plan.json`` under which the hash of a user's text stands."""
REPLACED = ".replaced"
"""Where a forced run keeps what it replaces until it has begun."""


@contextmanager
def staged(
    folder: Path, plan: Any, *, resume: bool, force: bool, begun: str = DONE, world: int | None = None
) -> Iterator[None]:
    """Hold the folder of a run that the dataclass ``plan`` decides: its ``kind`` and all its settings but ``runs``.

    ``world`` is the version of the world whose texts it reads, None where it reads a user's. ``force`` replaces what the
    folder holds; with ``resume`` it replaces nothing, and what was begun otherwise is refused all the same. A run that is
    refused counts as begun once the folder holds ``begun``.
    """
    asked = {key: str(value) if isinstance(value, Path) else value for key, value in dump(plan).items() if key != "runs"}
    asked = json.loads(json.dumps(asked | {"world": world}))
    there = content(folder)
    if there and _settings(folder).get("kind") != asked["kind"]:
        raise ConfigError(f"{folder} holds another kind of run than {asked['kind']}; choose another --name")
    if there and not (resume or force):
        seen = f"see {folder / 'report.html'}" if (folder / "report.html").exists() else "go on with --resume"
        raise ConfigError(f"{folder} exists already; {seen}, replace it with --force, or choose another --name")
    if asked.get("text") is not None:
        asked[TEXT_HASH] = text_hash(Path(asked["text"]))
    with locked(folder):
        _mend(folder, begun)
        if resume and content(folder):
            _compare(folder, asked)
        if force and not resume:
            if (folder / REPLACED).exists():  # what was to replace it never began
                _empty(folder)
                _put_back(folder)
            _put_aside(folder)
        try:
            write_text(folder / PLAN, json.dumps(asked, ensure_ascii=False, indent=1))
            yield
        except ChainruleError:
            if not _in_earnest(folder, begun):
                _empty(folder)
                _put_back(folder)
            raise
        remove(folder / REPLACED)


def read_plan(path: Path) -> dict[str, Any]:
    """The settings in a run's ``plan.json``; a ``CheckpointError`` says where it is damaged."""
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}); begin anew under another --name") from error
    if not isinstance(plan, dict):
        raise CheckpointError(f"{path} is damaged (it holds a {type(plan).__name__}); begin anew under another --name")
    return plan


def text_hash(path: Path) -> str:
    """The SHA-256 of the documents that a file or folder holds, and of where each of them ends."""
    found = hashlib.sha256()
    for text in read_documents(path):
        data = text.encode("utf-8", "surrogatepass")
        found.update(b"%d\n" % len(data) + data)
    return found.hexdigest()


def typed(verb: str, options: Mapping[str, tuple[Any, Any]]) -> str:
    """What to type for a run again: a verb with those of its options that are not the usual; each is (said, usual)."""
    said = (f" {name} {shlex.quote(str(value))}" for name, (value, usual) in options.items() if value != usual)
    return f"chainrule {verb}{''.join(said)}"


def _settings(folder: Path) -> dict[str, Any]:
    """The settings that the run in a folder was begun with; none where it holds no such run."""
    plan = folder / PLAN if (folder / PLAN).exists() else folder / REPLACED / PLAN
    return read_plan(plan) if plan.exists() else {}


def _compare(folder: Path, asked: Mapping[str, Any]) -> None:
    """Refuse to go on with a run under other settings, or on another version of the world."""
    begun = _settings(folder)
    changed = {key: value for key, value in asked.items() if begun.get(key) != value}
    if changed:
        what = "; ".join(_change(key, begun, value) for key, value in changed.items())
        if list(changed) == ["world"] or not changed.keys() <= begun.keys():
            same = "the chainrule that began it"
        else:
            same = "the text as it was" if list(changed) == [TEXT_HASH] else "the same settings"
        raise ConfigError(
            f"{folder} was begun otherwise ({what}); go on with {same}, choose another --name, or begin anew with --force and "
            "without --resume"
        )


def _change(key: str, begun: Mapping[str, Any], value: Any) -> str:
    """What a setting was and is; a version of chainrule that did not know it wrote nothing down."""
    if key == TEXT_HASH:
        return "the text holds other words now" if key in begun else "what the text held was not noted when it began"
    return f"{key} was {begun[key]!r}, is {value!r}" if key in begun else f"{key} is {value!r}, and was not noted when it began"


def _empty(folder: Path) -> None:
    """Remove all but the lock and what is kept aside."""
    remove(folder / PLAN)
    for path in folder.iterdir():
        if path.name not in (LOCK, REPLACED):
            remove(path)


def _put_aside(folder: Path) -> None:
    """Keep what a forced run replaces."""
    try:
        (folder / REPLACED).mkdir()
        for path in sorted(folder.iterdir(), key=lambda path: path.name != PLAN):
            if path.name not in (LOCK, REPLACED):
                os.replace(path, folder / REPLACED / path.name)
    except OSError as error:
        _put_back(folder)
        raise unwritable(folder, error) from error


def _put_back(folder: Path) -> None:
    """Give the folder back what was to be replaced, if anything was."""
    if not (folder / REPLACED).exists():
        return
    for path in sorted((folder / REPLACED).iterdir(), key=lambda path: path.name == PLAN):
        remove(folder / path.name)
        os.replace(path, folder / path.name)
    (folder / REPLACED).rmdir()


def _in_earnest(folder: Path, begun: str) -> bool:
    """Whether the run in a folder has something to lose: what it counts as begun, or a training of its own."""
    return (folder / begun).exists() or any(folder.glob("*/recipe.yaml"))


def _mend(folder: Path, begun: str) -> None:
    """What a kill left of a replacing: it is over where the new run has begun, and undone where that has no plan."""
    if not (folder / PLAN).exists():
        _put_back(folder)
    elif _in_earnest(folder, begun):
        remove(folder / REPLACED)
