"""Hiding words: how many, which, behind what; and the same again for the same seed and step."""

import numpy as np
import pytest
import torch

from chainrule.core.datum import PADDING
from chainrule.core.errors import DataError
from chainrule.data.masking import MaskedStream
from chainrule.data.packing import pack
from chainrule.data.streams import PackedStream

MASK, BEGIN, WORDS = 1, 0, range(4, 104)


@pytest.fixture(scope="module")
def packed():
    draw = np.random.default_rng(0)
    texts = [np.array([BEGIN, *draw.integers(4, 104, n), BEGIN], np.int32) for n in draw.integers(20, 60, 200)]
    return pack([(text, None) for text in texts], 128, split=True)


def stream(packed, micro=16, seed=0):
    return MaskedStream(PackedStream(packed, 16, micro, seed=5), MASK, WORDS, seed)


def whole(stream, step):
    """(tokens, mask, seen, document) of a step, micro-batches joined."""
    batches = stream.batches(step)
    parts = [(b.tokens, b.mask, b.given["seen"], b.layout.document) for b in batches]
    return tuple(map(torch.cat, zip(*parts, strict=True)))


def test_fifteen_in_a_hundred_words_are_chosen_of_which_eighty_ten_ten(packed):
    counts = torch.zeros(4)
    for step in range(60):
        tokens, mask, seen, _ = whole(stream(packed), step)
        chosen = mask == 1
        words = torch.isin(tokens, torch.tensor(WORDS))
        assert (chosen.sum(1) == (words.sum(1) * 0.15).round()).all()  # of every row, exactly
        hidden, same = chosen & (seen == MASK), chosen & (seen == tokens)
        counts += torch.tensor([chosen.sum(), hidden.sum(), (chosen & ~hidden & ~same).sum(), same.sum()])
        assert torch.equal(seen[~chosen], tokens[~chosen])
    shares = counts[1:] / counts[0]
    # a random word is now and then the word itself: 0.1 · 1/100
    assert torch.allclose(shares, torch.tensor([0.8, 0.099, 0.101]), atol=0.01)


def test_special_tokens_and_padding_are_neither_chosen_nor_put_in(packed):
    for step in range(20):
        tokens, mask, seen, document = whole(stream(packed), step)
        assert not mask[(tokens == BEGIN) | (document == PADDING)].any()
        put_in = seen[(mask == 1) & (seen != tokens)]
        assert torch.isin(put_in, torch.tensor([MASK, *WORDS])).all()


def test_a_step_is_a_pure_function_of_seed_and_step(packed):
    one, again = whole(stream(packed), 7), whole(stream(packed), 7)
    assert all(map(torch.equal, one, again))
    assert not torch.equal(one[1], whole(stream(packed, seed=1), 7)[1])


def test_a_row_that_comes_again_hides_other_words():
    one = pack([(np.arange(4, 44, dtype=np.int32), None)], 40, split=True)
    masked = MaskedStream(PackedStream(one, 1, 1), MASK, WORDS)
    first, later = masked.batches(0)[0], masked.batches(1)[0]
    assert torch.equal(first.tokens, later.tokens)
    assert not torch.equal(first.mask, later.mask)


def test_however_a_step_is_split_the_same_words_are_hidden(packed):
    assert all(map(torch.equal, whole(stream(packed), 3), whole(stream(packed, micro=4), 3)))


def test_a_short_row_still_hides_one_word():
    tiny = pack([(np.array([5, 6], np.int32), None)], 4, split=True)
    masked = MaskedStream(PackedStream(tiny, 1, 1), MASK, WORDS)
    assert all(masked.batches(step)[0].mask.sum() == 1 for step in range(20))


def test_a_mask_that_is_itself_a_word_is_refused(packed):
    with pytest.raises(DataError, match="not the mask itself"):
        MaskedStream(PackedStream(packed, 1, 1), 5, WORDS)
