"""Chats from the same states as the stories: questions with exact answers, sums, programs, and honesty about the rest.

Every question has one true answer. About a story and to a sum it is a whole sentence, said in two styles, plainly or warmly; in
SFT data both are equally frequent, so that a preference for one can be taught later. ``grade`` accepts either and nothing else.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chainrule.world import drivers
from chainrule.world.choice import Choice
from chainrule.world.drivers import Grammar
from chainrule.world.programs import MOST_TIMES, adding, repeating
from chainrule.world.story import MOST, RESTATED, State, act, answer, arrivals, arrive, people, wordings
from chainrule.world.sums import SUMS, value
from chainrule.world.texts import LANGUAGES, SPLITS, TONGUES, Split, check, held_out
from chainrule.world.tongue import Tongue

KINDS = {
    "recall": 0.23,
    "counts": 0.36,
    "arithmetic": 0.16,
    "calculator": 0.03,
    "programs": 0.14,
    "greeting": 0.02,
    "identity": 0.02,
    "decline": 0.04,
}
ASKED = ("recall", "counts", "arithmetic", "programs")
"""The kinds that an evaluation asks, a quarter each."""
ALONE = ("arithmetic", "calculator", "programs", "greeting", "identity", "decline")
"""The kinds whose questions need no story."""
ASIDES = (0.75, 0.18, 0.07)
"""How likely a chat is to hold no, one or two questions of other kinds, wherever they come up."""
AFTER_A_STORY = 0.08
"""How likely a chat of a kind that needs no story is to follow one."""
SAME_LANGUAGE = 0.8
"""How likely what came up before is in the chat's own language."""

WORDS: dict[str, dict[str, Any]] = {
    "en": {
        "warm": "Sure! {}", "sum": ("{} = ?", "What is {}?", "How much is {}?", "Please work out {}."),
        "write_sum": "Write a program that prints {a} {sign} {b}.",
        "write_word": 'Write a program that prints "{word}" {n} times.',
        "hello": ("Hello!", "Hi!", "Good morning!", "Hello", "hello", "hi"),
        "hello_answer": "Hello! Ask me about a story, a sum or a program.",
        "who": ("Who are you?", "What are you?", "Are you a person?", "What is your name?", "Who made you?", "who are you"),
        "who_answer": "I am a small language model. I was trained by chainrule on a small made-up world.",
        "outside": {
            "{}": ("Tell me the news.", "Tell me a joke.", "What time is it?", "What day is it today?", "Can you sing?",
                   "Do you like music?", "Can you see me?", "How do planes fly?", "Why is the sky blue?"),
            "What is {}?": ("love", "time", "money", "the meaning of life", "a black hole", "democracy"),
            "Who won the {} game?": ("football", "tennis", "chess", "basketball", "hockey"),
            "What is the capital of {}?": ("France", "Spain", "Japan", "Italy", "Egypt", "Peru", "China", "Canada"),
            "How do I cook {}?": ("rice", "noodles", "soup", "fish", "pasta", "dumplings"),
            "Who wrote {}?": ("Hamlet", "Faust", "Emma", "Ulysses", "the Odyssey", "Don Quixote"),
            "How far away is {}?": ("the moon", "the sun", "Mars", "London", "Beijing"),
            "Who is the president of {}?": ("France", "Brazil", "Mexico", "Kenya", "Poland"),
        },
        "outside_answer": "I do not know that. I only know the small world I was trained on.",
    },
    "zh": {
        "warm": "好的，{}", "sum": ("{}等于几？", "{}是多少？", "请算一算{}。", "你知道{}等于几吗？"),
        "write_sum": "写一个输出{a} {sign} {b}的程序。",
        "write_word": '写一个把"{word}"输出{n}次的程序。',
        "hello": ("你好！", "您好！", "早上好！", "你好", "你好。", "嗨！"),
        "hello_answer": "你好！你可以问我故事、算式或者程序。",
        "who": ("你是谁？", "你是什么？", "你是人吗？", "你叫什么名字？", "谁做的你？", "你是谁"),
        "who_answer": "我是一个小小的语言模型，由chainrule在一个虚构的小世界上训练而成。",
        "outside": {
            "{}": ("说说新闻吧。", "讲个笑话吧。", "现在几点了？", "今天星期几？", "你会唱歌吗？",
                   "你喜欢音乐吗？", "你看得见我吗？", "飞机怎么会飞？", "天为什么是蓝的？"),
            "{}是什么？": ("爱", "时间", "钱", "人生的意义", "黑洞", "民主"),
            "谁赢了{}比赛？": ("足球", "网球", "象棋", "篮球", "乒乓球"),
            "{}的首都是哪里？": ("法国", "西班牙", "日本", "意大利", "埃及", "秘鲁", "中国", "加拿大"),
            "{}怎么做？": ("米饭", "面条", "鸡汤", "红烧鱼", "豆腐", "饺子"),
            "{}是谁写的？": ("红楼梦", "西游记", "三国演义", "水浒传", "史记", "哈姆雷特"),
            "{}离我们有多远？": ("月亮", "太阳", "火星", "伦敦", "北京"),
            "{}的总统是谁？": ("法国", "巴西", "墨西哥", "肯尼亚", "波兰"),
        },
        "outside_answer": "我不知道。我只知道训练我的那个小世界。",
    },
}  # fmt: skip


