"""Two questions with exact answers: the truth gives them, a table of counts what one can count, and what is ruled out is None."""

import math

import pytest

from chainrule.eval.probes import FRONTED, PLAIN, PROMPTS, next_probes, order_odds, order_probe
from chainrule.eval.results import NextPhrase
from chainrule.hub.lm import LM
from chainrule.hub.load import load
from chainrule.models.ngram import NGram
from chainrule.tokenizers.byte import ByteTokenizer
from chainrule.world.chinese import CHINESE

PLACES = (("仙II-212", 0.30), ("图书馆", 0.20), ("公园", 0.14), ("学校", 0.09), ("市场", 0.06))
WEATHERS = (("晴朗", 0.34), ("不错", 0.24), ("炎热", 0.16), ("寒冷", 0.10), ("多云", 0.07))


@pytest.fixture(scope="module")
def truth() -> LM:
    return load("world", device="cpu")


def counted(*texts: str, order: int) -> LM:
    """The relative frequencies of these texts' bytes."""
    documents = [[256, *text.encode(), 256] for text in texts]
    return LM(NGram.fit(documents, order=order, vocab_size=257, smoothing="mle"), ByteTokenizer())


def test_the_true_odds_of_the_two_orders_are_twenty_to_one(truth):
    odds = order_odds("truth", "truth", truth)
    assert odds.nats == pytest.approx(math.log(20), abs=1e-5)
    came = math.log(0.8 * 0.55 * 0.30 / 1.05 * 0.5 * 0.82)  # 今天, that somebody came, where, in that order, of Chinese stories
    assert odds.plain == pytest.approx(came, abs=1e-5)
    probe = order_probe([odds], math.log(20))
    assert (probe.plain, probe.fronted, probe.odds) == (PLAIN, FRONTED, (odds,))


@pytest.mark.parametrize(("order", "plain", "fronted"), [(40, 3 / 4, 1 / 4), (7, (3 / 4) ** 3, (1 / 4) ** 3)])
def test_the_odds_of_a_table_are_those_one_can_count(order, plain, fronted):
    """After six bytes, 今天, 到了 and II-212 do not tell in which order the sentence is; after forty, only 今天 does not."""
    odds = order_odds("counted", "bytes", counted(PLAIN, PLAIN, PLAIN, FRONTED, order=order))
    assert (odds.name, odds.family) == ("counted", "bytes")
    assert (odds.plain, odds.fronted) == (pytest.approx(math.log(plain)), pytest.approx(math.log(fronted)))
    assert odds.nats == pytest.approx(math.log(plain / fronted))


def test_an_order_that_is_ruled_out_has_no_odds():
    odds = order_odds("counted", "bytes", counted(PLAIN, order=40))
    assert (odds.plain, odds.fronted, odds.nats) == (pytest.approx(0.0), None, None)


def test_the_true_continuations_are_the_five_likeliest(truth):
    probes = next_probes(truth, truth)
    assert [(probe.prompt, probe.language) for probe in probes] == list(PROMPTS)
    for probe, known in zip(probes, (PLACES, WEATHERS), strict=True):
        assert probe.top == tuple(text for text, _ in known)
        assert [phrase.truth for phrase in probe.phrases] == pytest.approx([p for _, p in known], abs=1e-5)
        assert [phrase.text for phrase in probe.phrases] == list(probe.top)
        assert probe.deviation == 0
        assert probe.same
    assert {text for text, _ in PLACES} < set(CHINESE.places)


def test_what_a_model_never_says_has_probability_nought(truth):
    """A table of three times 公园 and once 港口, which in truth is none of the five."""
    lm = counted(*3 * ["今天我来到了公园。"], "今天我来到了港口。", order=7)
    (probe,) = next_probes(truth, lm, PROMPTS[:1])
    assert [(phrase.text, phrase.model) for phrase in probe.phrases] == [
        (text, pytest.approx({"公园": 0.75}.get(text, 0.0))) for text, _ in PLACES
    ]
    assert probe.phrases[2] == NextPhrase(text="公园", truth=pytest.approx(0.14, abs=1e-5), model=pytest.approx(0.75))
    assert probe.top == ("公园", "港口")
    assert probe.deviation == pytest.approx(0.75 - 0.14, abs=1e-5)
    assert not probe.same
    (one,) = next_probes(truth, lm, PROMPTS[:1], k=1)
    assert ([phrase.text for phrase in one.phrases], one.top) == (["仙II-212"], ("公园",))
