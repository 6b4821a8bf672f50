"""word2vec: losses by hand and by loops, steps by autograd, the published recipe's numbers, and what is learned."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from chainrule.core.errors import ConfigError, DataError
from chainrule.core.schema import parse
from chainrule.layers.linear import embedding, one_hot
from chainrule.models.word2vec import Word2Vec, cbow, cbow_loss, learn_vectors, learn_words, skip_gram, skip_gram_loss
from chainrule.models.word2vec_places import BLOCK, Places

METHODS = {"skip_gram": (skip_gram, skip_gram_loss), "cbow": (cbow, cbow_loss)}
V, D = 12, 6


@pytest.fixture(params=["block", "place"])
def by(request) -> str:
    if request.param == "place":
        pytest.importorskip("numba")
    return request.param


def documents(n: int = 9, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, V, rng.integers(1, 15)) for _ in range(n)]


def blocks(window: int = 3, negatives: int = 4, docs: list[np.ndarray] | None = None):
    places = Places.of(documents() if docs is None else docs, V)
    return places.epoch((1, 0), window=window, negatives=negatives, sample=0.0)[0]


def tables() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return tuple(torch.randn(V, D, generator=generator).requires_grad_() for _ in range(2))


def test_a_one_hot_vector_times_a_table_is_its_embedding_gradients_too():
    table = embedding(V, D)
    with torch.no_grad():
        table.weight.normal_(generator=torch.Generator().manual_seed(0))
    matrix = table.weight.detach().clone().requires_grad_()
    ids = torch.tensor([[3, 0, 3], [11, 7, 1]])
    looked_up, multiplied = table(ids), one_hot(ids, V) @ matrix
    assert torch.equal(looked_up, multiplied)
    for result in (looked_up, multiplied):
        result.square().sum().backward()
    assert_close(table.weight.grad, matrix.grad)


@pytest.mark.parametrize("method", METHODS)
def test_vectors_of_zeros_cost_log_two_for_each_score(method):
    """One neighbour and four drawn words, every score 0: five times ln 2."""
    _, loss = METHODS[method]
    assert_close(loss(torch.zeros(V, D), torch.zeros(V, D), blocks()), torch.tensor(5 * math.log(2)))


@pytest.mark.parametrize("method", METHODS)
def test_words_that_are_alone_cost_nothing(method):
    """As in the last blocks of an epoch, where these are of lines of one word."""
    _, loss = METHODS[method]
    found = blocks(docs=[np.array([0, 1])])
    found.near[:] = False
    assert loss(torch.zeros(V, D), torch.zeros(V, D), found) == 0


def test_one_pair_by_hand():
    """Two words, v · u = 1 for the neighbour and −1 for the only word that can be drawn, twice: 3 softplus(−1) = 0.9398."""
    v, u = torch.zeros(V, 1), torch.zeros(V, 1)
    v[0], u[1], u[2] = 1.0, 1.0, -1.0
    found = blocks(window=1, negatives=2, docs=[np.array([0, 1])])
    found = found._replace(noise=torch.full_like(found.noise, 2))
    found.near[1:] = False  # the first place alone
    assert_close(skip_gram_loss(v, u, found), torch.tensor(3 * math.log(1 + math.exp(-1))))
    assert_close(cbow_loss(u, v, found), torch.tensor(math.log(1 + math.exp(-1)) + 2 * math.log(2)))  # 1 predicts 0


@pytest.mark.parametrize("window", [1, 4])
def test_the_losses_equal_loops_over_pairs(window):
    v, u = tables()
    found = blocks(window)
    sums, counts = {"skip_gram": 0.0, "cbow": 0.0}, {"skip_gram": 0, "cbow": 0}
    for i, middle in enumerate(found.middle):
        around = [found.row[i + column] for column in range(2 * window + 1) if found.near[i, column]]
        pairs = [(v[middle], u[word]) for word in around]
        if around:
            pairs_cbow = [(torch.stack([v[word] for word in around]).mean(0), u[middle])]
            for name, these in (("skip_gram", pairs), ("cbow", pairs_cbow)):
                for a, b in these:
                    drawn = torch.stack([torch.sigmoid(-(a @ u[word])).log() for word in found.noise[i // BLOCK]])
                    sums[name] -= (torch.sigmoid(a @ b).log() + 4 * drawn.mean()).item()
                    counts[name] += 1
    for name, (_, loss) in METHODS.items():
        assert math.isclose(loss(v, u, found).item(), sums[name] / counts[name], rel_tol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_a_small_step_is_the_gradient_that_autograd_finds(method):
    step, loss = METHODS[method]
    (v, u), found, lr = tables(), blocks(), 1e-3
    n = found.near.sum() if method == "skip_gram" else found.near.any(1).sum()
    (loss(v, u, found) * n).backward()
    moved_v, moved_u = v.detach().clone(), u.detach().clone()
    step(moved_v, moved_u, found, lr)
    assert_close((u.detach() - moved_u) / lr, u.grad, atol=2e-3, rtol=1e-3)
    if method == "skip_gram":
        assert_close((v.detach() - moved_v) / lr, v.grad, atol=2e-3, rtol=1e-3)


def test_cbow_gives_each_word_near_the_whole_slope_of_the_mean():
    """As word2vec.c does: with n words near, each moves n times as far as the gradient of the mean says."""
    (v, u), found = tables(), blocks(window=2, docs=[np.array([0, 1, 2])])
    found.near[0], found.near[2:] = False, False  # the middle place alone: two words near
    cbow_loss(v, u, found).backward()
    moved = v.detach().clone()
    cbow(moved, u.detach().clone(), found, 1e-3)
    assert_close((v.detach() - moved) / 1e-3, 2 * v.grad, atol=2e-3, rtol=1e-3)


def test_steps_that_would_overshoot_are_cut():
    """A vocabulary of two words, read at a rate that plain sums of steps do not survive: they would double at every turn."""
    settings = Word2Vec(d_model=4, min_count=1, sample=0.0, epochs=2, lr=1e6)
    assert learn_vectors([np.array([0, 1] * 100)], 2, settings).abs().max() < 100


def test_vectors_that_grow_without_bound_are_refused(by):
    with pytest.raises(ConfigError, match="grew without bound; lower lr=inf"):
        learn_vectors(documents(), V, Word2Vec(by=by, d_model=4, min_count=1, lr=math.inf))


def test_frequent_words_are_left_out_and_drawn_as_published():
    places = Places.of([np.array([0] * 16 + [1])], 2)
    # f = 16/17, s = 0.01: √(s/f) + s/f = 0.1137; the word that occurs once has s/f = 0.17 and stays with probability 0.5823
    assert places.kept(0.01) == pytest.approx([0.11370, 0.58231], abs=1e-4)
    assert places.noise() == pytest.approx([8 / 9, 1 / 9])  # 16^¾ = 8


def test_a_place_is_near_words_within_its_reach_of_the_same_line_and_never_itself():
    docs = documents(40)
    found = Places.of(docs, V).epoch((1, 0), window=3, negatives=1, sample=0.0)
    line = np.repeat(np.arange(len(docs)), [len(doc) for doc in docs])
    reaches = set()
    for number in range(len(found)):
        for i, column in found[number].near.nonzero().tolist():
            here = number * found.at_once + i
            there = here + column - 3
            assert here != there
            assert line[here] == line[there]
            reaches.add(abs(here - there))
    assert reaches == {1, 2, 3}


def test_the_three_ways_to_say_what_is_near_agree():
    """A band of a matrix, the words around each place, and the places that each word of the row is near."""
    found = blocks(window=3, docs=documents(40))
    span, band = found.span()
    assert torch.equal(span[:, 3:-3].flatten(), found.middle)
    around, readers = found.around(), found.readers()
    pairs = {(i, i + column) for i, column in found.near.nonzero().tolist()}
    assert pairs == {(n * BLOCK + i, n * BLOCK + j) for n, i, j in band.nonzero().tolist()}
    assert pairs == {(i, j) for i, bag in enumerate(unpacked(around)) for j in bag}
    assert pairs == {(i, j) for j, bag in enumerate(unpacked(readers)) for i in bag}
    one = torch.arange(len(found.row) * 2.0).view(-1, 2)
    assert_close(around.sum(one), torch.stack([one[bag].sum(0) for bag in unpacked(around)]))


def unpacked(bags) -> list[list[int]]:
    return [part.tolist() for part in bags.items.tensor_split(bags.starts[1:])]


def test_the_same_seed_gives_the_same_vectors(by):
    settings = Word2Vec(by=by, d_model=8, min_count=1, epochs=1)
    threads = torch.get_num_threads()
    one, two = (learn_vectors(documents(30), V, settings) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, learn_vectors(documents(30), V, replace(settings, seed=1)))
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("threads", [1, 2])
def test_words_used_alike_come_to_lie_together(method, threads, by):
    """Two topics of forty words, each line about one of them."""
    rng = np.random.default_rng(0)
    lines = [[f"{'ab'[i % 2]}{word}" for word in rng.integers(0, 40, 8)] for i in range(300)]
    heard: list[float] = []
    settings = Word2Vec(method=method, by=by, d_model=16, sample=0.0, lr=0.05, epochs=4, threads=threads)
    found = learn_words(lines, settings, lambda epoch, loss: heard.append(loss))
    near = [(word, other) for word in found.words for other, _ in found.near(word, 5)]
    assert np.mean([word[0] == other[0] for word, other in near]) > 0.95
    assert len(heard) == 4
    assert max(heard) < 0.7 * 6 * math.log(2)  # at first every score is 0; what is left is which word of its topic it is


def test_words_below_the_minimum_have_no_vector_and_the_most_frequent_come_first():
    found = learn_words([["a", "b", "b", "c"], ["b", "a"]], Word2Vec(d_model=2, min_count=2, sample=0.0, epochs=1))
    assert found.words == ["b", "a"]


@pytest.mark.parametrize(
    ("settings", "because"),
    [
        ({"method": "glove"}, "'skip_gram', 'cbow'"),
        ({"by": "line"}, "'block', 'place'"),
        ({"windows": 3}, "did you mean 'window'"),
        ({"negatives": 0}, "'negatives' is 0"),
        ({"seed": -1}, "'seed' is -1"),
        ({"lr": -1.0}, "lr=-1.0"),
        ({"last_lr": 1.0}, "last_lr=1.0"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, because):
    with pytest.raises(ConfigError, match=because):
        parse(Word2Vec, settings)


def test_a_text_too_small_is_refused():
    with pytest.raises(DataError, match="set min_count lower"):
        learn_words([["a", "b"]], Word2Vec())
    with pytest.raises(DataError, match="hold 0 known words"):
        learn_vectors([], 3, Word2Vec())
    with pytest.raises(DataError, match="2 lines hold 2 known words, and none holds two"):
        learn_vectors([np.array([0]), np.array([1])], 3, Word2Vec())
    with pytest.raises(DataError, match="left out every word; set it higher"):
        learn_vectors(documents(), V, Word2Vec(sample=1e-300))
    with pytest.raises(DataError, match="ids from 0 to 9; the vocabulary has 3"):
        learn_vectors([np.array([0, 9])], 3, Word2Vec())