@dataclass(frozen=True)
class Chat:
    """A conversation that ends with the assistant's reply.

    ``accepts`` lists every right one, ``wrong`` a false one in each of the same styles, where the answer is a fact.
    """

    messages: tuple[dict[str, Any], ...]
    language: str
    kind: str
    accepts: tuple[str, ...]
    facts: str
    wrong: tuple[str, ...] = ()

    @property
    def asked(self) -> tuple[dict[str, Any], ...]:
        """The conversation up to the last reply."""
        return self.messages[:-1]

    def belongs(self, split: Split) -> bool:
        """Whether the chat is of a split, by its facts; a greeting, and who is asked, are of both."""
        return self.kind in ("greeting", "identity") or held_out(self.facts) == (split == "heldout")


@dataclass(frozen=True)
class Asked:
    """A question that stands alone: its right answers, the fact that it asks for, and false answers in the same styles."""

    question: str
    right: tuple[str, ...]
    facts: str
    wrong: tuple[str, ...]


def grade(chat: Chat, reply: str) -> bool:
    """Whether a reply is exactly one of the right ones."""
    return reply.strip() in chat.accepts


def chats(seed: int, *, split: Split = "train", language: str | None = None, kind: str | None = None) -> Iterator[Chat]:
    """Chats without end, the i-th a function of (seed, i) alone; optionally of one language or kind."""
    check("chats", split=(split, SPLITS), language=(language, LANGUAGES), kind=(kind, KINDS))
    i = 0
    while True:
        rng = random.Random(f"chat {seed} {i}")
        chosen = rng.choices(list(KINDS), list(KINDS.values()))[0]
        found = draw(rng, language or rng.choice(LANGUAGES), kind or chosen)
        if found.belongs(split):
            yield found
        i += 1


def draw(rng: random.Random, language: str, kind: str) -> Chat:
    """One chat that ends with a question of a kind, with what may come up before it: a story, questions of other kinds."""
    chat = of_one_kind(rng, language, kind)
    messages = list(chat.messages)
    if kind in ALONE and rng.random() < AFTER_A_STORY:
        messages[:0] = _known(rng, language, ("recall", "counts")).messages
    for _ in range(rng.choices((0, 1, 2), ASIDES)[0]):
        aside = _known(rng, language, tuple(other for other in ALONE if other != kind))
        turns = [i for i, message in enumerate(messages) if message["role"] == "user"]
        where = rng.choice(turns)
        messages[where:where] = aside.messages[max(i for i, one in enumerate(aside.messages) if one["role"] == "user") :]
    return replace(chat, messages=tuple(messages))


