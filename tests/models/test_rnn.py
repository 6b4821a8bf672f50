"""Recurrent models: a state by hand, torch's own cells as the oracle, and rows of any layout."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from chainrule.core.cache import TokenCache
from chainrule.core.datum import PADDING, Layout
from chainrule.core.errors import ConfigError, RequestError
from chainrule.core.schema import dump, parse
from chainrule.layers.cache import KVCache
from chainrule.layers.cells import CELLS, CellLayer
from chainrule.layers.steps import Steps
from chainrule.models.rnn import Recurrent, RecurrentConfig

THEIRS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


def config(cell: str = "lstm", **rest) -> RecurrentConfig:
    return RecurrentConfig.uniform(**({"vocab_size": 11, "cell": cell, "n_layers": 2, "d_model": 6} | rest))


def model(cell: str = "lstm", **rest) -> Recurrent:
    return Recurrent(config(cell, **rest), torch.Generator().manual_seed(0)).eval()


def tokens(b: int, t: int) -> torch.Tensor:
    return torch.randint(11, (b, t), generator=torch.Generator().manual_seed(b + t))


def oracle(ours: Recurrent, cell: str) -> nn.Module:
    """torch's stack with the same weights, which have the same names but for the layer."""
    shapes = ours.config
    theirs = THEIRS[cell](shapes.d_model, shapes.cells[0].d_hidden, len(shapes.cells), batch_first=True)
    weights = {f"{name}_l{i}": p for i, layer in enumerate(ours.cells) for name, p in layer.named_parameters()}
    theirs.load_state_dict(weights)
    return theirs


def with_ones(cell: str) -> CellLayer:
    """A cell of one unit whose weights are one and whose biases are zero."""
    layer = CELLS[cell](d_hidden=1).build(1)
    with torch.no_grad():
        layer.weight_ih.fill_(1.0)
        layer.weight_hh.fill_(1.0)
    return layer


