"""One mask rule: i sees j iff same document and position_j <= position_i, within the window."""

import pytest
import torch
from jaxtyping import TypeCheckError

from chainrule.core.datum import Batch, Layout, visible
from chainrule.core.errors import DataError


def test_a_plain_row_sees_its_past_and_itself() -> None:
    layout = Layout.plain(torch.zeros(1, 3, dtype=torch.long))
    assert visible(layout, layout)[0].tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_a_window_counts_the_token_itself() -> None:
    layout = Layout.plain(torch.zeros(1, 3, dtype=torch.long))
    assert visible(layout, layout, window=2)[0].tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]


def test_packed_documents_do_not_see_each_other() -> None:
    layout = Layout(torch.tensor([[0, 1, 0]]), torch.tensor([[0, 0, 1]]))
    assert visible(layout, layout)[0].tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]


def test_documents_start_where_the_document_changes_and_at_padding() -> None:
    layout = Layout(torch.tensor([[0, 1, 0, 0]]), torch.tensor([[0, 0, 1, -1]]))
    assert layout.starts.tolist() == [[True, False, True, True]]


def test_every_token_knows_how_long_its_document_is() -> None:
    packed, padded = ([0, 1, 2, 0, 1, 0], [0, 0, 0, 3, 3, -1]), ([0, 0, 1, 2, 3, 4], [-1, 0, 0, 0, 0, 0])
    layout = Layout(*(torch.tensor(pair) for pair in zip(packed, padded, strict=True)))
    assert layout.sizes.tolist() == [[3, 3, 3, 2, 2, 1], [1, 5, 5, 5, 5, 5]]


def test_left_and_right_padding_place_the_same_positions() -> None:
    left = Layout.lengths(torch.tensor([2]), 4, left=True)
    right = Layout.lengths(torch.tensor([2]), 4)
    assert left.position[left.real].tolist() == right.position[right.real].tolist() == [0, 1]
    assert left.real.tolist() == [[False, False, True, True]]


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises((DataError, TypeCheckError)):  # under pytest the shape in the signature speaks first
        Batch(torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 2))
