"""An explanation as data: what was found, built, read and computed, in the order in which it happens. Imports no torch.

``core.schema.dump`` makes plain data of it for ``--json``; the terminal and the page show the same numbers in fewer rows.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class File:
    """A file of the model: what it is for, and its size."""

    name: str
    size_bytes: int
    what: str


@dataclass(frozen=True, kw_only=True)
class Part:
    """One line of what a config means: which place, its parts in order, and a sentence on each kind of part."""

    where: str
    what: str
    says: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Module:
    """A module with its own tensors and its children; ``repeated`` equal ones are told once."""

    name: str
    kind: str
    tensors: dict[str, tuple[int, ...]]
    parameters: int
    """Of this module and everything in it, once."""
    repeated: int
    children: tuple["Module", ...]


@dataclass(frozen=True, kw_only=True)
class TensorFact:
    """A tensor's way: published names in a file → a parameter or buffer of the model.

    ``way`` is the trace's (mapped, copied, converted, quantised, left out), or: tied (it is another tensor), made (computed on
    the spot), not read (there are no weights here).
    """

    name: str
    published: tuple[str, ...]
    file: str
    stored: str
    stored_bytes: int
    """What of the file became this tensor; a published tensor that becomes several is shared out between them."""
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    part: str
    way: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """All steps of one stage of loading: who did it, how long it took, what it was about, how memory grew."""

    name: str
    what: str
    where: str
    steps: int
    seconds: float
    size_bytes: int
    grown_bytes: int | None
    """Growth of the memory that no file backs (RssAnon); None where the system does not say."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """How things stood after a step: seconds since the beginning, memory that no file backs, weights handed over so far."""

    seconds: float
    stage: str
    anonymous_bytes: int | None
    weights_bytes: int


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One call of the tap: what flows there, its shape, and the FLOPs spent since the call before it.

    ``rms`` is the root of the mean square, told where the stream leaves a layer.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    seconds: float
    flops: float | None
    by: tuple[str, ...]
    """The matrices that those FLOPs went into; ``scores`` for queries that meet keys."""
    rms: float | None


@dataclass(frozen=True, kw_only=True)
class LayerCost:
    """FLOPs of one layer, or of the head, for the whole prompt, by part."""

    name: str
    flops: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Forward:
    """One forward pass over a prompt."""

    prompt: str | None
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    tokens: int
    seconds: float
    seen: tuple[Seen, ...]
    layers: tuple[LayerCost, ...]
    flops: float | None
    """Of the whole prompt; ``chainrule plan --length TOKENS`` says the same a token."""
    formula: str
    asks: str
    """What the likeliest words are words of: the next token, or the one behind a mask."""
    likeliest: tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class TheirStage:
    """A stage of transformers: its functions' own seconds, without those of other stages that they call."""

    name: str
    what: str
    where: str
    """File within the package, line and function: the one of the stage that was called first."""
    calls: int
    seconds: float
    grown_bytes: int
    ours: str
    """The stage of ours that does the same."""


@dataclass(frozen=True, kw_only=True)
class Theirs:
    """The same folder loaded by transformers. Timed under ``sys.setprofile``, which makes much-called Python slower."""

    version: str
    entry: str
    stages: tuple[TheirStage, ...]
    seconds: float
    absent: tuple[str, ...]
    """Functions that the installed version does not have."""
    remarks: tuple[str, ...]
    """Stages that this model never entered, and what went otherwise."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """Everything there is to say of a model and of how it came to be."""

    name: str
    found: str
    """Where the name was found, and by which rule."""
    kind: str
    dtype: str
    device: str
    parameters: int
    tensors_published: int | None
    size_bytes: int
    parameters_by_part: dict[str, int]
    bytes_by_part: dict[str, int]
    files: tuple[File, ...]
    config: dict[str, Any]
    parts: tuple[Part, ...]
    tree: Module
    tensors: tuple[TensorFact, ...]
    stages: tuple[Stage, ...]
    moments: tuple[Moment, ...]
    seconds: float
    tokenizer: str
    template: str | None
    generation: dict[str, Any]
    forward: Forward | None
    unknown: tuple[str, ...]
    """What is not shown, and why."""
    theirs: Theirs | None = None
    """How transformers loads the same, where that was asked for."""
