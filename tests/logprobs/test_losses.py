"""Cross entropy is what F.cross_entropy says, split or whole, and refuses what teaches nothing."""

from math import log

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from chainrule.core.datum import Batch
from chainrule.core.errors import DataError
from chainrule.logprobs.losses import cross_entropy
from tests.logprobs import toys


def test_a_uniform_model_loses_the_log_of_its_vocabulary_per_judged_token() -> None:
    batch = Batch(torch.zeros(2, 4, dtype=torch.long), torch.tensor([[1.0, 1, 1, 1], [1, 0, 1, 0]]))
    loss = cross_entropy(toys.uniform(5), batch)
    assert loss.weight == 4  # no first token counts: nothing predicts it
    assert_close(loss.total, torch.tensor(4 * log(5)))


def test_it_equals_the_library_with_its_gradient() -> None:
    ours, theirs = toys.Linear(30, 8), toys.Linear(30, 8)
    tokens = torch.randint(30, (3, 10), generator=torch.Generator().manual_seed(0))
    loss = cross_entropy(ours, Batch(tokens, torch.ones(3, 10)))
    (loss.total / loss.weight).backward()
    expected = F.cross_entropy(theirs(tokens)[:, :-1].transpose(1, 2), tokens[:, 1:])
    expected.backward()
    assert_close(loss.total / loss.weight, expected)
    assert_close(ours.head.grad, theirs.head.grad)
    assert_close(ours.embed.grad, theirs.embed.grad)


def test_micro_batches_add_up_to_the_batch() -> None:
    model = toys.Linear(30, 8)
    tokens = torch.randint(30, (4, 10), generator=torch.Generator().manual_seed(0))
    mask = (torch.rand(4, 10, generator=torch.Generator().manual_seed(1)) < 0.5).float()
    whole = cross_entropy(model, Batch(tokens, mask))
    parts = [cross_entropy(model, Batch(tokens[i : i + 1], mask[i : i + 1])) for i in range(4)]
    assert_close(sum(part.total for part in parts), whole.total)
    assert sum(part.weight for part in parts) == whole.weight


def test_a_token_the_model_rules_out_costs_infinitely_much_but_only_where_it_counts() -> None:
    model = toys.Bigram(torch.tensor([[0.0, -torch.inf], [0.0, 0.0]]))
    tokens = torch.tensor([[0, 1, 0]])
    assert cross_entropy(model, Batch(tokens, torch.tensor([[0.0, 1, 1]]))).total == torch.inf
    assert_close(cross_entropy(model, Batch(tokens, torch.tensor([[0.0, 0, 1]]))).total, torch.tensor(log(2)))


def test_a_batch_with_nothing_to_learn_is_refused_before_the_model_runs() -> None:
    model = toys.uniform(5)
    with pytest.raises(DataError, match=r"\(2, 3\) tokens has none to learn from"):
        cross_entropy(model, Batch(torch.zeros(2, 3, dtype=torch.long), torch.tensor([[1.0, 0, 0]] * 2)))
    assert model.columns == 0
