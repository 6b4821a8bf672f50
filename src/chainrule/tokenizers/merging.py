"""Merging by score: of all neighbours that make a known symbol the pair of best score is joined, again and again.

    h u g → h ug → hug        (with the scores ug −1, hug −2, hu −3)

Of equal scores the leftmost pair goes first. A heap holds the pairs that can be joined; joining two symbols changes only the
pairs on their left and right, so n characters take n log n steps.
"""

import heapq
from collections.abc import Iterable, Mapping
from typing import AnyStr


def merge_best(symbols: Iterable[AnyStr], scores: Mapping[AnyStr, float]) -> list[AnyStr]:
    """The symbols, neighbours joined until no join is among the ``scores``.

    >>> merge_best("abab", {"ab": 0.0, "ba": 1.0, "bab": -1.0})
    ['a', 'bab']
    >>> merge_best("abab", {"ab": 1.0, "abab": 0.0})
    ['abab']
    """
    parts: list[AnyStr | None] = list(symbols)  # a part that was joined to its left neighbour is None
    left, right = list(range(-1, len(parts) - 1)), list(range(1, len(parts) + 1))
    pairs: list[tuple[float, int, AnyStr]] = []  # (−score, place, what the pair makes)

    def joined(i: int) -> AnyStr | None:
        """What the part at i and the one on its right make."""
        first = parts[i] if i >= 0 else None
        second = parts[right[i]] if first is not None and right[i] < len(parts) else None
        return None if first is None or second is None else first + second

    def offer(i: int) -> None:
        symbol = joined(i)
        if symbol is not None and symbol in scores:
            heapq.heappush(pairs, (-scores[symbol], i, symbol))

    for i in range(len(parts)):
        offer(i)
    while pairs:
        _, i, symbol = heapq.heappop(pairs)
        if joined(i) != symbol:
            continue  # one of the two was joined elsewhere meanwhile
        gone = right[i]
        parts[i], parts[gone], right[i] = symbol, None, right[gone]
        if right[i] < len(parts):
            left[right[i]] = i
        offer(left[i])
        offer(i)
    return [part for part in parts if part is not None]
