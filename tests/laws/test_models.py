"""What is true of every language model, from the unigram to the Transformer and the truth itself."""

import importlib
import importlib.util
import math
import pkgutil
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

import chainrule.models
from chainrule.core.cache import TokenCache
from chainrule.core.datum import PADDING, Batch, Layout
from chainrule.core.errors import CheckpointError, ConfigError
from chainrule.core.model import Conditioned, LanguageModel
from chainrule.logprobs.scoring import token_logprobs

_SPEC = importlib.util.spec_from_file_location("law_cases", Path(__file__).with_name("cases.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
cases = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(cases)
NAMES = list(cases.CASES)
T = 12
DECLARED = "a row is read by the length that a cache declares or that it has, and its beginning alone is shorter"


@pytest.fixture(params=NAMES)
def case(request):
    return cases.CASES[request.param]


@pytest.fixture
def model(case):
    return cases.model(case.name)


def logp(model, tokens, **rest):
    with torch.no_grad():
        return model(tokens, **rest).double().log_softmax(-1)


def close(a, b, atol=1e-5):
    assert_close(a, b, atol=atol, rtol=1e-5)


def batch(tokens, layout=None, given=None):
    return Batch(tokens, torch.ones(tokens.shape), layout, given)


def test_every_model_of_the_project_is_here():
    """But for encoders, which have laws of their own, and a model with its condition filled in, which is another one's face."""
    for module in pkgutil.walk_packages(chainrule.models.__path__, "chainrule.models."):
        importlib.import_module(module.name)
    models = {one for one in LanguageModel.__subclasses__() if one.__module__.startswith("chainrule.")} - {Conditioned}
    assert models == {type(cases.model(name)) for name in NAMES}
    assert not [one for model in models for one in model.__subclasses__()]


def test_1_probabilities_sum_to_one(model, case):
    total = logp(model, case.rows(2, T), given=case.given(0, 1)).exp().sum(-1)
    close(total, torch.ones_like(total))


def test_2_the_future_changes_no_past_column(model, case):
    rows = case.rows(2, T)
    changed = rows.clone()
    changed[:, 7:] = (changed[:, 7:] + 1) % model.vocab_size
    given = case.given(0, 1)
    close(logp(model, rows, given=given)[:, :7], logp(model, changed, given=given)[:, :7])


@pytest.mark.parametrize("pieces", [(T,), (1,) * T, (5, 1, 6)])
def test_3_a_cache_changes_nothing(model, case, pieces):
    rows = case.rows(2, T)
    cache, at, found = model.cache(2, T, case.given(0, 1)), 0, []
    for n in pieces:
        found.append(logp(model, rows[:, at : at + n], cache=cache))
        at += n
    close(torch.cat(found, 1), logp(model, rows, given=case.given(0, 1)))
    assert cache.lengths.tolist() == [T, T]


def test_3_a_cache_agrees_with_reading_everything_again(model, case):
    if case.declared:
        pytest.skip(DECLARED)
    rows = case.rows(2, T)
    slow = TokenCache(2, T, case.given(0, 1), device=model.device)
    fast = model.cache(2, T, case.given(0, 1))
    for part in (rows[:, :5], rows[:, 5:]):
        close(logp(model, part, cache=fast), logp(model, part, cache=slow))


def test_3_keep_and_rewind_change_nothing(model, case):
    rows = case.rows(3, T)
    cache = model.cache(3, T, case.given(0, 1, 2))
    logp(model, rows[:, :8], cache=cache)
    cache.keep([2, 0, 0])
    cache.rewind(torch.tensor([3, 0, 3]))
    assert cache.lengths.tolist() == [5, 8, 5]
    cache.rewind(torch.tensor([0, 3, 0]))
    found = logp(model, rows[[2, 0, 0], 5:], cache=cache)
    close(found, logp(model, rows[[2, 0, 0]], given=case.given(2, 0, 0))[:, 5:])


def test_3_ragged_rows_share_a_cache(model, case):
    rows = case.rows(2, T)
    cache = model.cache(2, T, case.given(0, 1))
    lengths = torch.tensor([4, 7])
    logp(model, rows[:, :7], cache=cache, layout=Layout.lengths(lengths, 7))
    tail = torch.stack([rows[0, 4:7], rows[1, 7:10]])
    found = logp(model, tail, cache=cache)
    close(found[0], logp(model, rows[:1], given=case.given(0))[0, 4:7])
    close(found[1], logp(model, rows[1:], given=case.given(1))[0, 7:10])


def test_4_the_sum_of_token_logprobs_is_the_log_of_the_product(model, case):
    if case.declared:
        pytest.skip(DECLARED)
    rows = case.rows(1, T)
    with torch.no_grad():
        total = token_logprobs(model, batch(rows, given=case.given(0))).sum(dtype=torch.float64)
    steps = [logp(model, rows[:, :t], given=case.given(0))[0, -1, rows[0, t]] for t in range(1, T)]
    close(total, torch.stack(steps).sum(), atol=1e-4)


def test_5_all_continuations_of_length_two_have_probability_one(model, case):
    prefix, v = case.rows(1, 5), model.vocab_size
    first = logp(model, prefix, given=case.given(0))[0, -1]
    likely = first.isfinite().nonzero()[:, 0]
    rows = torch.cat([prefix.expand(len(likely), -1), likely[:, None]], 1)
    second = logp(model, rows, given=case.given(*[0] * len(rows)))[:, -1]
    total = torch.logsumexp((first[likely, None] + second).flatten(), 0).exp()
    assert v <= 300
    close(total, torch.ones_like(total))


def test_6_saving_and_loading_changes_nothing(model, case, tmp_path):
    from chainrule.hub.load import load
    from chainrule.hub.save import save

    if case.name == "oracle":
        with pytest.raises(CheckpointError, match="no files"):
            save(tmp_path / "model", model)
        return
    save(tmp_path / "model", model)
    rows = case.rows(2, T)
    given = case.given(0, 1)
    assert torch.equal(load(tmp_path / "model").model(rows, given=given), model(rows, given=given))


@pytest.mark.parametrize("left", [False, True])
def test_7_padding_changes_no_real_column(model, case, left):
    rows = case.rows(2, T)
    lengths = torch.tensor([T, 7])
    padded = rows.clone()
    padded[1] = 0
    real = slice(T - 7, T) if left else slice(0, 7)
    padded[1, real] = rows[1, :7]
    found = logp(model, padded, layout=Layout.lengths(lengths, T, left=left), given=case.given(0, 1))
    close(found[0], logp(model, rows[:1], given=case.given(0))[0])
    close(found[1, real], logp(model, rows[1:, :7], given=case.given(1))[0])


def test_7_packing_changes_no_real_column(model, case):
    rows = case.rows(2, T)
    row = torch.cat([rows[0, :7], rows[1, :4], torch.zeros(1, dtype=torch.long)])[None]
    position = torch.tensor([[*range(7), *range(4), 0]])
    document = torch.tensor([[0] * 7 + [1] * 4 + [PADDING]])
    layout = Layout(position, document)
    given = case.given(0)  # the documents of a row share its condition
    found = logp(model, row, layout=layout, given=given)[0]
    close(found[:7], logp(model, rows[:1, :7], given=given)[0])
    close(found[7:11], logp(model, rows[1:, :4], given=given)[0])
    with torch.no_grad():
        judged = token_logprobs(model, batch(row, layout, given))[0]
    assert judged[[0, 7, 11]].tolist() == [0, 0, 0]


def test_7_the_order_within_a_batch_changes_nothing(model, case):
    rows = case.rows(3, T)
    order = [2, 0, 1]
    close(logp(model, rows[order], given=case.given(*order)), logp(model, rows, given=case.given(0, 1, 2))[order])


def test_8_a_batch_of_two_is_two_batches_of_one(model, case):
    rows = case.rows(2, T)
    alone = [logp(model, rows[i : i + 1], given=case.given(i)) for i in (0, 1)]
    close(logp(model, rows, given=case.given(0, 1)), torch.cat(alone))


def test_9_one_repeated_sentence_is_learned(case):
    if case.untrained:
        pytest.skip(case.untrained)
    model = case.build().train()
    rows = cases.random_rows(1, T)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(400):
        loss = -token_logprobs(model, batch(rows, given=case.given(0))).sum() / (T - 1)
        if loss.item() < 0.1:
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pytest.fail(f"after 400 steps a token still costs {loss.item():.2f} nats")


@pytest.mark.parametrize("name", [name for name in NAMES if "gram" in name])
def test_10_an_unseen_context_has_a_stated_fallback(name):
    model = cases.model(name)
    unseen = torch.full((1, 6), cases.VOCAB - 1)  # documents hold no such token
    found = logp(model, unseen)[0, -1].exp()
    assert not found.isnan().any()
    shorter = logp(model, cases.random_rows(1, 1))[0, -1].exp() if name == "unigram" else None
    uniform = torch.full_like(found, 1 / cases.VOCAB)
    expected = shorter if shorter is not None else uniform if name == "trigram-laplace" else None
    if expected is not None:
        close(found, expected)
    else:  # the unigram distribution: what is left when no context was seen
        unigram = model._extend(model._uniform[None], 1, torch.zeros(1, dtype=torch.long))[0]
        close(found, unigram)


def test_11_a_tap_changes_nothing(model, case):
    heard = {}
    rows = case.rows(2, T)
    given = case.given(0, 1)
    close(logp(model, rows, given=given, tap=heard.__setitem__), logp(model, rows, given=given))
    if hasattr(model, "layers"):
        assert {"hook_embed", "blocks.0.attn.hook_q", "blocks.1.hook_resid_post"} <= set(heard)
        total = heard["blocks.0.attn.hook_pattern"].sum(-1)
        assert (total < 1).all() if case.name == "sinks" else total.allclose(torch.ones(()))  # a sink takes its share


def test_a_condition_that_a_model_does_not_take_is_refused_in_one_wording_before_any_work(model, case):
    given = {**(case.given(0) or {}), "colour": torch.ones(1, 1)}
    takes = "is given source alone" if model.needs else "reads tokens alone"
    for asks in (lambda: model.check_given(given), lambda: model(case.rows(1, T), given=given)):
        with pytest.raises(ConfigError, match=f"this model {takes}; it cannot be given colour"):
            asks()


def test_a_uniform_model_pays_the_log_of_its_vocabulary():
    model = cases.model("unigram")
    assert math.isclose(float(model._uniform.sum()), 1.0, rel_tol=1e-9)


def test_a_dynamic_rope_is_fixed_by_the_declared_capacity():
    model = cases.model("dynamic-rope")
    rows = cases.random_rows(1, T)
    long = model.cache(1, 48)
    found = torch.cat([logp(model, rows[:, :5], cache=long), logp(model, rows[:, 5:], cache=long)], 1)
    again = model.cache(1, 48)
    close(found, logp(model, rows, cache=again))
