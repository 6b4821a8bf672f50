"""What is true of every sampling filter: it still sums to one, its support only shrinks, and top-k keeps exactly k."""

import pytest
import torch
from torch.testing import assert_close

from chainrule.core.errors import RequestError
from chainrule.logprobs.filters import MinP, Temperature, TopK, TopP, repetition_penalty

FILTERS = [Temperature(0.5), Temperature(2.0), TopK(1), TopK(3), TopK(99), TopP(0.5), TopP(1.0), MinP(0.2), MinP(1.0)]


def rows():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(4, 11, generator=generator) * 3
    scores[1] = 0.0  # all tied
    scores[2, ::2] = -torch.inf
    scores[3, :] = -torch.inf
    scores[3, 5] = 0.0
    return scores.log_softmax(-1)


@pytest.mark.parametrize("filter", FILTERS, ids=repr)
def test_it_still_sums_to_one_and_the_support_only_shrinks(filter):
    before = rows()
    after = filter(before)
    assert_close(after.exp().sum(-1), torch.ones(4))
    assert not after.isnan().any()
    assert not (after.isfinite() & ~before.isfinite()).any()


@pytest.mark.parametrize("filter", FILTERS, ids=repr)
def test_what_is_left_keeps_its_order(filter):
    before, after = rows()[0], filter(rows())[0]
    kept = after.isfinite()
    assert torch.equal(before[kept].argsort(), after[kept].argsort())
    assert int(after.argmax()) == int(before.argmax())


@pytest.mark.parametrize("k", [1, 3, 11])
def test_top_k_keeps_exactly_k_ties_too(k):
    assert TopK(k)(rows())[:2].isfinite().sum(-1).tolist() == [k, k]


def test_filters_by_hand():
    logp = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert_close(TopP(0.7)(logp).exp(), torch.tensor([[0.625, 0.375, 0, 0]]))
    assert_close(MinP(0.2)(logp).exp(), torch.tensor([[0.5, 0.3, 0.15, 0]]) / 0.95)
    assert_close(Temperature(0.5)(logp).exp(), torch.tensor([[0.25, 0.09, 0.0225, 0.0025]]) / 0.365)


@pytest.mark.parametrize(
    "build", [lambda: Temperature(0.0), lambda: TopK(0), lambda: TopP(1.5), lambda: TopP(0.0), lambda: MinP(-1.0)]
)
def test_settings_that_mean_nothing_are_refused(build):
    with pytest.raises(RequestError):
        build()


def test_filters_agree_with_transformers():
    transformers = pytest.importorskip("transformers")
    scores = torch.randn(5, 40, generator=torch.Generator().manual_seed(1)) * 2
    seen = torch.randint(40, (5, 7), generator=torch.Generator().manual_seed(2))
    pairs = [
        (Temperature(0.7), transformers.TemperatureLogitsWarper(0.7)),
        (TopK(6), transformers.TopKLogitsWarper(6)),
        (TopP(0.8), transformers.TopPLogitsWarper(0.8)),
        (MinP(0.1), transformers.MinPLogitsWarper(0.1)),
    ]
    for ours, theirs in pairs:
        assert_close(ours(scores.log_softmax(-1)), theirs(seen, scores.clone()).log_softmax(-1))
    theirs = transformers.RepetitionPenaltyLogitsProcessor(1.3)(seen, scores.clone())
    assert_close(repetition_penalty(scores, seen, 1.3), theirs)
