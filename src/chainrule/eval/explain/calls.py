"""How long some functions of another library run, and how memory grows meanwhile, without changing a line of it.

Python calls a profiler at every call and return (``sys.setprofile``). What happens between two events belongs to the innermost
watched function that runs: so the seconds of all functions, and of the outside, add up to the whole. Only the thread that
watches is heard: work that others do for it is told where it waits for them.
"""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import CodeType, FrameType
from typing import Any

from chainrule.hub.trace import anonymous_bytes

OUTSIDE = ""
"""The name of what happens in none of the watched functions."""


@dataclass
class Spent:
    """What one name spent: calls, seconds, memory that no file backs."""

    calls: int = 0
    seconds: float = 0.0
    grown_bytes: int = 0


@dataclass
class Calls:
    """Watches while it is entered: ``with Calls({f.__code__: "name"}) as calls: …``.

    ``learn`` maps code to a function of what that code returned, which names further code to watch: a class that is chosen on
    the way has a constructor that nobody knew before.
    """

    names: dict[CodeType, str]
    learn: Mapping[CodeType, Callable[[Any], Mapping[CodeType, str]]] = field(default_factory=dict)
    spent: dict[str, Spent] = field(default_factory=lambda: {OUTSIDE: Spent()})
    called: dict[str, list[CodeType]] = field(default_factory=dict)
    """What was called under each name, in the order of first calls; so are the names."""

    def __enter__(self) -> "Calls":
        self._stack: list[str] = [OUTSIDE]
        self._at, self._memory = time.perf_counter(), anonymous_bytes() or 0
        sys.setprofile(self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        self._settle()

    def _heard(self, frame: FrameType, event: str, value: Any) -> None:
        """Every call and return of the thread comes by here."""
        code = frame.f_code
        if code not in self.names:
            return
        if event == "call":
            self._settle()
            name = self.names[code]
            self._stack.append(name)
            if code not in self.called.setdefault(name, []):
                self.called[name].append(code)
            self.spent.setdefault(name, Spent()).calls += 1
        elif event == "return":
            self._settle()
            self._stack.pop()
            if code in self.learn and value is not None:
                self.names.update(self.learn[code](value))

    def _settle(self) -> None:
        """What went by since the last event belongs to the innermost function."""
        now, memory = time.perf_counter(), anonymous_bytes() or 0
        spent = self.spent[self._stack[-1]]
        spent.seconds += now - self._at
        spent.grown_bytes += memory - self._memory
        self._at, self._memory = now, memory
