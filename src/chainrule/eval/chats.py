"""How many questions a model answers exactly: held-out chats of the world, by language and kind.

A reply counts if it is one of the right ones, letter for letter. Beside the model stand those whom it must beat: the majority
answer, which says what was most often right, and an n-gram that has read the same chats.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Literal

from chainrule.core.errors import DataError
from chainrule.eval.results import ChatScore
from chainrule.generate.engine import Engine
from chainrule.hub.lm import LM
from chainrule.world import chats as world_chats
from chainrule.world.chats import ASKED, Chat, grade

Role = Literal["majority", "ngram", "before", "after"]
Answer = Callable[[Sequence[Chat]], list[str]]
MOST_TOKENS = 48
ROWS = 128


def questions(per_language: int, languages: Sequence[str], *, seed: int = 0) -> list[Chat]:
    """Held-out chats, a quarter of each language's of every kind that is asked."""
    if per_language < len(ASKED):
        raise DataError(f"{per_language} questions per language are fewer than the {len(ASKED)} kinds; ask at least that many")
    each = per_language // len(ASKED)
    return [
        chat
        for language in languages
        for kind in ASKED
        for chat in islice(world_chats(seed, split="heldout", language=language, kind=kind), each)
    ]


def replies(lm: LM, conversations: Iterable[Sequence[dict[str, Any]]], *, max_tokens: int = MOST_TOKENS) -> list[str]:
    """The model's greedy reply to each conversation, all of them at once through the engine.

    A conversation that fills the model's whole context gets no reply: nothing of it is cut away to make room for one.
    """
    engine = Engine(lm.model, lm.tokenizer, rows=ROWS)
    prompts = [lm.chat_ids(messages) for messages in conversations]
    fits = [i for i, ids in enumerate(prompts) if lm.model.context is None or len(ids) < lm.model.context]
    order = sorted(fits, key=lambda i: len(prompts[i]))  # rows of like length run together
    ids = {engine.submit(lm.request(prompts[i], temperature=0.0, max_tokens=max_tokens)): i for i in order}
    said = [""] * len(prompts)
    while engine.busy:
        for event in engine.step():
            said[ids[event.id]] += event.text
    return said


def answering(lm: LM) -> Answer:
    """A model as something that answers chats."""
    return lambda asked: replies(lm, [chat.asked for chat in asked])


def majority(known: Iterable[Chat]) -> Answer:
    """Answers every question with the most frequent right answer to its kind and language."""
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for chat in known:
        counts[chat.language, chat.kind].update(chat.accepts)

    def answer(asked: Sequence[Chat]) -> list[str]:
        best = {key: said.most_common(1)[0][0] for key, said in counts.items()}
        return [best.get((chat.language, chat.kind), "") for chat in asked]

    return answer


def score(system: str, role: Role, answer: Answer, asked: Sequence[Chat]) -> list[ChatScore]:
    """How many of the questions of each language and kind a system answers exactly."""
    right: Counter[tuple[str, str]] = Counter()
    total: Counter[tuple[str, str]] = Counter()
    for chat, said in zip(asked, answer(asked), strict=True):
        total[chat.language, chat.kind] += 1
        right[chat.language, chat.kind] += grade(chat, said)
    return [
        ChatScore(system=system, role=role, language=language, kind=kind, right=right[language, kind], asked=n)
        for (language, kind), n in total.items()
    ]
