"""Unigram: of all ways to cut a text into pieces, the most probable one, if pieces are drawn independently.

    best(t) = max over pieces that end at t of best(t − |piece|) + log p(piece)

Kudo 2018, arXiv:1804.10959: Viterbi's walk over the characters. A character that no piece covers costs ten nats more than
the rarest piece. Sums are float32, as in SentencePiece, so that ties fall the same way.
"""

from collections.abc import Mapping

import numpy as np

UNKNOWN_COSTS = np.float32(10.0)


def best_cut(text: str, scores: Mapping[str, float], longest: int) -> list[str]:
    """The pieces of the best cut; characters without a piece stand alone.

    >>> best_cut("abab", {"a": -1.0, "b": -1.0, "ab": -1.5}, 2)
    ['ab', 'ab']
    """
    unknown = np.float32(min(scores.values(), default=0.0)) - UNKNOWN_COSTS
    best = np.full(len(text) + 1, -np.inf, dtype=np.float32)
    start_of = [-1] * (len(text) + 1)
    best[0] = 0
    for start in range(len(text)):
        single = False
        for stop in range(start + 1, min(start + longest, len(text)) + 1):
            score = scores.get(text[start:stop])
            if score is None:
                continue
            single = single or stop == start + 1
            _improve(best, start_of, start, stop, np.float32(score))
        if not single:
            _improve(best, start_of, start, start + 1, unknown)
    return _walk_back(text, start_of)


def _improve(best: np.ndarray, start_of: list[int], start: int, stop: int, score: np.float32) -> None:
    candidate = best[start] + score
    if start_of[stop] < 0 or candidate > best[stop]:
        best[stop], start_of[stop] = candidate, start


def _walk_back(text: str, start_of: list[int]) -> list[str]:
    pieces: list[str] = []
    stop = len(text)
    while stop > 0:
        pieces.append(text[start_of[stop] : stop])
        stop = start_of[stop]
    return pieces[::-1]
