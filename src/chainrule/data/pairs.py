"""Pairs of a source and a target to batches: the target is learned, the source is what it is conditioned on.

    row       start y₁ … y_n end        judged from y₁ on
    source    x₁ … x_m end              ``given["source"]``, padded with −1

A row holds one pair, so pairs of a step are sorted by length before they are split into micro-batches: little is padding.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence

from chainrule.core.datum import PADDING, Batch, Layout
from chainrule.core.errors import DataError
from chainrule.core.tokenizer import Tokenizer
from chainrule.data.documents import read_jsonl
from chainrule.data.packing import advice
from chainrule.data.streams import check_split, rows_of_step

Pair = tuple[str, str]
"""A source and its target."""


class EncodedPair(NamedTuple):
    """The ids of a source with its end, and of a target with its start and its end."""

    source: NDArray[np.int32]
    target: NDArray[np.int32]


def read_pairs(path: str | Path) -> list[Pair]:
    """The pairs of a ``.jsonl`` file, each row ``{"source": ..., "target": ...}``."""
    path = Path(path)
    pairs: list[Pair] = []
    for number, row in read_jsonl(path):
        if not all(isinstance(row.get(key), str) and row[key] for key in ("source", "target")):
            raise DataError(f"{path}:{number} has keys {sorted(row)}; a pair needs source and target, two texts")
        pairs.append((row["source"], row["target"]))
    if not pairs:
        raise DataError(f"{path} holds no pairs; each line should be an object with source and target")
    return pairs


def encode_pairs(
    pairs: Iterable[Pair], tokenizer: Tokenizer, start: int, context: int, *, first: int = 1, limit: int | None = None
) -> list[EncodedPair]:
    """The ids of each pair; raises ``DataError`` for one that the context does not hold.

    In its message pairs are counted from ``first``, and the model reads ``limit`` tokens at most.
    """
    encoded: list[EncodedPair] = []
    for number, (source, target) in enumerate(pairs, first):
        x = tokenizer.framed(tokenizer.encode(source), begin=False)
        y = [start, *tokenizer.framed(tokenizer.encode(target), begin=False)]
        longest = max(len(x), len(y))
        if longest > context:
            raise DataError(
                f"pair {number} is {len(x)} and {len(y)} tokens long and the context is {context}; "
                f"{advice('pairs', longest, limit)} (cutting them would teach false translations); "
                f"it begins {source[:60]!r}"
            )
        encoded.append(EncodedPair(np.array(x, np.int32), np.array(y, np.int32)))
    return encoded


def together(pairs: Iterable[EncodedPair]) -> Batch:
    """Pairs as one batch, padded on the right to the longest source and the longest target."""
    pairs = list(pairs)
    tokens = _padded([pair.target for pair in pairs], 0)
    layout = Layout.lengths(torch.tensor([len(pair.target) for pair in pairs]), tokens.shape[1])
    return Batch(tokens, layout.real.float(), layout, {"source": _padded([pair.source for pair in pairs], PADDING)})


def _padded(rows: list[NDArray[np.int32]], value: int) -> torch.Tensor:
    return pad_sequence([torch.from_numpy(row.astype(np.int64)) for row in rows], batch_first=True, padding_value=value)


@dataclass(frozen=True)
class PairStream:
    """``rows_per_step`` pairs a step, in micro-batches of ``micro_rows``, shuffled anew each epoch."""

    pairs: list[EncodedPair]
    rows_per_step: int
    micro_rows: int
    seed: int = 0

    def __post_init__(self) -> None:
        check_split(self.rows_per_step, self.micro_rows)

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of one step."""
        chosen = [self.pairs[i] for i in rows_of_step(step, self.rows_per_step, of=len(self.pairs), seed=self.seed)]
        chosen.sort(key=lambda pair: (len(pair.source), len(pair.target)))
        return [together(chosen[at : at + self.micro_rows]) for at in range(0, len(chosen), self.micro_rows)]

    def describe(self) -> dict[str, Any]:
        """Pairs, the mean lengths of source and target, and a fingerprint of them all."""
        fingerprint = hashlib.sha256(b"".join(ids.tobytes() + b"|" for pair in self.pairs for ids in pair)).hexdigest()
        lengths = {f"mean_{name}": [len(getattr(pair, name)) for pair in self.pairs] for name in EncodedPair._fields}
        return (
            {"pairs": len(self.pairs)}
            | {name: round(float(np.mean(each)), 1) for name, each in lengths.items()}
            | {"sha256": fingerprint}
        )
