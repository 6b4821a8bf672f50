"""The loss of masked words, by hand."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from chainrule.core.datum import Batch, Layout
from chainrule.core.errors import DataError
from chainrule.core.masked import MaskedModel
from chainrule.logprobs.masked import masked_cross_entropy, masked_logprobs

HALF, QUARTER = math.log(2), math.log(4)


class Table(MaskedModel):
    """Word w at a place seen as s has probability row[s][w]: 1/2, 1/4, 1/4, turned by s."""

    vocab_size = width = 3
    context = 8
    fills = True
    readout_weight = None

    def states(self, tokens, *, layout=None, types=None, tap=None) -> Tensor:
        return (
            torch.stack([torch.tensor([0.5, 0.25, 0.25]).roll(int(s)) for s in tokens.flatten()]).view(*tokens.shape, 3).log()
        )

    def scores(self, states) -> Tensor:
        return states


def batch(mask, **rest):
    return Batch(torch.tensor([[0, 1, 2, 0]]), torch.tensor([mask]), given={"seen": torch.tensor([[0, 0, 2, 2]])}, **rest)


def test_the_words_behind_the_masks_are_judged_and_no_others():
    # seen 0, word 0: 1/2 (a first word counts) · seen 0, word 1: 1/4 · seen 2, word 2: 1/2 · seen 2, word 0: 1/4
    assert_close(masked_logprobs(Table(), batch([1.0, 1.0, 1.0, 1.0])), -torch.tensor([[HALF, QUARTER, HALF, QUARTER]]))
    loss = masked_cross_entropy(Table(), batch([0.0, 1.0, 1.0, 0.0]))
    assert_close(loss.total, torch.tensor(QUARTER + HALF))  # ln 8 = 2.0794 nats for two words
    assert loss.weight == 2


def test_padding_is_never_judged():
    loss = masked_cross_entropy(Table(), batch([1.0, 1.0, 1.0, 1.0], layout=Layout.lengths(torch.tensor([2]), 4)))
    assert_close(loss.total, torch.tensor(HALF + QUARTER))
    assert loss.weight == 2


def test_a_batch_that_does_not_say_what_is_seen_is_refused():
    with pytest.raises(DataError, match="given\\['seen'\\]"):
        masked_cross_entropy(Table(), Batch(torch.zeros(1, 2, dtype=torch.long), torch.ones(1, 2)))
