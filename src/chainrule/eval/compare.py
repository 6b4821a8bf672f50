"""Is one model better than another, or was it luck? A paired bootstrap over documents.

    Δ = Σ_d (nats_d of the first − nats_d of the second) / (ln 2 · Σ_d bytes_d)

Documents are drawn again with replacement, the same ones for both models, and Δ computed anew; the middle 95 % of these
values are the interval. Pairing matters: a hard document is hard for both models and cancels. Efron 1979; Koehn 2004
(W04-3250) for its use in comparing language systems.
"""

import math
from collections.abc import Sequence

import numpy as np

from chainrule.core.errors import DataError
from chainrule.eval.bpb import Measured
from chainrule.eval.results import Comparison
from chainrule.pages.text import fixed, percent

RESAMPLES = 2000
AT_ONCE = 2**22


def interval(
    difference: Sequence[float],
    weight: Sequence[float],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = 0.95,
) -> tuple[float, float]:
    """The bootstrap interval of Σ difference / Σ weight over documents.

    >>> interval([1.0, 2.0, 4.0], [1.0, 2.0, 4.0])
    (1.0, 1.0)
    """
    generator = np.random.default_rng(seed)
    top, bottom = np.asarray(difference, dtype=np.float64), np.asarray(weight, dtype=np.float64)
    share = np.full(len(top), 1 / len(top))
    ratios: list[np.ndarray] = []
    while sum(map(len, ratios)) < resamples:
        rows = min(resamples - sum(map(len, ratios)), max(1, AT_ONCE // len(top)))
        counts = generator.multinomial(len(top), share, size=rows).astype(np.float64)
        below = counts @ bottom
        # a draw of empty documents alone has no bytes to divide by
        ratios.append(np.divide(counts @ top, below, out=np.zeros(rows), where=below > 0))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(ratios), [tail, 1 - tail])
    return float(low), float(high)


def compare(
    first: Measured,
    second: Measured,
    *,
    language: str | None = None,
    seed: int = 0,
    confidence: float = 0.95,
    force: bool = False,
) -> Comparison:
    """The difference in bits per byte, ``first`` minus ``second``, on the same documents (of one language, or all).

    Raises ``DataError`` where the documents differ, where there are fewer than two, where a model rules one out, and, unless
    ``force``d, where one of the two alone pays for the ends of documents.
    """
    if len(first.nats) == len(second.nats) and not (first.begins and second.begins) and first.size_bytes != second.size_bytes:
        without = " and ".join(one.name for one in (first, second) if not one.begins)
        raise DataError(
            f"the tokenizer of {without} has no token to begin a document with, so its first token is not judged, and "
            f"{first.name} and {second.name} are judged on {sum(first.size_bytes)} and {sum(second.size_bytes)} bytes; "
            "compare models whose tokenizers begin alike"
        )
    if first.size_bytes != second.size_bytes or first.languages != second.languages:
        raise DataError(
            f"{first.name} was measured on {len(first.nats)} documents of {sum(first.size_bytes)} judged bytes and "
            f"{second.name} on {len(second.nats)} of {sum(second.size_bytes)}; a paired comparison needs the same ones"
        )
    if first.ends != second.ends and not force:
        pays, other = (first, second) if first.ends else (second, first)
        raise DataError(
            f"{pays.name} pays for the end of every document and {other.name} does not, whose tokenizer has no token for it; "
            "compare models that both do, or pass force=True, or --force, to compare them all the same"
        )
    chosen = [i for i, spoken in enumerate(first.languages) if language in (None, spoken)]
    if len(chosen) < 2:
        raise DataError(f"a comparison over {len(chosen)} documents says nothing; give two or more")
    for measured in (first, second):
        if not all(math.isfinite(measured.nats[i]) for i in chosen):
            raise DataError(f"{measured.name} gives a document probability 0, so no finite difference exists; smooth it")
    difference = [(first.nats[i] - second.nats[i]) / math.log(2) for i in chosen]
    weight = [float(first.size_bytes[i]) for i in chosen]
    low, high = interval(difference, weight, seed=seed, confidence=confidence)
    return Comparison(
        first=first.name,
        second=second.name,
        language=language or "all",
        difference=sum(difference) / sum(weight),
        low=low,
        high=high,
        documents=len(chosen),
        confidence=confidence,
    )


def verdict(comparison: Comparison) -> str:
    """What the interval says, in one sentence."""
    first, second, size = comparison.first, comparison.second, fixed(abs(comparison.difference), 4)
    where = (
        f"{percent(comparison.confidence, 0)} interval {fixed(comparison.low, 4)} to {fixed(comparison.high, 4)}, "
        f"{comparison.documents:,} documents"
    )
    if comparison.low <= 0 <= comparison.high:
        return f"No difference between {first} and {second} is shown: {size} bits per byte ({where})."
    better, worse = (first, second) if comparison.high < 0 else (second, first)
    return f"{better} is better than {worse} by {size} bits per byte ({where})."
