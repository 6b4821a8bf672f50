"""How many questions a model answers exactly: held-out chats of the world, by language and kind.

A reply counts if it is one of the right ones, letter for letter. Beside the model stand those whom it must beat: the majority
answer, which is given the sentence and puts in the value that was most often right, and n-grams that have read the same chats.
"""

import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import islice
from typing import Any, Literal

from chainrule.core.errors import DataError
from chainrule.eval.results import ChatScore
from chainrule.generate.engine import Engine
from chainrule.hub.lm import LM
from chainrule.world import chats as world_chats
from chainrule.world.chats import ASKED, Chat, grade
from chainrule.world.texts import TONGUES

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

    A conversation that fills the model's whole context gets no reply: nothing of it is cut away to make room for one. How many
    there are is said on stderr.
    """
    engine = Engine(lm.model, lm.tokenizer, rows=ROWS)
    prompts = [lm.chat_ids(messages) for messages in conversations]
    fits = [i for i, ids in enumerate(prompts) if lm.model.context is None or len(ids) < lm.model.context]
    if len(fits) < len(prompts):
        longer = f"{len(prompts) - len(fits)} of {len(prompts)} questions are longer than the {lm.model.context} tokens"
        print(f"{longer} that the model reads, and count as wrong", file=sys.stderr)
    order = sorted(fits, key=lambda i: len(prompts[i]))  # rows of like length run together
    ids = {engine.submit(lm.request(prompts[i], temperature=0.0, max_tokens=max_tokens)): i for i in order}
    answers = [""] * len(prompts)
    while engine.busy:
        for event in engine.step():
            answers[ids[event.id]] += event.text
    return answers


def answering(lm: LM) -> Answer:
    """A model as something that answers chats."""
    return lambda asked: replies(lm, [chat.asked for chat in asked])


def majority(known: Iterable[Chat]) -> Answer:
    """Says to every question the value that was most often right where the same was asked, whatever the story.

    Whom and what the question is about it is told: it gets the right answer with its value taken out (``value_in``), and puts
    in the most frequent place, job, count, result or program.
    """
    counts: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    for chat in known:
        what, value = value_in(chat)
        counts[chat.language, chat.kind, what][chat.accepts[0][value]] += 1
    best = {key: values.most_common(1)[0][0] for key, values in counts.items()}

    def answer(chat: Chat) -> str:
        what, value = value_in(chat)
        right = chat.accepts[0]
        return right[: value.start] + best.get((chat.language, chat.kind, what), "") + right[value.stop :]

    return lambda asked: [answer(chat) for chat in asked]


def value_in(chat: Chat) -> tuple[str, slice]:
    """What a right answer tells, and where the value stands in it; of a program the whole is the value."""
    right = chat.accepts[0]
    for what, frame in _frames(chat.language).items():
        match = frame.fullmatch(right)
        if match:
            return what, slice(*match.span("value"))
    return "program", slice(0, len(right))


@cache
def _frames(language: str) -> dict[str, re.Pattern[str]]:
    """The answers of a language by what they tell."""
    t = TONGUES[language]
    number = r"(?P<value>\d+)"
    return {
        "place": _frame(t.is_at[0], place="(?P<value>.+)"),
        "job": _frame(t.has_job[0], job="(?P<value>.+)"),
        "count": _frame(t.holds[0], things=f"{number}.+"),
        "sum": _frame(t.plus + t.result, c=number),
        "difference": _frame(t.minus + t.result, c=number),
    }


def _frame(pattern: str, **slots: str) -> re.Pattern[str]:
    """A pattern of the world as a regular expression; slots that are not given hold anything."""
    return re.compile(re.sub(r"\\\{(\w+)\\\}", lambda slot: slots.get(slot[1], ".+"), re.escape(pattern.strip())))


def best(systems: Sequence[list[ChatScore]]) -> list[ChatScore]:
    """In each language the scores of the system that answers most of its questions."""
    chosen: list[ChatScore] = []
    for language in dict.fromkeys(row.language for scores in systems for row in scores):
        each = [[row for row in scores if row.language == language] for scores in systems]
        chosen += max(each, key=lambda rows: sum(row.right for row in rows))
    return chosen


def score(system: str, role: Role, answer: Answer, asked: Sequence[Chat]) -> list[ChatScore]:
    """How many of the questions of each language and kind a system answers exactly."""
    right: Counter[tuple[str, str]] = Counter()
    total: Counter[tuple[str, str]] = Counter()
    for chat, text in zip(asked, answer(asked), strict=True):
        total[chat.language, chat.kind] += 1
        right[chat.language, chat.kind] += grade(chat, text)
    return [
        ChatScore(system=system, role=role, language=language, kind=kind, right=right[language, kind], asked=n)
        for (language, kind), n in total.items()
    ]
