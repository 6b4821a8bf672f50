"""The compiled loop of word2vec: its step by autograd, its reading by plain loops, what it draws, what is said without numba."""

import sys

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from chainrule.core.errors import MissingExtra
from chainrule.models.word2vec import Word2Vec, learn_vectors
from chainrule.models.word2vec_places import ALONE, Places

pytest.importorskip("numba")
from chainrule.models.word2vec_compiled import draw, learn_places, step

V, D = 12, 6


def tables() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return tuple(torch.randn(V, D, generator=generator) for _ in range(2))


@pytest.mark.parametrize("predict", [[5], [1, 4, 7]], ids=["skip_gram", "cbow"])
def test_a_step_is_the_gradient_that_autograd_finds(predict):
    """Word 3 is real, 8, 0 and 9 are drawn; with n words that predict each moves n times as far as the gradient of the mean."""
    v, u = (table.requires_grad_() for table in tables())
    scores = torch.tensor([-1.0, 1, 1, 1]) * (u[[3, 8, 0, 9]] @ v[predict].mean(0))
    torch.nn.functional.softplus(scores).sum().backward()
    found = [table.detach().clone() for table in (v, u)]
    step(*(table.numpy() for table in found), np.array(predict), np.array([3, 8, 0, 9]), 0.1, *np.ones((2, D), np.float32))
    assert_close(found[0], v.detach() - 0.1 * len(predict) * v.grad)
    assert_close(found[1], u.detach() - 0.1 * u.grad)


@pytest.mark.parametrize("method", ["skip_gram", "cbow"])
def test_reading_equals_plain_loops(method):
    """Three lines in one go: draws, reaches, the ends of lines and what stands after the last are as they are said."""
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, V, n) for n in (1, 9, 14)]
    epoch = Places.of(documents, V).epoch((1, 0), window=3, negatives=2, sample=0.0, alone=True)
    v, u = tables()
    expected = loops(v.double().numpy().copy(), u.double().numpy().copy(), documents, method, epoch.rng(0), epoch.drawn, 3, 2)
    learn_places(v, u, epoch, 0, 0.1, cbow=method == "cbow")
    assert len(epoch) == 1
    for found, table in zip((v, u), expected, strict=True):
        assert_close(found.double(), torch.from_numpy(table), atol=1e-5, rtol=1e-5)


def loops(v, u, documents, method, rng, drawn, window, negatives):
    """The steps written out, in float64, one word after another."""

    def lesson(predict, real):
        a, s = v[predict].mean(0), np.zeros(D)
        for i, word in enumerate([real, *(np.searchsorted(drawn, rng.random(), "right") for _ in range(negatives))]):
            g = 0.1 * ((i == 0) - 1 / (1 + np.exp(-a @ u[word])))
            s += g * u[word]
            u[word] += g * a
        np.add.at(v, predict, s)

    for line in documents:
        for i, word in enumerate(line):
            reach = 1 + int(rng.random() * window)
            near = [line[j] for j in range(max(0, i - reach), min(len(line), i + reach + 1)) if j != i]
            for other in near if method == "skip_gram" else []:
                lesson([word], other)
            if near and method == "cbow":
                lesson(near, word)
    return v, u


def test_words_are_drawn_as_often_as_published_and_a_word_that_never_occurs_never():
    """Counts 16, 1, 0 and 81: to the power of ¾ they are 8, 1, 0 and 27."""
    epoch = Places.of([np.repeat([0, 1, 3, 4], [16, 1, 81, 0])], 5).epoch((1, 0), window=1, negatives=1, sample=0.0, alone=True)
    words = np.full(36_001, 9)
    draw(words, epoch.drawn, epoch.first, epoch.rng(0))
    assert words[0] == 9  # the real word stays
    assert np.bincount(words[1:], minlength=5) / 1000 == pytest.approx([8, 1, 0, 27, 0], abs=0.3)


def test_all_places_are_read_in_several_goes():
    settings = Word2Vec(by="place", method="cbow", d_model=4, min_count=1, sample=0.0, epochs=1)
    heard = []
    found = learn_vectors([np.arange(V).repeat(ALONE // V)] * 2, V, settings, lambda *told: heard.append(told))
    assert len(heard) == 1
    assert found.isfinite().all()
    assert (found.abs().max(1).values > 0.2).all()  # at first none is above 1/8


def test_without_numba_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "chainrule.models.word2vec_compiled")
    with pytest.raises(MissingExtra, match=r"by=place needs the package 'numba'.*pip install '\.\[words\]'"):
        learn_vectors([np.array([0, 1] * 9)], 2, Word2Vec(by="place"))
    with pytest.raises(MissingExtra, match=r"method=cbow without by=block needs the package 'numba'"):
        learn_vectors([np.array([0, 1] * 9)], 2, Word2Vec(method="cbow"))


def test_each_method_learns_in_its_faster_way_unless_told_otherwise():
    chosen = {
        (method, by): Word2Vec(method=method, by=by).alone
        for method in ("skip_gram", "cbow")
        for by in (None, "block", "place")
    }
    assert {key for key, alone in chosen.items() if alone} == {("cbow", None), ("cbow", "place"), ("skip_gram", "place")}
