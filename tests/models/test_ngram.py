"""N-grams: counts a reader can do by hand, the number everyone knows, and KenLM's own table."""

import math
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from chainrule.core.datum import Batch
from chainrule.core.errors import ConfigError
from chainrule.core.schema import dump, parse
from chainrule.logprobs.scoring import token_logprobs
from chainrule.models.ngram import NGram, NGramConfig
from chainrule.models.ngram_counts import count_ngrams

A, B, C, END = 0, 1, 2, 3


def p(model: NGram, context: list[int]) -> list[float]:
    return model(torch.tensor([context]))[0, -1].exp().tolist()


def test_maximum_likelihood_by_hand():
    model = NGram.fit([[END, A, B, A, C, END]], order=2, vocab_size=4, smoothing="mle")
    assert p(model, [A]) == pytest.approx([0, 0.5, 0.5, 0])
    assert p(model, [B]) == pytest.approx([1, 0, 0, 0])


def test_laplace_by_hand():
    model = NGram.fit([[END, A, B, A, C, END]], order=2, vocab_size=4, smoothing="laplace")
    assert p(model, [A]) == pytest.approx([1 / 6, 2 / 6, 2 / 6, 1 / 6])
    assert p(model, [B]) == pytest.approx([2 / 5, 1 / 5, 1 / 5, 1 / 5])


def test_an_unseen_context_falls_back_to_the_shorter_one():
    model = NGram.fit([[END, A, B, A, C, END]], order=3, vocab_size=5, smoothing="mle")
    assert p(model, [4, A]) == pytest.approx(p(model, [A]))


def test_the_bigram_of_names_has_the_loss_everyone_knows(material):
    """2.4540 nats a character, the maximum-likelihood bigram of makemore's names.txt."""
    names = (material / "corpora" / "names.txt").read_text().split()
    documents = [[0, *(ord(letter) - 96 for letter in name), 0] for name in names]
    model = NGram.fit(documents, order=2, vocab_size=27, smoothing="mle")
    total, count = 0.0, 0
    for length in sorted({len(document) for document in documents}):
        rows = torch.tensor([document for document in documents if len(document) == length])
        total -= token_logprobs(model, Batch(rows, torch.ones(rows.shape))).sum(dtype=torch.float64).item()
        count += rows.shape[0] * (length - 1)
    assert total / count == pytest.approx(2.4540, abs=1e-4)


def read_arpa(path: Path) -> tuple[dict[tuple[str, ...], float], dict[tuple[str, ...], float]]:
    """log10 p and log10 back-off of every n-gram of an ARPA file."""
    logp, backoff = {}, {}
    for line in path.read_text(encoding="utf-8").splitlines():
        fields = line.split("\t")
        if len(fields) >= 2 and not line.startswith("ngram"):
            words = tuple(fields[1].split(" "))
            logp[words] = float(fields[0])
            backoff[words] = float(fields[2]) if len(fields) > 2 else 0.0
    return logp, backoff


def arpa_logp(logp, backoff, context: tuple[str, ...], word: str) -> float:
    if (*context, word) in logp:
        return logp[*context, word]
    return backoff.get(context, 0.0) + arpa_logp(logp, backoff, context[1:], word)


GOLDEN = Path(__file__).with_name("lmplz")


@pytest.fixture(scope="module")
def counted() -> tuple[list[list[str]], dict[str, int], NGram]:
    """The sentences that lmplz counted, the words' ids, and our trigram of the same."""
    sentences = [line.split() for line in (GOLDEN / "corpus.txt").read_text().splitlines()]
    words = ["<unk>", "<s>", "</s>", *sorted({word for sentence in sentences for word in sentence})]
    ids = {word: i for i, word in enumerate(words)}
    documents = [[ids["<s>"], *(ids[word] for word in sentence), ids["</s>"]] for sentence in sentences]
    return sentences, ids, NGram.fit(documents, order=3, vocab_size=len(words), never=ids["<s>"])


def test_kneser_ney_equals_lmplz_on_its_own_arpa_file(counted):
    sentences, ids, model = counted
    logp, backoff = read_arpa(GOLDEN / "trigram.arpa")
    checked = 0
    for sentence in [*sentences[:40], list(reversed(sentences[0])), sentences[3][::2]]:
        row = ["<s>", *sentence, "</s>"]
        found = token_logprobs(model, Batch(torch.tensor([[ids[word] for word in row]]), torch.ones(1, len(row))))[0]
        for t in range(1, len(row)):
            expected = arpa_logp(logp, backoff, tuple(row[max(0, t - 2) : t]), row[t]) * math.log(10)
            assert float(found[t]) == pytest.approx(expected, abs=2e-5)
            checked += 1
    assert checked > 100


