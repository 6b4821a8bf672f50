import itertools
import math

import pytest
import torch

from chainrule.core.errors import TokenizerError
from chainrule.eval.bpb import measure, measure_logp, uniform_logp
from chainrule.layers.attention import GroupedQuery
from chainrule.layers.init import Normal
from chainrule.layers.mlp import Gated
from chainrule.layers.rope import Rope
from chainrule.layers.scaling import Dynamic, LongRope
from chainrule.logprobs.measures import judged_ids, perplexity
from chainrule.models.blocks import Block
from chainrule.models.decoder import Decoder, DecoderConfig

TEXTS = ["hello", "今天的天气很好。", "", "a longer English document, for windows and batches", "b"]


def by_hand(model, text: str) -> float:
    """Nats of a text under a table of scores of the next byte given the last."""
    ids = [256, *text.encode(), 256]
    logp = model.table.double().log_softmax(-1)
    return -sum(logp[a, b].item() for a, b in itertools.pairwise(ids))


def test_a_uniform_guess_over_256_bytes_costs_8_bits_each(toys) -> None:
    measured = measure(toys.Uniform(256), toys.Bytes(ends=False), TEXTS)
    assert measured.bits_per_byte == pytest.approx(8)


def test_the_end_of_a_document_is_paid_for(toys) -> None:
    measured = measure(toys.Uniform(257), toys.Bytes(), ["abcd"])
    assert measured.bits_per_byte == pytest.approx(5 / 4 * math.log2(257))
    assert measure_logp(uniform_logp, ["abcd"], name="uniform").nats == pytest.approx(measured.nats)


def test_perplexity_is_per_judged_token(toys) -> None:
    assert measure(toys.Uniform(257), toys.Bytes(), ["abcd", "é"]).perplexity == pytest.approx(257)
    for tokenizer, judged in ((toys.Bytes(), 5 + 3), (toys.Bytes(ends=False), 3 + 1)):  # with both ends, and with neither
        measured = measure(toys.Reader(257), tokenizer, ["abcd", "é"])
        assert measured.judged_tokens == judged
        assert measured.perplexity == pytest.approx(math.exp(sum(measured.nats) / judged))
    assert measure_logp(uniform_logp, ["abcd"], name="uniform").perplexity is None


def test_perplexity_beyond_a_float_is_infinite() -> None:
    assert perplexity(math.log(4) * 3, 3) == pytest.approx(4)
    assert perplexity(math.inf, 3) == perplexity(1e6, 3) == math.inf


def test_without_a_token_to_begin_with_the_first_byte_is_neither_judged_nor_counted(toys) -> None:
    measured = measure(toys.Uniform(256), toys.Bytes(ends=False), ["abcd", "", "a"])
    assert measured.size_bytes == (3, 0, 0)
    assert measured.nats == pytest.approx((3 * math.log(256), 0, 0))
    assert "first token of every document is not judged" in measured.notes[0]


def test_a_model_with_a_beginning_of_its_own_judges_the_first_token_too(toys) -> None:
    model = toys.Uniform(256)
    model.start = 0
    measured = measure(model, toys.Bytes(ends=False), ["abcd"])
    assert measured.size_bytes == (4,)
    assert not any("first token" in note for note in measured.notes)


def test_every_document_costs_what_it_costs_alone(toys) -> None:
    model = toys.Reader(257)
    together = measure(model, toys.Bytes(), TEXTS, tokens_at_once=60)
    assert together.nats == pytest.approx([by_hand(model, text) for text in TEXTS], rel=1e-5)
    alone = [measure(model, toys.Bytes(), [text]).nats[0] for text in TEXTS if text]
    assert [nats for nats, text in zip(together.nats, TEXTS, strict=True) if text] == pytest.approx(alone, rel=1e-6)


