"""The neural n-gram: a network a reader can do by hand, what it sees and what it does not, and vectors to begin from."""

import math

import pytest
import torch
from torch.testing import assert_close

from chainrule.core.datum import Layout
from chainrule.core.errors import ConfigError
from chainrule.core.schema import dump, parse
from chainrule.hub.fresh import neural_ngram
from chainrule.models.neural_ngram import NeuralNGram, NeuralNGramConfig


def config(**rest) -> NeuralNGramConfig:
    return NeuralNGramConfig(**({"vocab_size": 7, "order": 3, "d_model": 2, "d_hidden": 5} | rest))


def model(**rest) -> NeuralNGram:
    return NeuralNGram(config(**rest), torch.Generator().manual_seed(0)).eval()


def test_a_network_by_hand():
    """One number a token, order 3: a = tanh(x_t + 2 x_{t−1}); the scores are a and 0, so p(0) = 1 / (1 + e^−a)."""
    ours = model(vocab_size=2, d_model=1, d_hidden=1)
    with torch.no_grad():
        ours.embed_tokens.weight.copy_(torch.tensor([[0.5], [-0.25]]))
        ours.begin.fill_(0.1)
        ours.hidden_proj.weight.copy_(torch.tensor([[1.0, 2.0]]))
        ours.lm_head.weight.copy_(torch.tensor([[1.0], [0.0]]))
    p = ours(torch.tensor([[0, 1]])).softmax(-1)[0, :, 0]
    expected = [1 / (1 + math.exp(-math.tanh(0.5 + 2 * 0.1))), 1 / (1 + math.exp(-math.tanh(-0.25 + 2 * 0.5)))]
    assert_close(p, torch.tensor(expected))


@pytest.mark.parametrize("direct", [False, True])
def test_the_scores_are_those_of_the_paper(direct):
    """y = U tanh(d + H x) (+ W x), written out token by token."""
    ours = model(order=4, direct=direct)
    rows = torch.tensor([[3, 1, 4, 1, 5]])
    table, begin = ours.embed_tokens.weight, ours.begin
    for t in range(rows.shape[1]):
        x = torch.cat([table[rows[0, t - k]] if t >= k else begin for k in range(3)])
        a = torch.tanh(ours.hidden_proj.bias + ours.hidden_proj.weight @ x)
        y = ours.lm_head.weight[:, :5] @ a
        y = y + ours.lm_head.weight[:, 5:] @ x if direct else y
        assert_close(ours(rows)[0, t], y)


def test_it_sees_the_last_tokens_alone_and_begins_where_a_document_does():
    ours = model()
    assert_close(ours(torch.tensor([[1, 2, 3]]))[0, -1], ours(torch.tensor([[6, 2, 3]]))[0, -1])
    assert not torch.equal(ours(torch.tensor([[1, 2, 3]]))[0, -1], ours(torch.tensor([[1, 6, 3]]))[0, -1])
    packed = Layout(torch.tensor([[0, 1, 0, 1]]), torch.tensor([[0, 0, 1, 1]]))
    assert_close(ours(torch.tensor([[1, 2, 3, 4]]), layout=packed)[0, 2:], ours(torch.tensor([[3, 4]]))[0])


def test_a_new_network_knows_nothing():
    ours = NeuralNGram(config(vocab_size=500, d_model=32, d_hidden=64), torch.Generator().manual_seed(0))
    assert abs(-ours(torch.arange(200)[None]).log_softmax(-1).mean().item() - math.log(500)) < 0.1


def test_its_table_begins_with_word2vecs_vectors():
    """Ids 0, 1, 2 are used alike, and so are 3, 4, 5: in the table they lie together from the start."""
    generator = torch.Generator().manual_seed(0)
    documents = [torch.randint(3, (30,), generator=generator).numpy() + 3 * (i % 2) for i in range(60)]
    ours = neural_ngram(documents, vocab_size=6, d_model=8, d_hidden=4, word2vec="skip_gram", epochs=20)
    table = torch.nn.functional.normalize(ours.embed_tokens.weight.detach(), dim=1)
    cosines = table @ table.T
    assert cosines[:3, :3].min() > 0.5
    assert cosines[3:, 3:].min() > 0.5
    assert cosines[:3, 3:].max() < 0
    drawn = neural_ngram(vocab_size=6, d_model=8, d_hidden=4, word2vec="skip_gram")
    assert not torch.equal(drawn.embed_tokens.weight, ours.embed_tokens.weight)
    assert abs(ours.embed_tokens.weight.std().item() - 1) < 0.01
    with pytest.raises(ConfigError, match=r"are \(3, 8\), but the table is \(6, 8\)"):
        ours.take_vectors(torch.zeros(3, 8))


@pytest.mark.parametrize(
    ("change", "because"),
    [
        ({"n": 3}, "unknown key 'n'"),
        ({"version": 2}, "'version' is 2"),
        ({"order": 1}, "sees 0 tokens"),
        ({"d_hidden": 0}, "d_hidden=0"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(change, because):
    plain = dump(config())
    assert parse(NeuralNGramConfig, plain) == config()
    with pytest.raises(ConfigError, match=because):
        parse(NeuralNGramConfig, plain | change)


def test_a_condition_is_refused():
    with pytest.raises(ConfigError, match="cannot be given source"):
        model()(torch.tensor([[1]]), given={"source": torch.zeros(1, 1)})
