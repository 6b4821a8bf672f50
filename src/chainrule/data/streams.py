"""Streams: the micro-batches of every step, as a pure function of (seed, step).

Row g of the endless stream is row ``shuffle(seed, epoch)[g mod n]`` of the data, with epoch = g div n. Nothing is remembered
between steps, so a run that goes on from a checkpoint sees exactly what it would have seen.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from chainrule.core.datum import Batch
from chainrule.core.errors import DataError
from chainrule.data.packing import Rows


@runtime_checkable
class Stream(Protocol):
    """What the loop asks of data."""

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of one optimizer step; the same for the same step."""
        ...

    def describe(self) -> dict[str, Any]:
        """What a reader of the run should know of the data, as plain data."""
        ...


@dataclass(frozen=True)
class PackedStream:
    """``rows_per_step`` packed rows a step, in micro-batches of ``micro_rows``, shuffled anew each epoch."""

    rows: Rows
    rows_per_step: int
    micro_rows: int
    seed: int = 0

    def __post_init__(self) -> None:
        check_split(self.rows_per_step, self.micro_rows)
        if not self.rows.judged.any():
            raise DataError("no token of the data is to be learned: its mask is 0 everywhere; check the chats' roles")

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of one step."""
        chosen = np.array(rows_of_step(step, self.rows_per_step, of=len(self.rows), seed=self.seed))
        return [self.rows.batch(part) for part in np.split(chosen, self.rows_per_step // self.micro_rows)]

    def describe(self) -> dict[str, Any]:
        """Rows, tokens, what share of them is padding or judged, and a fingerprint of them all."""
        n, t = self.rows.tokens.shape
        judged = float(self.rows.judged.mean())
        fingerprint = hashlib.sha256(
            b"".join(np.ascontiguousarray(part).tobytes() for part in (self.rows.tokens, self.rows.mask))
        )
        return {
            "rows": n,
            "context": t,
            "fill": round(self.rows.fill, 4),
            "judged": round(judged, 4),
            "sha256": fingerprint.hexdigest(),
        }


def check_split(rows_per_step: int, micro_rows: int) -> None:
    """Raises ``DataError`` where a step's rows are no whole number of micro-batches."""
    if rows_per_step % micro_rows:
        raise DataError(f"batch_rows={rows_per_step} is not a multiple of micro_rows={micro_rows}")


def rows_of_step(step: int, rows_per_step: int, *, of: int, seed: int) -> list[int]:
    """Which of the data's ``of`` rows a step reads, as the formula above says."""
    first = step * rows_per_step
    places = (divmod(g, of) for g in range(first, first + rows_per_step))
    return [int(shuffled(seed, epoch, of)[at]) for epoch, at in places]


@lru_cache(maxsize=4)
def shuffled(seed: int, epoch: int, n: int) -> NDArray[np.intp]:
    """The order of n rows in an epoch."""
    return np.random.default_rng([seed, epoch]).permutation(n)