@pytest.mark.parametrize(
    "scaling", [LongRope(short=(1.0,) * 4, long=(2.0, 3.0, 5.0, 9.0), original=20), Dynamic(factor=4.0, original=20)]
)
def test_a_document_is_read_by_its_own_length_beside_longer_ones(toys, scaling) -> None:
    block = Block(attention=GroupedQuery(n_heads=2, n_kv_heads=2, d_head=8), mlp=Gated(d_ff=24))
    model = Decoder(
        DecoderConfig(vocab_size=257, context=64, d_model=16, blocks=(block, block), position=Rope(scaling=scaling))
    )
    model.init(torch.Generator().manual_seed(1), Normal(std=0.3))
    texts = ["a document of some length, far beyond the trained", "one of 24 letters in all", "hello"]
    together = measure(model, toys.Bytes(), texts).nats
    assert together == pytest.approx([measure(model, toys.Bytes(), [text]).nats[0] for text in texts], rel=1e-6)


@pytest.mark.parametrize("context", [2, 3, 7, 16, 51, 52, 53])
def test_windows_over_a_long_document_judge_every_token_once(toys, context) -> None:
    model = toys.Reader(257, context=context)
    measured = measure(model, toys.Bytes(), TEXTS)
    # a bigram sees all it needs in any window of two, so windows may change nothing
    assert measured.nats == pytest.approx([by_hand(model, text) for text in TEXTS], rel=1e-5)
    assert model.longest <= context


def test_a_window_is_only_spoken_of_where_one_was_needed(toys) -> None:
    assert "windows" in measure(toys.Reader(257, context=8), toys.Bytes(), TEXTS).notes[0]
    assert measure(toys.Reader(257, context=80), toys.Bytes(), TEXTS).notes == ()


def test_languages_are_added_up_apart(toys) -> None:
    measured = measure(toys.Reader(257), toys.Bytes(), TEXTS, ["en", "zh", "zh", "en", "en"])
    english = [0, 3, 4]
    bits = sum(measured.nats[i] for i in english) / math.log(2) / sum(len(TEXTS[i]) for i in english)
    assert measured.by_language["en"] == pytest.approx(bits)
    assert list(measured.by_language) == ["en", "zh"]


def test_a_text_that_is_ruled_out_costs_infinitely_many_bits(toys) -> None:
    measured = measure(toys.Uniform(257, never=ord("x")), toys.Bytes(), ["ax", "b"], ["one", "two"])
    assert measured.nats[0] == math.inf
    assert measured.by_language["one"] == math.inf
    assert measured.by_language["two"] == pytest.approx(2 * 8)


def test_a_tokenizer_that_loses_text_is_refused_unless_forced(toys) -> None:
    small = toys.Bytes(lossless=False)
    with pytest.raises(TokenizerError, match="gpt9's tokenizer loses part of a text"):
        measure(toys.Uniform(257), small, [*TEXTS, "A capital."], name="gpt9")
    assert "costs nothing" in measure(toys.Uniform(257), small, [*TEXTS, "A capital."], force=True).notes[0]


def test_a_tokenizer_that_may_lose_text_is_used_where_it_loses_none_and_score_agrees(toys) -> None:
    small, texts = toys.Bytes(lossless=False), [text.lower() for text in TEXTS]
    measured = measure(toys.Uniform(257), small, texts)
    assert measured.notes == ()
    assert measured.nats == measure(toys.Uniform(257), toys.Bytes(), texts).nats
    assert [judged_ids(small, text).n_bytes for text in texts if text] == [size for size in measured.size_bytes if size]


def test_nothing_to_measure_is_refused(toys) -> None:
    for texts in ([], ["", ""]):
        with pytest.raises(ValueError, match="no text to measure"):
            measure(toys.Uniform(257), toys.Bytes(), texts)
    with pytest.raises(ValueError, match="judged no byte"):
        _ = measure(toys.Uniform(256), toys.Bytes(ends=False), ["a"]).bits_per_byte
    with pytest.raises(ValueError, match="2 texts come with 1 languages"):
        measure(toys.Uniform(257), toys.Bytes(), ["a", "b"], ["en"])


def test_measuring_leaves_a_model_in_the_mode_it_was_in(toys) -> None:
    model = toys.Uniform(257).train()
    measure(model, toys.Bytes(), TEXTS)
    assert model.training
