"""The likeliest continuations: whole words with probabilities that a reader can count, under any tokenizer."""

import pytest

from chainrule.core.errors import RequestError
from chainrule.generate.next import next_pieces
from chainrule.hub.fresh import fresh
from chainrule.models.ngram import NGram
from chainrule.tokenizers.byte import ByteTokenizer

TOKENIZER = ByteTokenizer()


def counted(text: str) -> NGram:
    return NGram.fit([[256, *text.encode(), 256]], order=7, vocab_size=257, smoothing="mle")


@pytest.mark.parametrize(
    ("text", "prompt", "expected"),
    [
        ("It is sun. It is sun. It is rain. ", "It is ", {"sun": 2 / 3, "rain": 1 / 3}),
        ("今天晴朗。今天晴朗。今天下雨。今天晴。", "今天", {"晴": 3 / 4, "下雨": 1 / 4}),
    ],
)
def test_words_have_the_shares_that_one_can_count(text, prompt, expected):
    """A model of bytes answers in words; 晴 is not surely followed by 朗 and so stands alone."""
    found = dict(next_pieces(counted(text), TOKENIZER, [256, *prompt.encode()], 2))
    assert found == pytest.approx(expected, abs=1e-6)


def test_the_end_of_a_text_is_named():
    assert next_pieces(counted("Yes."), TOKENIZER, [256, *b"Yes."], 1) == [("<|endoftext|>", pytest.approx(1.0))]


def test_a_prompt_longer_than_the_context_is_refused_and_a_piece_ends_where_the_context_does():
    model = fresh(vocab_size=257, context=8, n_layers=2, d_model=16, n_heads=2, n_kv_heads=2, d_ff=16, rope_theta=1e4,
                  tied=True, init="normal", seed=0).eval()  # fmt: skip
    with pytest.raises(RequestError, match="9 tokens long"):
        next_pieces(model, TOKENIZER, [1] * 9, 2)
    found = next_pieces(model, TOKENIZER, [1] * 8, 3)
    assert len(found) == 3
    assert all(0 < p < 1 for _, p in found)
