"""The cache that remembers tokens and recomputes is the specification of every other one."""

import pytest
import torch
from torch.nn import functional as F

from chainrule.core.cache import Cache
from chainrule.core.datum import Given, Layout
from chainrule.core.errors import ConfigError, RequestError
from chainrule.core.model import LanguageModel, replay
from chainrule.core.shapes import Float, Int, Tensor
from chainrule.core.tap import Tap


class Running(LanguageModel):
    """Scores of the next token are how often each token occurred so far in the document (plus what is given)."""

    vocab_size, context = 5, 16

    def hidden(
        self,
        tokens: Int[Tensor, "b t"],
        cache: Cache | None = None,
        *,
        layout: Layout | None = None,
        given: Given | None = None,
        tap: Tap | None = None,
    ) -> Float[Tensor, "b t d"]:
        if cache is not None:
            return replay(self, cache, tokens, layout=layout, given=given, tap=tap)
        layout = Layout.plain(tokens) if layout is None else layout
        same = (layout.document[:, :, None] == layout.document[:, None, :]).float().tril()
        counts = same @ F.one_hot(tokens, self.vocab_size).float()
        return counts if given is None else counts + given["bias"][:, None]

    def readout(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        return hidden


TOKENS = torch.tensor([[1, 2, 2, 4, 0], [3, 3, 1, 0, 2]])


def test_reading_in_pieces_is_reading_at_once() -> None:
    model = Running()
    cache = model.cache(2, 8)
    pieces = [model(TOKENS[:, :2], cache), model(TOKENS[:, 2:3], cache), model(TOKENS[:, 3:], cache)]
    assert torch.equal(torch.cat(pieces, 1), model(TOKENS))
    assert cache.lengths.tolist() == [5, 5]


def test_rows_of_different_lengths_live_together() -> None:
    model = Running()
    cache = model.cache(2, 8)
    model(TOKENS[:, :3], cache, layout=Layout.lengths(torch.tensor([1, 3]), 3))
    scores = model(torch.tensor([[2], [0]]), cache)
    assert cache.lengths.tolist() == [2, 4]
    assert torch.equal(scores[0, 0], model(TOKENS[:1, :2])[0, -1])
    assert torch.equal(scores[1, 0], model(TOKENS[1:, :4])[0, -1])


def test_rewinding_forgets_and_keeping_reorders() -> None:
    model = Running()
    cache = model.cache(2, 8)
    model(TOKENS[:, :4], cache)
    cache.rewind(torch.tensor([1, 2]))
    cache.keep([1, 0, 1])
    assert cache.lengths.tolist() == [2, 3, 2]
    scores = model(torch.tensor([[1], [4], [1]]), cache)
    assert torch.equal(scores[1, 0], model(TOKENS[:1, :4])[0, -1])
    assert torch.equal(scores[0, 0], model(TOKENS[1:, :3])[0, -1])


def test_what_conditions_a_row_moves_with_its_row() -> None:
    model = Running()
    given = {"bias": torch.tensor([[0.0] * 5, [9.0] * 5])}
    cache = model.cache(2, 8, given)
    cache.keep([1])
    assert torch.equal(model(TOKENS[1:, :2], cache), model.given({"bias": given["bias"][1:]})(TOKENS[1:, :2]))


def test_a_row_that_outgrows_its_cache_is_refused_before_anything_is_stored() -> None:
    model = Running()
    cache = model.cache(2, 3)
    with pytest.raises(RequestError, match="a row would hold 5 tokens but its cache holds 3"):
        model(TOKENS, cache)
    assert cache.lengths.tolist() == [0, 0]


def test_a_cache_longer_than_the_model_reads_is_refused() -> None:
    with pytest.raises(ConfigError, match="a cache of 17 tokens does not suit a model that reads 1 to 16"):
        Running().cache(1, 17)
