"""``logp`` and ``score`` judge a text alike, whether its tokenizer puts a token before every text, has one, or has none."""

import pytest

from chainrule.core.chat import Chat, Embedder, Scorer
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
    if eos:
        assert lm.logp("a cat") < lm.logp(" cat", prompt="a")


def test_applications_may_chat_with_it_and_score_but_not_embed():
    lm = LM(NGram.fit([[0, 1, 0]], order=2, vocab_size=2))
    assert isinstance(lm, Chat)
    assert isinstance(lm, Scorer)
    assert not isinstance(lm, Embedder)