def _known(rng: random.Random, language: str, kinds: Sequence[str]) -> Chat:
    """A chat of one of these kinds whose answer training may tell, so that it can stand in a chat of either split."""
    while True:
        spoken = rng.choices(LANGUAGES, [SAME_LANGUAGE if one == language else 1 - SAME_LANGUAGE for one in LANGUAGES])[0]
        chat = of_one_kind(rng, spoken, rng.choice(kinds))
        if chat.belongs("train"):
            return chat


def of_one_kind(rng: random.Random, language: str, kind: str) -> Chat:
    """One chat whose every question is of a kind."""
    t, words = TONGUES[language], WORDS[language]
    if kind in ("recall", "counts"):
        return _about_story(rng, t, kind)
    if kind == "arithmetic":
        return _arithmetic(rng, t, words)
    if kind == "calculator":
        return _calculator(rng, t)
    if kind == "programs":
        return _program(rng, t, words)
    if kind == "decline":
        frame = rng.choice(list(words["outside"]))
        question, reply = frame.format(rng.choice(words["outside"][frame])), words["outside_answer"]
    else:
        ask = {"greeting": "hello", "identity": "who"}[kind]
        question, reply = rng.choice(words[ask]), words[f"{ask}_answer"]
    return Chat(_turn(question, reply), language, kind, (reply,), f"{kind}:{question}")


def _styles(t: Tongue, sentence: str) -> tuple[str, ...]:
    """The two styles of one answer: plainly, and warmly."""
    return sentence.strip(), WORDS[t.code]["warm"].format(sentence.strip())


def _turn(question: str, answer: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"role": "user", "content": question}, {"role": "assistant", "content": answer}


def _several(t: Tongue, kind: str, asked: list[Asked], rng: random.Random) -> Chat:
    """Questions that have nothing to do with each other, in one chat; held out is what is asked in the last turn alone."""
    before = [one for one in asked[:-1] if not held_out(one.facts)]
    turns = [turn for one in before for turn in _turn(one.question, rng.choice(one.right))]
    last = asked[-1]
    turns += _turn(last.question, rng.choice(last.right))
    return Chat(tuple(turns), t.code, kind, last.right, last.facts, last.wrong)


def _arithmetic(rng: random.Random, t: Tongue, words: dict[str, Any]) -> Chat:
    """One to four sums, each asked in one of several ways; sums are held out, not ways of asking."""
    return _several(t, "arithmetic", [_sum(rng, t, words) for _ in range(rng.randint(1, 4))], rng)


def _sum(rng: random.Random, t: Tongue, words: dict[str, Any]) -> Asked:
    a, sign, b = rng.choice(SUMS)
    question = rng.choice(words["sum"]).format(t.sum(a, sign, b).rstrip(" =等于"))
    right, wrong = (_styles(t, t.sum(a, sign, b) + t.result.format(c=c)) for c in (value(a, sign, b), value(a, sign, b) + 1))
    return Asked(question, right, f"sum {a}{sign}{b}", wrong)


def _calculator(rng: random.Random, t: Tongue) -> Chat:
    """A product beyond mental arithmetic: the tool is called, and its result said."""
    a, b = rng.randint(11, 99), rng.randint(11, 99)
    expression, result = f"{a} * {b}", str(a * b)
    sentence = t.result.format(c=result).strip()
    question = f"{expression} = ?" if t.code == "en" else f"{expression} = 几？"
    call = {"type": "function", "function": {"name": "calculator", "arguments": {"expression": expression}}}
    messages = (
        {"role": "user", "content": question},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": result},
        {"role": "assistant", "content": sentence},
    )
    return Chat(messages, t.code, "calculator", (sentence,), expression)


def _program(rng: random.Random, t: Tongue, words: dict[str, Any]) -> Chat:
    """One to three programs to write; what a program is to print is held out."""
    return _several(t, "programs", [_to_write(rng, t, words) for _ in range(rng.randint(1, 3))], rng)


