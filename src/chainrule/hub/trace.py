"""What loading does, step by step: ``load(name, trace=f)`` calls ``f(step)`` as each step ends.

    resolve → config → build → open … → match → tensor … → tie → tokenizer → template → generation → device → adapter

A step says what happened, to which file, how long it took, how many bytes it was about and which line of the code did it; a
tensor's step also says how the tensor came from the file into the model. Without a listener nothing is measured.
"""

import mmap
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal

SOURCE = Path(__file__).parents[1]
PAGE = mmap.PAGESIZE

Stage = Literal[
    "resolve", "download", "config", "build", "open", "match", "tensor", "tie", "tokenizer", "template", "generation", "device",
    "adapter",
]  # fmt: skip
Way = Literal["mapped", "copied", "converted", "quantised", "left out"]
"""How a tensor got into the model: the file's own pages; copied as it is; copied into another number format; copied into
four bits; not at all, since the model computes it or ties it."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of loading, told when it has ended."""

    stage: Stage
    what: str
    """The step in words."""
    file: str = ""
    seconds: float
    """Since the step before it ended: the seconds of all steps add up to the whole."""
    size_bytes: int = 0
    """What the step was about: a file's size, a tensor's size in the file, the parameters' size where a model is built."""
    anonymous_bytes: int | None
    """Memory of the process that no file backs, after the step (Linux; None elsewhere)."""
    where: str = ""
    """The line of the code that ended the step, as ``hub/load.py:NUMBER _folder``."""
    made: Any = field(default=None, repr=False, compare=False)
    """The thing itself: config, model of shapes, a file's table of tensors, tokenizer, template, settings."""


@dataclass(frozen=True, kw_only=True)
class TensorStep(Step):
    """One tensor of the model and the way it came."""

    ours: str
    """The parameter's or buffer's name in the model."""
    published: tuple[str, ...]
    """The names in the files: several where experts are stacked, the same one for several of ours where it is split."""
    stored: str
    """The number format in the file."""
    dtype: str
    """The number format in the model."""
    shape: tuple[int, ...]
    way: Way
    device: str = "cpu"


Trace = Callable[[Step], None]


class Stopwatch:
    """Times the steps of one load for a listener; without one, ``lap`` does nothing."""

    def __init__(self, trace: Trace | None = None) -> None:
        self.trace = trace
        self._last = time.perf_counter()

    @property
    def on(self) -> bool:
        """Whether anybody listens."""
        return self.trace is not None

    def lap(
        self, stage: Stage, what: str, *, file: Path | str = "", size_bytes: int = 0, made: Any = None, **tensor: Any
    ) -> None:
        """Tell that a step has ended; ``tensor`` holds what a ``TensorStep`` says beyond a ``Step``."""
        if self.trace is None:
            return
        now = time.perf_counter()
        kind = TensorStep if tensor else Step
        memory = anonymous_bytes()
        self.trace(
            kind(
                stage=stage,
                what=what,
                file=str(file),
                seconds=now - self._last,
                size_bytes=size_bytes,
                anonymous_bytes=memory,
                where=_line(sys._getframe(1)),
                made=made,
                **tensor,
            )
        )
        self._last = time.perf_counter()  # what the listener does with a step is not part of the next


def _line(frame: FrameType) -> str:
    """A place in the code: file within the package, line, function."""
    file = Path(frame.f_code.co_filename)
    return f"{file.relative_to(SOURCE) if file.is_relative_to(SOURCE) else file.name}:{frame.f_lineno} {frame.f_code.co_name}"


def anonymous_bytes() -> int | None:
    """Memory of this process that no file backs, or None where the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # pages: size, resident, of these backed by files, …
            _, resident, backed, *_ = map(int, file.read().split())
        return (resident - backed) * PAGE
    except OSError:
        return None
