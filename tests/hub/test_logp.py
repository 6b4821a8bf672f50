"""``logp`` and ``score`` judge a text alike, whether its tokenizer puts a token before every text, has one, or has none; and
``logp_begins`` is the probability of all rows of tokens that begin with a text."""

import math

import pytest
import torch

from chainrule.core.chat import Chat, Embedder, Scorer
from chainrule.core.errors import RequestError
from chainrule.hub.lm import LM
from chainrule.models.ngram import NGram
from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.patterns import split_pattern


@pytest.mark.parametrize(("bos", "eos"), [("<|endoftext|>", "<|endoftext|>"), (None, "<|endoftext|>"), (None, None)])
def test_without_a_prompt_logp_is_the_total_of_score(bos, eos):
    tokenizer = BPE({bytes([byte]): byte for byte in range(256)}, [], pattern=split_pattern("gpt2"), specials={"<|endoftext|>": 256},
                    bos=bos, eos=eos)  # fmt: skip
    lm = LM(NGram.fit([[256, *b"a bat, a cat", 256], [256, *b"the cat", 256]], order=3, vocab_size=257), tokenizer)
    assert lm.logp("a cat") == pytest.approx(lm.score("a cat").total, abs=1e-6)
    assert lm.logp("") == 0
    assert lm.logp_begins("a cat") == pytest.approx(lm.logp("a cat"), abs=1e-6)  # every byte is a token
    if eos:
        assert lm.logp("a cat") < lm.logp(" cat", prompt="a")


END = "<|endoftext|>"
MERGES = [pair for one in "好。小！" for byte in [one.encode()] for pair in [(byte[:1], byte[1:2]), (byte[:2], byte[2:])]]
MERGES += [("。".encode(), "小".encode()), (b"m", b"e"), (b"i", b"me"), (b"t", b"ime")]
SYMBOLS = [*(bytes([byte]) for byte in range(256)), *(left + right for left, right in MERGES)]


@pytest.fixture(scope="module")
def spelt() -> LM:
    """A bigram of eight texts: each character is a token, and so are 。小 and time, whose beginnings are several tokens."""
    vocab = {symbol: id for id, symbol in enumerate(SYMBOLS)}
    specials = {END: len(SYMBOLS)}
    tokenizer = BPE(vocab, MERGES, pattern=r"[\s\S]+", specials=specials, bos=END, eos=END)
    texts = ["好。", "好。小", "好。！", "好！", "time", "tip", "to", "to"]
    documents = [tokenizer.framed(tokenizer.encode(text)) for text in texts]
    return LM(NGram.fit(documents, order=2, vocab_size=len(SYMBOLS) + 1, smoothing="mle"), tokenizer)


def begun(lm: LM, text: str) -> float:
    """The definition: the probability of all rows of tokens whose bytes begin with the text, each cut where they first do."""
    total, rows = 0.0, [(1.0, [lm.tokenizer.bos], b"")]
    while rows:
        p, row, said = rows.pop()
        for id, share in enumerate(lm.model(torch.tensor([row]))[0, -1].exp().tolist()):
            longer = said + lm.tokenizer.token_bytes(id)
            if longer.startswith(text.encode()):
                total += p * share
            elif share > 0 and longer != said and text.encode().startswith(longer):
                rows.append((p * share, [*row, id], longer))
    return total


@pytest.mark.parametrize(
    ("text", "share", "alone"),
    [
        ("好", 4 / 8, 4 / 8),
        ("好。", 3 / 8, 2 / 8),  # 。 twice, and 。小
        ("好。小", 1 / 8, 1 / 8),
        ("t", 4 / 8, 3 / 8),  # t three times, and time
        ("ti", 2 / 8, 1 / 8),  # t i once, and time
        ("tim", 1 / 8, 0.0),
        ("time", 1 / 8, 1 / 8),
        ("tic", 0.0, 0.0),
    ],
)
def test_a_beginning_is_as_likely_as_all_rows_of_tokens_that_begin_with_it(spelt, text, share, alone):
    assert math.exp(spelt.logp_begins(text)) == pytest.approx(share) == begun(spelt, text)
    assert math.exp(spelt.logp(text)) == pytest.approx(alone)


def test_nothing_is_no_beginning(spelt):
    with pytest.raises(RequestError, match="too short to be judged"):
        spelt.logp_begins("")


def test_applications_may_chat_with_it_and_score_but_not_embed():
    lm = LM(NGram.fit([[0, 1, 0]], order=2, vocab_size=2))
    assert isinstance(lm, Chat)
    assert isinstance(lm, Scorer)
    assert not isinstance(lm, Embedder)
