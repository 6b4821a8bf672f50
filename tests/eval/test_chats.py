"""Chats are judged letter for letter, and a conversation that leaves no room for a reply gets none."""

import pytest

from chainrule.core.errors import DataError
from chainrule.eval import chats as judge
from chainrule.hub.build import fresh
from chainrule.hub.lm import LM
from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.chat import CHATML, IM_END, IM_START, ChatTemplate


def test_a_conversation_that_fills_the_context_gets_no_reply():
    tokenizer = BPE.train(["what is 3 + 4?"], 280, pattern="cl100k", specials=("<|endoftext|>", IM_START, IM_END))
    model = fresh(vocab_size=tokenizer.vocab_size, context=48, n_layers=1, d_model=16, n_heads=2, n_kv_heads=2, d_ff=16,
                  rope_theta=1e4, tied=True, init="normal", seed=0)  # fmt: skip
    lm = LM(model, tokenizer, ChatTemplate(CHATML, tokenizer))
    short, long = [{"role": "user", "content": "3 + 4?"}], [{"role": "user", "content": "3 + 4? " * 20}]
    said = judge.replies(lm, [long, short], max_tokens=3)
    assert said[0] == ""
    assert said[1] == lm.chat(short, max_tokens=3, temperature=0.0)


def test_only_exact_answers_count_and_every_kind_is_asked():
    asked = judge.questions(8, ("en", "zh"))
    perfect = judge.score("perfect", "after", lambda chats: [f" {chat.accepts[-1]}\n" for chat in chats], asked)
    assert [(one.language, one.kind, one.right, one.asked) for one in perfect] == [
        (language, kind, 2, 2) for language in ("en", "zh") for kind in ("recall", "counts", "arithmetic", "programs")
    ]
    close = judge.score("close", "after", lambda chats: [chat.accepts[0] + "!" for chat in chats], asked)
    assert sum(one.right for one in close) == 0
    with pytest.raises(DataError, match="at least"):
        judge.questions(3, ("en",))


def test_the_majority_answer_says_what_was_most_often_right():
    asked = judge.questions(8, ("en",))
    answer = judge.majority(asked)
    for chat, said in zip(asked, answer(asked), strict=True):
        assert any(said in other.accepts for other in asked if other.kind == chat.kind)
