"""Merging by score gives what the slow and simple way gives, in time that grows with the text and not with its square."""

import itertools
import random
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule.tokenizers.llama2c import FIRST_BYTE, Llama2cTokenizer
from chainrule.tokenizers.merging import merge_best
from chainrule.tokenizers.sentencepiece import BPE, NORMAL, UNKNOWN, Model, SentencePiece


def simple(symbols, scores):
    """The definition: look at all pairs, join the best, begin again."""
    parts = list(symbols)
    while True:
        found = [(-scores[a + b], i) for i, (a, b) in enumerate(itertools.pairwise(parts)) if a + b in scores]
        if not found:
            return parts
        _, i = min(found)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


WORDS = st.dictionaries(st.text("abc", min_size=2, max_size=6), st.integers(-3, 0).map(float), max_size=25)


@settings(max_examples=400, deadline=None)
@given(text=st.text("abc", max_size=40), scores=WORDS)
def test_it_is_the_simple_way_also_with_equal_scores(text, scores):
    assert merge_best(text, scores) == simple(text, scores)
    data = [character.encode() for character in text]
    assert merge_best(data, {word.encode(): score for word, score in scores.items()}) == simple(
        data, {word.encode(): score for word, score in scores.items()}
    )


def words(n: int) -> list[str]:
    draw = random.Random(0)
    return sorted({"".join(draw.choices("▁abcde天气", k=draw.randint(1, 5))) for _ in range(n)}, key=len)


def llama2c() -> Llama2cTokenizer:
    made = [b"", b"", b"", *(bytes([byte]) for byte in range(256)), *(word.replace("▁", " ").encode() for word in words(300))]
    return Llama2cTokenizer(made, [0.0] * (FIRST_BYTE + 256) + [-float(i % 90) for i in range(len(made) - FIRST_BYTE - 256)])


def sentencepiece() -> SentencePiece:
    rows = [("<unk>", 0.0, UNKNOWN), *((word, -float(i % 90), NORMAL) for i, word in enumerate(words(300)))]
    return SentencePiece(Model(rows, BPE, {}, b"", True, False, b""))


@settings(max_examples=100, deadline=None)
@given(text=st.text("abcde 天气好", min_size=1, max_size=40))
def test_llama2cs_ids_are_those_of_the_simple_way(text):
    tokenizer = llama2c()
    known = {piece: id for id, piece in reversed(list(enumerate(tokenizer.pieces))) if id >= FIRST_BYTE + 256}
    symbols = [
        part for c in " " + text for part in ([c.encode()] if c.encode() in known else [bytes([byte]) for byte in c.encode()])
    ]
    parts = simple(symbols, {piece: tokenizer.scores[id] for piece, id in known.items()})
    assert tokenizer.encode(text) == [known[part] if part in known else FIRST_BYTE + part[0] for part in parts]


@pytest.mark.parametrize("make", [llama2c, sentencepiece])
def test_a_long_text_takes_no_square_of_its_length(make):
    tokenizer = make()
    text = "".join(random.Random(1).choices("abcde 天气", k=20_000))
    began = time.perf_counter()
    ids = tokenizer.encode(text)
    assert time.perf_counter() - began < 5  # the simple way takes minutes
    assert tokenizer.decode(ids) == text