def test_every_ngram_and_every_backoff_of_lmplzs_file_is_ours(counted):
    """All but one number: of <s>, which is never predicted, lmplz writes p = 1 where we have 0.

    What nobody has seen after a context is p(<unk> | context) = backoff(context) p(<unk> | context without its first word).
    """
    _, ids, model = counted
    logp, backoff = read_arpa(GOLDEN / "trigram.arpa")
    assert [sum(len(words) == k for words in logp) for k in (1, 2, 3)] == [266, 748, 1048]
    after = {}
    for k in (1, 2):  # what each word, and each pair of words, is followed by
        contexts = [words for words in logp if len(words) == k]
        read = model(torch.tensor([[ids[word] for word in words] for words in contexts]))[:, -1] / math.log(10)
        after |= dict(zip(contexts, read, strict=True))
    after[()] = after["<unk>",]  # no text holds <unk>: nothing is known of what follows it
    assert logp.pop(("<s>",)) == 0
    assert after[()][ids["<s>"]] == -math.inf
    found = [after[words[:-1]][ids[words[-1]]] for words in logp]
    assert_close(torch.stack(found), torch.tensor(list(logp.values()), dtype=torch.float64), atol=2e-6, rtol=0)
    unseen = {context: row[ids["<unk>"]] for context, row in after.items()}
    found = [unseen[context] - unseen[context[1:]] for context in backoff if len(context) < 3]
    expected = [weight for context, weight in backoff.items() if len(context) < 3]
    assert_close(torch.stack(found), torch.tensor(expected, dtype=torch.float64), atol=2e-6, rtol=0)
    assert len(expected) == 266 + 748


def test_the_discounts_are_those_that_lmplz_prints(counted):
    lines = [line.split() for line in (GOLDEN / "command").read_text().splitlines() if "D1=" in line]
    for order, size, *printed in lines:
        theirs = [float(discount.partition("=")[2]) for discount in printed]
        assert counted[2].discounts(int(order)) == pytest.approx(theirs, rel=1e-5)
        assert counted[2].config.sizes[int(order) - 1] == int(size)
    assert len(lines) == 3


def test_discounts_without_a_count_of_four_are_no_fallback():
    """10 bigrams are counted once, 4 twice, 2 three times: y = 10/18, D₁ = 1 − 2y · 4/10, D₂ = 2 − 3y · 2/4, D₃ = 3."""
    often = [1] * 10 + [2] * 4 + [3] * 2
    model = NGram.fit([[1, 2 + i] for i, n in enumerate(often) for _ in range(n)], order=2, vocab_size=20)
    assert model.discounts(2) == pytest.approx((1 - 8 / 18, 2 - 30 / 36, 3.0))


def test_large_counts_stay_exact():
    model = NGram.fit([[A] * 100_000], order=2, vocab_size=2, smoothing="mle")
    assert model.get_buffer("counts_2").dtype == torch.int64
    assert int(model.get_buffer("counts_2").sum()) == 99_999


def test_settings_that_mean_nothing_are_refused():
    with pytest.raises(ConfigError, match="alpha=0"):
        NGram.fit([[A, B]], order=2, vocab_size=4, smoothing="laplace", alpha=0.0)


@pytest.mark.parametrize("smoothing", ["mle", "laplace", "kneser-ney"])
def test_an_order_longer_than_every_document_is_that_of_the_longest(smoothing):
    short = NGram.fit([[END, A, B]], order=8, vocab_size=4, smoothing=smoothing)
    assert sum(p(short, [END, A])) == pytest.approx(1)
    if smoothing != "laplace":
        assert p(short, [END, A]) == pytest.approx(
            p(NGram.fit([[END, A, B]], order=3, vocab_size=4, smoothing=smoothing), [END, A])
        )


@pytest.mark.parametrize("smoothing", ["mle", "laplace", "kneser-ney"])
@pytest.mark.parametrize("order", [1, 2, 4])
def test_one_token_looked_up_is_the_one_read_out(smoothing, order):
    generator = torch.Generator().manual_seed(0)
    documents = [torch.randint(9, (n,), generator=generator).tolist() for n in (30, 7, 1)]
    model = NGram.fit(documents, order=order, vocab_size=11, smoothing=smoothing, never=10)
    tokens = torch.randint(10, (3, 12), generator=generator)
    states, targets = model.hidden(tokens[:, :-1]), tokens[:, 1:]
    assert torch.equal(model.logp_of(states, targets), model.readout(states).gather(2, targets[..., None])[..., 0])


def test_the_first_levels_of_a_longer_count_are_the_shorter_model():
    documents = [[END, A, B, A, C, END], [END, C, A, END]]
    levels = count_ngrams(documents, 4, 4)
    for order in (1, 2, 3, 4):
        one, other = NGram.of_levels(levels[:order], vocab_size=4), NGram.fit(documents, order=order, vocab_size=4)
        assert one.config == other.config
        assert all(torch.equal(one.state_dict()[name], tensor) for name, tensor in other.state_dict().items())


def test_a_config_of_another_version_is_refused():
    config = NGramConfig(order=1, vocab_size=4, sizes=(4,))
    assert parse(NGramConfig, dump(config)) == config
    with pytest.raises(ConfigError, match="'version' is 2; it must be one of 1"):
        parse(NGramConfig, dump(config) | {"version": 2})
