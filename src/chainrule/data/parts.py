"""A text in parts for an encoder–decoder: each part is written, given what stands before it.

    p(x) = ∏ p(part_i | part_1 … part_i−1),      parts of ``size`` tokens, the last one of what is left and the end

A part has a fixed length, so that it says nothing of how much is still to come, and the product is a distribution over whole
texts like any other. The first part is given nothing but the end. (A prefix language model in two stacks: Liu et al. 2018,
arXiv:1801.10198; Raffel et al. 2020, arXiv:1910.10683, section 3.2.1.)
"""

from collections.abc import Sequence

import numpy as np

from chainrule.data.pairs import EncodedPair

SHARE = 4
"""A part is a fourth of the context: the world's stories are two or three."""


def parts(ids: Sequence[int], *, start: int, end: int, context: int) -> list[EncodedPair]:
    """The parts of a text as sources and targets; of what stands before a part, the context's last tokens are its source.

    ``ids`` are the text's tokens with its end, without a begin. Of 7 tokens, 2 at a time, with 0 to start and 9 to end:

    >>> for source, target in parts([1, 2, 3, 4, 5, 6, 9], start=0, end=9, context=8):
    ...     print(source.tolist(), target.tolist())
    [9] [0, 1, 2]
    [1, 2, 9] [0, 3, 4]
    [1, 2, 3, 4, 9] [0, 5, 6]
    [1, 2, 3, 4, 5, 6, 9] [0, 9]
    """
    size = part_size(context)
    return [
        EncodedPair(
            np.array([*ids[max(0, at - context + 1) : at], end], np.int32), np.array([start, *ids[at : at + size]], np.int32)
        )
        for at in range(0, len(ids), size)
    ]


def part_size(context: int) -> int:
    """The tokens of a part, its start not counted."""
    return max(1, context // SHARE)
