"""Many short lives of the command line, each a fork of one warmed process: to be killed, starved or left to end.

``nursery`` runs this file as a program that imports everything once; it reads a life a line, and answers how it ended. It never
trains by itself: where there is a GPU, the forks of a process that did could not.
"""

import contextlib
import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

TOUCHES = ("fsync", "mkdir", "rename", "replace", "rmdir", "unlink")
"""The calls that order or change what stands on the disk; between two of them there are only writes into new files."""
MARK = "touch "


@dataclass(frozen=True, kw_only=True)
class Life:
    """One call of ``chainrule``."""

    argv: list[str]
    kill: int | None = None
    """Just before the touch of this number, counted from 0, SIGKILL strikes."""
    room: int | None = None
    """No file may be longer than so many bytes, which is how a full disk feels to a writer."""
    after: str = ""
    """There is room until a file or folder of this name is in its place."""


@dataclass(frozen=True)
class End:
    """The exit code, or minus the signal that killed; what was said on stdout and stderr; every touch of the disk."""

    code: int
    said: str
    touches: list[str]


@contextmanager
def nursery() -> Iterator[Callable[[Life], End]]:
    """What becomes of a life, as often as it is asked."""
    argv = [sys.executable, __file__]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdin is not None
        assert process.stdout is not None
        into, out = process.stdin, process.stdout

        def live(life: Life) -> End:
            into.write(json.dumps(asdict(life)) + "\n")
            into.flush()
            return End(**json.loads(out.readline()))

        yield live


def main() -> None:
    """Read lives, live them, tell."""
    import torch._dynamo  # noqa: F401 (the optimizers import it late, for a second)

    import chainrule.recipes.quickstart  # noqa: F401 (every life would import it anew)

    for line in sys.stdin:
        print(json.dumps(asdict(_live(Life(**json.loads(line))))), flush=True)


def _live(life: Life) -> End:
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(ours)
        os.dup2(theirs, 1)
        os.dup2(theirs, 2)
        os._exit(_run(life))
    os.close(theirs)
    with open(ours, encoding="utf-8", errors="replace") as pipe:
        lines = pipe.readlines()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    touches = [line.removeprefix(MARK).strip() for line in lines if line.startswith(MARK)]
    return End(code, "".join(line for line in lines if not line.startswith(MARK)), touches)


def _run(life: Life) -> int:
    from chainrule.cli import main as chainrule

    if life.room is not None and not life.after:
        _starve(life.room)
    number = itertools.count()
    for name in TOUCHES:
        setattr(os, name, _watched(name, getattr(os, name), life, number))
    code = 1
    try:
        code = chainrule(life.argv)
    except BaseException:
        traceback.print_exc()
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    return code


def _watched(name: str, call: Callable[..., Any], life: Life, number: Iterator[int]) -> Callable[..., Any]:
    """The same call of the system, told of; death may come before it, hunger after it."""

    def touch(*args: Any, **named: Any) -> Any:
        os.write(2, f"{MARK}{name} {' '.join(map(str, args))}\n".encode())
        if next(number) == life.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        done = call(*args, **named)
        if life.room is not None and life.after and name == "replace" and str(args[1]).endswith(life.after):
            _starve(life.room)
        return done

    return touch


def _starve(room: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))


if __name__ == "__main__":
    main()
