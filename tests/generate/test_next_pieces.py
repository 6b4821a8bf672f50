"""Pieces of a model of bytes: whole words, each once, with the probability of the word and not of what follows it."""

import pytest
import torch

from chainrule.core.errors import RequestError
from chainrule.core.model import LanguageModel
from chainrule.generate import next as search
from chainrule.generate.next import next_pieces
from chainrule.models.ngram import NGram
from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.byte import ByteTokenizer

TOKENIZER = ByteTokenizer()


def counted(text: str) -> NGram:
    return NGram.fit([[256, *text.encode(), 256]], order=7, vocab_size=257, smoothing="mle")


@pytest.mark.parametrize(
    ("text", "prompt", "expected"),
    [
        ("今天晴朗。今天晴朗、今天晴朗。", "今天", {"晴朗": 1.0}),  # 。 and 、 begin with the same two bytes
        ("今天晴朗。今天晴杗、今天晴朗。", "今天", {"晴": 1.0}),  # 朗 and 杗 begin with the same byte
        ("今天晴。今天阴、今天阴。今天雨", "今天", {"阴": 1 / 2, "晴": 1 / 4, "雨": 1 / 4}),
    ],
)
def test_a_word_is_given_once_with_its_own_probability(text, prompt, expected):
    found = next_pieces(counted(text), TOKENIZER, [256, *prompt.encode()], 4)
    assert len(found) == len(expected)
    assert dict(found) == pytest.approx(expected, abs=1e-6)


def test_two_ways_to_say_a_piece_are_one_piece():
    tokenizer = BPE({**{bytes([byte]): byte for byte in range(256)}, b"sun": 256, b"sun.": 257}, None, pattern="x",
                    specials={"<|endoftext|>": 258}, eos="<|endoftext|>")  # fmt: skip
    said = [258, 256, 46, 10] * 2 + [258, 257, 10] + [258, 97, 10]
    model = NGram.fit([[*said, 258]], order=3, vocab_size=259, smoothing="mle")
    for k in (3, 2, 1):
        best = list({"sun": 3 / 4, "a": 1 / 4}.items())[:k]
        assert dict(next_pieces(model, tokenizer, [258], k)) == pytest.approx(dict(best), abs=1e-6)


class Dice(LanguageModel):
    """Draws every byte anew, each with a probability of its own."""

    vocab_size = 257

    def __init__(self) -> None:
        super().__init__()
        self.scores = torch.randn(257, generator=torch.Generator().manual_seed(0)) / 9

    def hidden(self, tokens, cache=None, *, layout=None, given=None, tap=None):
        return torch.zeros(*tokens.shape, 1)

    def readout(self, hidden):
        return self.scores.expand(*hidden.shape[:-1], -1)


def test_every_piece_is_found_however_many_are_asked_for():
    found = next_pieces(Dice(), TOKENIZER, [1], 200)
    p = Dice().scores.softmax(-1).tolist()
    letters = {chr(byte): p[byte] for byte in range(128) if not chr(byte).isspace()}
    assert len(found) == 200  # letters, and characters of two bytes
    assert {text: share for text, share in found if text in letters} == pytest.approx(letters, rel=1e-4)
    assert [share for _, share in found] == sorted((share for _, share in found), reverse=True)


def test_a_search_that_finds_no_end_says_so(monkeypatch):
    monkeypatch.setattr(search, "BEGINNINGS", 1)
    with pytest.raises(RequestError, match="ask for fewer: k="):
        next_pieces(Dice(), TOKENIZER, [1], 5)


def test_an_empty_prompt_is_refused():
    with pytest.raises(RequestError, match="the prompt is empty"):
        next_pieces(counted("Yes."), TOKENIZER, [], 1)
