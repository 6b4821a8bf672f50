"""Files that are complete or absent, never half: write aside, fsync, rename. Imports no torch."""

import errno
import json
import os
import re
import shutil
import sys
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

from chainrule.core.errors import ChainruleError, DataError

MENDS = {
    errno.ENAMETOOLONG: "a name has 255 bytes at most; give a shorter one, or the file that holds the text",
    errno.EACCES: "see with ls -ld who may use it, or give another place",
    errno.EPERM: "see with ls -ld who may use it, or give another place",
}
"""What to do where the system refuses a file, by its reason."""


@contextmanager
def whole_file(path: Path) -> Generator[Path, None, None]:
    """A path to write to; it takes the name ``path`` only once it is complete and on the disk."""
    aside = _beside(path, "part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        sync(aside)
        os.replace(aside, path)
        sync(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Generator[Path, None, None]:
    """A folder to fill; it takes the name ``path``, replacing what was there, only once every file is on the disk.

    Whenever it is killed, ``path`` is the old folder or the new one: the two change names in one step, as Linux can on most
    file systems. Elsewhere there is a moment without either; a kill then leaves the old one beside it as ``.NAME.PID.old``,
    and the next write gives that its name back before anything else.
    """
    aside, old = _beside(path, "part"), _beside(path, "old")
    try:
        _give_back(path)
        _clear(aside)
        aside.mkdir(parents=True)
        yield aside
        for file in sorted(aside.rglob("*")):
            sync(file)
        sync(aside)
        if not path.exists():
            os.replace(aside, path)
        elif not _exchange(aside, path):
            _replace_by_way_of(old, aside, path)
        sync(path.parent)
        _clear(old)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        _clear(aside)


def _exchange(one: Path, other: Path) -> bool:
    """Let two paths change names in one step; False where the system or the file system has no such step."""
    if sys.platform != "linux":
        return False
    from ctypes import CDLL

    try:
        renameat2 = CDLL(None).renameat2
    except AttributeError:  # a C library older than the step
        return False
    at_cwd, exchange = -100, 2
    return renameat2(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), exchange) == 0


def _replace_by_way_of(old: Path, new: Path, path: Path) -> None:
    """Put ``new`` at ``path`` and what was there at ``old``; where that fails half-way, it is put back."""
    _clear(old)  # of a process of the same number, whose last step was this one
    try:
        os.replace(path, old)
        os.replace(new, path)
    except BaseException:
        if not path.exists():
            os.replace(old, path)
        raise


def _give_back(path: Path) -> None:
    """Give a folder its name again that a kill has left without one."""
    form = re.compile(rf"\.{re.escape(path.name)}\.\d+\.old")
    left = [one for one in path.parent.glob(".*.old") if form.fullmatch(one.name)]
    if left and not path.exists():
        os.replace(max(left, key=lambda one: one.stat().st_mtime), path)


def _clear(path: Path) -> None:
    """Remove a folder, or the file or link that stood in its place, as far as the system lets it."""
    shutil.rmtree(path, ignore_errors=True)
    with suppress(OSError):
        path.unlink(missing_ok=True)


def named(path: Path) -> Path:
    """The path, where it has a name that something can be written under; raises ``DataError`` for ``.``, ``..`` and ``/``."""
    if path.name in ("", ".."):
        raise DataError(f"{path} has no name to write under; give one, for example {path / 'out'}")
    return path


def unused(path: Path, *, force: bool = False, mend: str = "give another name, or --force to replace it") -> Path:
    """The path, where nothing stands there yet or ``force`` lets it be replaced; a ``DataError`` with ``mend`` otherwise."""
    if exists(named(path)) and not force:
        raise DataError(f"{path} exists already; {mend}")
    return path


def _beside(path: Path, ending: str) -> Path:
    """A hidden neighbour, of this process alone."""
    return named(path).with_name(f".{path.name}.{os.getpid()}.{ending}")


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with whole_file(path) as aside:
        aside.write_text(text, encoding="utf-8")


def sync(path: Path) -> None:
    """Ask the system to put a file or folder on the disk now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_text(path: Path) -> str:
    """A text file's content; a ``DataError`` says why it cannot be read (missing, empty, binary, not UTF-8)."""
    if not exists(path):
        raise DataError(f"{path} does not exist; check the spelling, or give another file")
    if path.is_dir():
        raise DataError(f"{path} is a folder; give a file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if not data.strip():
        raise DataError(f"{path} is empty; give a file with text in it")
    if b"\x00" in data:
        raise DataError(f"{path} is a binary file (it holds a zero byte); give a text file in UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 (byte {error.start} is 0x{data[error.start]:02x}); "
            f"convert it first, for example: iconv -f GBK -t UTF-8 {path.name} > utf8.txt"
        ) from error


def read_json(path: Path, mend: str = "copy it again", *, error: type[ChainruleError] = DataError) -> Any:
    """What a JSON file holds; an ``error`` that ends with ``mend`` where that is no JSON."""
    text = read_text(path)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as why:  # a number of 5000 digits is a ValueError, no JSONDecodeError
        raise error(f"{path} is not JSON ({why}); {mend}") from why


def read_json_object(path: Path, mend: str = "copy it again", *, error: type[ChainruleError] = DataError) -> dict[str, Any]:
    """The names and values that a JSON file holds; an ``error`` that ends with ``mend`` where it holds something else."""
    data = read_json(path, mend, error=error)
    if not isinstance(data, dict):
        raise error(f"{path} holds a {type(data).__name__}, not names with values; {mend}")
    return cast(dict[str, Any], data)


def unwritable(path: Path, error: OSError) -> DataError:
    """What to say where a file cannot be written: no room, no permission, not a folder."""
    return DataError(f"cannot write {path}: {error.strerror}; nothing was left half-written")


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; a ``DataError`` where the system will not say: a name too long, a shut folder."""
    try:
        return path.exists()
    except OSError as error:
        raise unusable(error) from error


def unusable(error: OSError) -> DataError:
    """What to say of an error of the system that names a file: which, why, and what to do about it."""
    name = os.fsdecode(error.filename)
    shown = name if len(name) <= 120 else f"{name[:60]}…{name[-20:]} ({len(name)} characters)"
    mend = MENDS.get(error.errno or 0, "check the spelling, or give another place")
    return DataError(f"cannot use {shown}: {error.strerror}; {mend}")