@pytest.mark.parametrize(
    ("cell", "first", "second"),
    [
        # h₁ = tanh 1, h₂ = tanh(1 + h₁)
        ("rnn", 0.76159, 0.94268),
        # all gates σ(1) = 0.73106: c₁ = 0.73106 · tanh 1 = 0.55677, h₁ = 0.73106 · tanh c₁ = 0.36961
        ("lstm", 0.36961, 0.65054),
        # z = 0.73106, n = tanh 1: h₁ = (1 − z) n = 0.20482
        ("gru", 0.20482, 0.34675),
    ],
)
def test_two_steps_by_hand(cell, first, second):
    found = with_ones(cell)(torch.ones(2, 1), [1, 1], torch.zeros(1, 2 if cell == "lstm" else 1))
    assert_close(found[:, 0], torch.tensor([first, second]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("cell", THEIRS)
@pytest.mark.parametrize(("b", "t"), [(1, 1), (3, 9)])
def test_states_and_gradients_equal_torchs(cell, b, t):
    ours = model(cell, d_hidden=5, tied=False)
    theirs = oracle(ours, cell)
    rows = tokens(b, t)
    found, expected = ours.hidden(rows), theirs(ours.embed_tokens(rows))[0]
    assert_close(found, expected, atol=1e-5, rtol=1e-5)
    weight = torch.randn(found.shape, generator=torch.Generator().manual_seed(2))
    (found * weight).sum().backward()
    (expected * weight).sum().backward()
    for i, layer in enumerate(ours.cells):
        for name, parameter in layer.named_parameters():
            assert_close(parameter.grad, theirs.get_parameter(f"{name}_l{i}").grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("cell", THEIRS)
def test_ragged_documents_equal_torchs_packed_sequences(cell):
    ours = model(cell)
    rows, lengths = tokens(4, 7), torch.tensor([3, 7, 1, 5])
    packed = nn.utils.rnn.pack_padded_sequence(ours.embed_tokens(rows), lengths, batch_first=True, enforce_sorted=False)
    expected = nn.utils.rnn.pad_packed_sequence(oracle(ours, cell)(packed)[0], batch_first=True)[0]
    assert_close(ours.hidden(rows, layout=Layout.lengths(lengths, 7)), expected, atol=1e-5, rtol=1e-5)


def test_documents_are_read_longest_first_and_padding_is_not_read():
    layout = Layout(torch.tensor([[0, 1, 2, 0, 1, 0, 0, 1]]), torch.tensor([[0, 0, 0, 1, 1, PADDING, 2, 2]]))
    steps = Steps.of(layout)
    assert steps.column.tolist() == [0, 3, 6, 1, 4, 7, 2]
    assert steps.sizes == [3, 3, 1]
    assert steps.row.tolist() == [0, 0, 0]
    assert steps.fresh.tolist() == [True, True, True]


def test_a_batch_of_padding_alone_has_no_states():
    layout = Layout(torch.zeros(2, 3, dtype=torch.long), torch.full((2, 3), PADDING))
    assert torch.equal(model().hidden(tokens(2, 3), layout=layout), torch.zeros(2, 3, 6))


@pytest.mark.parametrize("cell", THEIRS)
def test_a_document_split_by_padding_goes_on(cell):
    ours = model(cell)
    row = tokens(1, 6)
    layout = Layout(torch.tensor([[0, 1, 0, 2, 0, 3]]), torch.tensor([[0, 0, PADDING, 0, PADDING, 0]]))
    real = layout.real[0]
    assert_close(ours(row, layout=layout)[0, real], ours(row[:, real])[0])


@pytest.mark.parametrize("cell", THEIRS)
def test_a_cache_goes_on_into_new_documents_as_reading_everything_again_does(cell):
    """A row that ends in document 0 reads the rest of it and then document 1; the other row begins anew at once."""
    ours = model(cell)
    first, second = tokens(2, 4), tokens(2, 5)
    fast, slow = ours.cache(2, 9), TokenCache(2, 9)
    layouts = (
        Layout.lengths(torch.tensor([4, 2]), 4),
        Layout(torch.tensor([[4, 5, 0, 0, 1], [0, 1, 2, 0, 3]]), torch.tensor([[0, 0, PADDING, 1, 1], [3, 3, 3, PADDING, 3]])),
    )
    for rows, layout in zip((first, second), layouts, strict=True):
        found, expected = (ours(rows, cache, layout=layout) for cache in (fast, slow))
        assert_close(found[layout.real], expected[layout.real])
    for cache in (fast, slow):
        cache.rewind(torch.tensor([3, 5]))
        cache.keep([1, 0])
    assert_close(ours(first[:, :1], fast), ours(first[:, :1], slow))


def test_a_cache_carries_no_gradient_and_refuses_what_does_not_fit():
    ours = model()
    cache = ours.cache(2, 3)
    ours(tokens(2, 2), cache)
    assert not any(states.requires_grad for states in cache.states)
    with pytest.raises(RequestError, match="would hold 4 tokens but its cache holds 3"):
        ours(tokens(2, 2), cache)
    with pytest.raises(ConfigError, match="reads a StateCache"):
        ours(tokens(1, 1), KVCache(1, 4, [((1, 2), (1, 2))]))
    with pytest.raises(ConfigError, match="cannot be given source"):
        ours(tokens(1, 1), given={"source": torch.zeros(1, 1)})


def test_a_new_model_knows_nothing_whatever_its_readout():
    for tied in (True, False):
        fresh = Recurrent(config(vocab_size=500, d_model=32, tied=tied), torch.Generator().manual_seed(0))
        scores = fresh(torch.arange(200)[None]).log_softmax(-1)
        assert abs(-scores.mean().item() - math.log(500)) < 0.2


def test_a_state_in_sixteen_bits_stays_float32():
    ours = model().to(torch.bfloat16)
    assert ours.hidden(tokens(2, 3)).dtype == torch.bfloat16
    cache = ours.cache(2, 3)
    ours(tokens(2, 3), cache)
    assert {states.dtype for states in cache.states} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model()(tokens(2, 5)).float()
    assert_close(rounded, model()(tokens(2, 5)), atol=0.02, rtol=0.05)


@pytest.mark.parametrize(
    ("change", "because"),
    [
        ({"units": 3}, "unknown key 'units'"),
        ({"version": 2}, "'version' is 2"),
        ({"cells": []}, "cells is empty"),
        ({"cells": [{"kind": "lsmt", "d_hidden": 6}]}, "did you mean 'lstm'"),
        ({"cells": [{"kind": "lstm", "d_hiden": 6}]}, "did you mean 'd_hidden'"),
        ({"cells": [{"kind": "gru", "d_hidden": 0}]}, "d_hidden=0"),
        ({"cells": [{"kind": "gru", "d_hidden": 5}]}, "d_hidden=5 and d_model=6"),
        ({"vocab_size": 0}, "vocab_size=0"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(change, because):
    plain = dump(config())
    assert parse(RecurrentConfig, plain) == config()
    with pytest.raises(ConfigError, match=because):
        parse(RecurrentConfig, plain | change)