def _to_write(rng: random.Random, t: Tongue, words: dict[str, Any]) -> Asked:
    if rng.random() < 0.5:
        a, sign, b = rng.choice(SUMS)
        # the wrong one has the other sign; with 0 it would print the same
        code, other = adding(a, sign, b)[0], adding(a, "-" if sign == "+" else "+", b or 1)[0]
        return Asked(words["write_sum"].format(a=a, sign=sign, b=b), (code,), f"program {a}{sign}{b}", (other,))
    word, n = rng.choice(t.one), rng.randint(1, MOST_TIMES)
    code, other = repeating(word, n)[0], repeating(word, n % MOST_TIMES + 1)[0]
    return Asked(words["write_word"].format(word=word, n=n), (code,), f"program {word}*{n}", (other,))


def _short_story(t: Tongue, state: State, events: int) -> Grammar:
    """Two people, and some events."""
    for _ in range(2):
        yield arrivals(t)
        yield from arrive(t, state)
    for _ in range(events):
        who = yield people(t, tuple(state.cast), t.subject)
        restated = yield from act(t, state, who)
        if restated:
            again = [(phrase, RESTATED / len(restated), True) for phrase in restated]
            next_subject = yield Choice([*again, *_next_subjects(t, state)])
            if next_subject is not True:
                yield from act(t, state, next_subject)


def _next_subjects(t: Tongue, state: State) -> list[tuple[str, float, Any]]:
    each = (1 - RESTATED) / len(state.cast)
    return [(t.subject.format(name=t.names[who]), each, who) for who in state.cast]


def tell(rng: random.Random, t: Tongue) -> tuple[str, State]:
    """A short story, and what is so at its end."""
    state = State()
    return drivers.sample(_short_story(t, state, rng.randint(2, 5)), rng).text, state


def _about_story(rng: random.Random, t: Tongue, kind: str) -> Chat:
    """A story and one to five questions on it, the last of the kind asked for; of counts only what has changed is asked."""
    told, state = tell(rng, t)
    while kind == "counts" and not state.changed:
        told, state = tell(rng, t)
    askable = ("recall", "counts") if state.changed else ("recall",)
    last = _about(rng, state, kind)
    before = [_about(rng, state, rng.choice(askable)) for _ in range(rng.choice((0, 2, 3, 4)))]
    asked = [*dict.fromkeys(one for one in before if one != last), last]
    messages: list[dict[str, Any]] = []
    accepts: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    for i, about in enumerate(asked):
        asks, accepts = rng.choice(wordings(t, *about)).strip(), _styles(t, answer(t, state, *about))
        wrong = _styles(t, answer(t, _falsified(t, state, *about), *about))
        lead = told + t.ask if i == 0 else ""
        messages += _turn(lead + asks, rng.choice(accepts))
    return Chat(tuple(messages), t.code, kind, accepts, ";".join(state.facts), wrong)


About = tuple[str, int, int]
"""What is asked: where, job or many; of whom; of which thing."""


def _about(rng: random.Random, state: State, kind: str) -> About:
    """A question: of a count that has changed; of a place more often than of a job."""
    who = rng.choice(state.cast)
    if kind == "counts":
        return "many", *rng.choice(state.changed)
    return ("where" if rng.random() < 0.7 else "job"), who, -1


def _falsified(t: Tongue, state: State, kind: str, who: int, thing: int) -> State:
    """The same state but for the one fact that is asked."""
    if kind == "many":
        have = {**state.have[who], thing: (state.have[who][thing] + 1) % (MOST + 1)}
        return replace(state, have={**state.have, who: have})
    if kind == "where":
        return replace(state, place={**state.place, who: (state.place[who] + 1) % len(t.places)})
    return replace(state, job={**state.job, who: (state.job[who] + 1) % len(t.jobs)})
