"""Chats are judged letter for letter, and a conversation that leaves no room for a reply gets none."""

from itertools import islice

import pytest

from chainrule.core.errors import DataError
from chainrule.eval import chats as judge
from chainrule.eval.results import ChatScore
from chainrule.hub.fresh import fresh
from chainrule.hub.lm import LM
from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.chat import CHATML, IM_END, IM_START, ChatTemplate
from chainrule.world.chats import Chat
from chainrule.world.chats import chats as world_chats


def test_a_conversation_that_fills_the_context_gets_no_reply_and_that_is_said(capsys):
    tokenizer = BPE.train(["what is 3 + 4?"], 280, pattern="cl100k", specials=("<|endoftext|>", IM_START, IM_END))
    model = fresh(vocab_size=tokenizer.vocab_size, context=48, n_layers=1, d_model=16, n_heads=2, n_kv_heads=2, d_ff=16,
                  rope_theta=1e4, tied=True, init="normal", seed=0)  # fmt: skip
    lm = LM(model, tokenizer, ChatTemplate(CHATML, tokenizer))
    short, long = [{"role": "user", "content": "3 + 4?"}], [{"role": "user", "content": "3 + 4? " * 20}]
    said = judge.replies(lm, [long, short], max_tokens=3)
    told = "1 of 2 questions are longer than the 48 tokens that the model reads, and count as wrong\n"
    assert capsys.readouterr().err == told
    assert said[0] == ""
    assert said[1] == lm.chat(short, max_tokens=3, temperature=0.0)
    assert judge.replies(lm, [short], max_tokens=3) == said[1:]
    assert capsys.readouterr().err == ""


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


def said(right: str, kind: str) -> Chat:
    """A chat with this one right answer."""
    return Chat(({"role": "user", "content": "?"}, {"role": "assistant", "content": right}), "en", kind, (right,), right)


def test_the_majority_answer_puts_the_most_frequent_value_into_the_right_sentence_by_hand():
    known = [said(f"{who} is in the park.", "recall") for who in ("Tom", "Ben")]
    known += [said("Tom is in the farm.", "recall"), said("Tom is a baker.", "recall"), said("Tom has 1 hat.", "counts")]
    asked = [said("Eve is in the farm.", "recall"), said("Eve is a miner.", "recall"), said("Eve has 3 cups.", "counts")]
    assert judge.majority(known)(asked) == ["Eve is in the park.", "Eve is a baker.", "Eve has 1 cups."]


def test_every_answer_tells_a_value():
    kinds = {"recall": {"place", "job"}, "counts": {"count"}, "arithmetic": {"sum", "difference"}, "programs": {"program"}}
    for language in ("en", "zh"):
        for kind, wanted in kinds.items():
            chats = list(islice(world_chats(1, language=language, kind=kind), 60))
            values = [judge.value_in(chat) for chat in chats]
            assert {what for what, _ in values} == wanted
            for chat, (what, value) in zip(chats, values, strict=True):
                right, wrong = chat.accepts[0], chat.wrong[0]
                assert right[value]
                if what != "program":  # a false answer says another value in the same sentence
                    assert wrong.startswith(right[: value.start])
                    assert wrong[value.start :] != right[value.start :]


def test_the_majority_answer_is_right_now_and_then_and_far_from_often():
    answer = judge.majority(islice(world_chats(0), 3000))
    scores = judge.score("majority answer", "majority", answer, judge.questions(200, ("en", "zh")))
    for language in ("en", "zh"):
        share = {row.kind: row.right / row.asked for row in scores if row.language == language}
        assert share["counts"] > 0.05
        assert 0.03 < sum(share.values()) / len(share) < 0.3


def test_the_best_system_is_the_best_of_each_language():
    def scores(system: str, en: int, zh: int) -> list[ChatScore]:
        return [ChatScore(system=system, role="ngram", language=language, kind=kind, right=right, asked=9)
                for language, right in (("en", en), ("zh", zh)) for kind in ("recall", "counts")]  # fmt: skip

    found = judge.best([scores("2-gram", 1, 3), scores("4-gram", 2, 0)])
    assert [(row.system, row.language, row.right) for row in found] == [
        ("4-gram", "en", 2), ("4-gram", "en", 2), ("2-gram", "zh", 3), ("2-gram", "zh", 3)
    ]  # fmt: skip
