"""Bits per byte of encoder–decoders and encoders: by hand on a few texts, and over all texts together they are one."""

import math
from itertools import product
from typing import ClassVar

import pytest
import torch

from chainrule.core.datum import Batch
from chainrule.core.errors import ConfigError, TokenizerError
from chainrule.eval.branches import measure_in_order, measure_in_parts
from chainrule.hub.fresh import fresh, fresh_encoder, fresh_seq2seq
from chainrule.logprobs.scoring import token_logprobs
from chainrule.tokenizers.byte import ByteTokenizer

SHAPE = {"vocab_size": 258, "context": 16, "n_layers": 1, "d_model": 16, "n_heads": 2, "d_ff": 16, "seed": 0}
MASK = 257
TEXTS = ["ab", "a longer text, of many parts", "", "猫"]
TOKENIZER = ByteTokenizer()


class SmallLetters(ByteTokenizer):
    lossless = False

    def encode(self, text: str) -> list[int]:
        return super().encode(text.lower())


@pytest.fixture(params=["original", "t5"])
def seq2seq(request):
    return fresh_seq2seq(**SHAPE, plan=request.param, init="normal").double()


@pytest.fixture
def encoder():
    model = fresh_encoder(**SHAPE)
    for parameter in model.parameters():  # far from uniform, so that a mistake costs
        torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(parameter.numel()))
    return model.double()


def test_an_encoder_decoder_pays_for_each_part_given_those_before_it(seq2seq):
    found = measure_in_parts(seq2seq, TOKENIZER, TEXTS, name="x")
    start = TOKENIZER.begin if seq2seq.start is None else seq2seq.start
    for text, nats in zip(TEXTS, found.nats, strict=True):
        ids = [*TOKENIZER.encode(text), TOKENIZER.end]
        logp = 0.0
        for at in range(0, len(ids), 4):
            before = [*ids[max(0, at - 15) : at], TOKENIZER.end]
            tokens = torch.tensor([[start, *ids[at : at + 4]]])
            batch = Batch(tokens, torch.ones(tokens.shape), given={"source": torch.tensor([before])})
            logp += token_logprobs(seq2seq, batch).sum().item()
        assert nats == pytest.approx(-logp, rel=1e-6)
    assert found.size_bytes == (2, 28, 0, 3)
    assert found.tokens == 33


def test_an_encoder_pays_for_each_token_behind_a_mask_with_nothing_after_it(encoder):
    found = measure_in_order(encoder, TOKENIZER, MASK, TEXTS, name="x")
    for text, nats in zip(TEXTS, found.nats, strict=True):
        ids = [TOKENIZER.begin, *TOKENIZER.encode(text), TOKENIZER.end]
        logp = 0.0
        for at in range(1, len(ids)):
            row = [*ids[max(0, at - 15) : at], MASK]
            logp += encoder(torch.tensor([row]))[0, -1].log_softmax(-1)[ids[at]].item()
        assert nats == pytest.approx(-logp, rel=1e-6)


class Letters(ByteTokenizer):
    """Four ids: three letters, and the end, which also begins."""

    vocab_size = 4
    specials: ClassVar = {"<|endoftext|>": 3}
    bos, eos = 3, (3,)

    def encode(self, text):
        return ["abc".index(letter) for letter in text]


@pytest.mark.parametrize("kind", ["parts", "order"])
def test_all_texts_together_have_probability_one(kind):
    shape = SHAPE | {"vocab_size": 5, "context": 8}
    texts = ["".join(letters) for n in range(6) for letters in product("abc", repeat=n)]
    seq2seq, encoder = fresh_seq2seq(**shape, plan="original", init="normal").double(), fresh_encoder(**shape).double()
    if kind == "parts":
        found = measure_in_parts(seq2seq, Letters(), texts, name="x")
    else:
        found = measure_in_order(encoder, Letters(), 4, texts, name="x")
    # new models find the five ids about equally likely: 1/5 for each end, and 3/5 to go on with a letter, up to 5 of them
    assert sum(math.exp(-nats) for nats in found.nats) == pytest.approx(sum(0.2 * 0.6**n for n in range(6)), abs=0.05)


def test_models_that_do_not_fit_are_refused(seq2seq):
    plain = fresh(**SHAPE, n_kv_heads=None, rope_theta=1e4, tied=True, init="normal")
    with pytest.raises(ConfigError, match="reads no source"):
        measure_in_parts(plain, TOKENIZER, TEXTS, name="x")
    with pytest.raises(TokenizerError, match="loses part of a text"):
        measure_in_parts(seq2seq, SmallLetters(), [*TEXTS, "A capital."], name="x")
    endless = ByteTokenizer()
    endless.eos = ()
    with pytest.raises(ConfigError, match="no token to end a text"):
        measure_in_parts(seq2seq, endless, TEXTS, name="x")
