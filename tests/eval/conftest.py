"""A complete, made-up set of results, every part of a report in it; and toy models that a reader can compute."""

import math
from types import SimpleNamespace

import pytest
import torch

from chainrule.core.model import LanguageModel
from chainrule.core.tokenizer import Tokenizer
from chainrule.eval.results import (
    ChatScore,
    Comparison,
    Cost,
    Curve,
    Machine,
    ModelFacts,
    NextPhrase,
    NextProbe,
    Odds,
    OrderProbe,
    Results,
    Rung,
    Sample,
    SeedResult,
    Turn,
)

TRUTH = {"en": 0.512, "zh": 0.634}


def _ladder() -> tuple[Rung, ...]:
    rungs = [Rung(name="uniform", family="uniform", bits_per_byte={"en": 8.006, "zh": 8.006}, parameters=0)]
    for family, starts in (("bytes", (4.6, 2.9, 1.9, 1.4, 1.1, 0.93)), ("tokens", (1.9, 0.99, 0.81, 0.77, 0.78, 0.80))):
        for order, bits in enumerate(starts, 1):
            bpb = {"en": bits, "zh": bits * 1.1}
            name = f"{family} {order}-gram"
            size = 257**2 * order * 3
            rungs.append(
                Rung(
                    name=name,
                    family=family,
                    order=order,
                    bits_per_byte=bpb,
                    parameters=size,
                    tokens_per_s=2.1e6 / order,
                )
            )
    rungs.append(
        Rung(
            name="tokens 6-gram, ML",
            family="tokens",
            order=6,
            bits_per_byte={"en": None, "zh": None},
            parameters=812_334,
        )
    )
    model = {"en": 0.541, "zh": 0.668}
    rungs.append(Rung(name="Transformer", family="model", bits_per_byte=model, parameters=1_912_320, tokens_per_s=61_500))
    rungs.append(Rung(name="truth", family="truth", bits_per_byte=TRUTH, tokens_per_s=72_000))
    return tuple(rungs)


def _curves() -> tuple[Curve, ...]:
    steps = [round(1000 * 1.09**i) for i in range(1, 97)]
    return tuple(
        Curve(
            name=f"held-out, {name}",
            language=key,
            points=tuple((t, TRUTH[key] * (1.055 + 9 * math.exp(-((t / 2.5e4) ** 0.42)))) for t in steps[::3]),
        )
        for key, name in (("en", "English"), ("zh", "中文"))
    )


def _chats() -> tuple[ChatScore, ...]:
    rows = []
    for language in ("en", "zh"):
        for system, role, rights in (
            ("majority answer", "majority", (14, 9, 3, 0)),
            ("best n-gram", "ngram", (31, 18, 6, 2)),
            ("Transformer before SFT", "before", (0, 0, 2, 0)),
            ("Transformer after SFT", "after", (98, 94, 91, 97)),
        ):
            for kind, right in zip(("recall", "counts", "arithmetic", "programs"), rights, strict=True):
                rows.append(ChatScore(system=system, role=role, language=language, kind=kind, right=right, asked=100))
    return tuple(rows)


def _order() -> OrderProbe:
    return OrderProbe(
        plain="今天我来到了仙II-212。",
        fronted="今天仙II-212我来到了。",
        expected=math.log(20),
        odds=(
            Odds(name="tokens 1-gram", family="tokens", plain=-31.2, fronted=-31.2),
            Odds(name="tokens 2-gram", family="tokens", plain=-12.1, fronted=-16.9),
            Odds(name="tokens 3-gram, ML", family="tokens", plain=-9.4, fronted=None),
            Odds(name="tokens 6-gram", family="tokens", plain=-8.1, fronted=-11.0),
            Odds(name="Transformer", family="model", plain=-7.95, fronted=-10.9),
            Odds(name="truth", family="truth", plain=-7.9, fronted=-7.9 - math.log(20)),
        ),
    )


def _next() -> tuple[NextProbe, ...]:
    places = (
        ("学校", 0.2, 0.211),
        ("图书馆", 0.15, 0.141),
        ("仙II-212", 0.1, 0.097),
        ("公园", 0.1, 0.108),
        ("家", 0.05, 0.047),
    )
    weather = (
        ("很好", 0.3, 0.309),
        ("不好", 0.2, 0.188),
        ("很热", 0.15, 0.19),
        ("很冷", 0.1, 0.1),
        ("有雨", 0.08, 0.07),
    )
    return tuple(
        NextProbe(
            prompt=prompt,
            language="zh",
            phrases=tuple(NextPhrase(text=text, truth=truth, model=model) for text, truth, model in rows),
            top=top,
        )
        for prompt, rows, top in (
            ("今天我来到了", places, tuple(row[0] for row in places)),
            ("今天的天气", weather, ("很好", "很热", "不好", "很冷", "一般")),
        )
    )


@pytest.fixture
def results() -> Results:
    """Results with every part filled."""
    return Results(
        name="quickstart",
        source="world 1",
        world="1",
        seed=0,
        chainrule="0.1.0",
        machine=Machine(device="cpu", threads=2, dtype="bf16", python="3.11.2", torch="2.13.0"),
        model=ModelFacts(parameters=1_912_320, vocab_size=1024, shape="4 layers, 192 wide, 6 heads"),
        ladder=_ladder(),
        curves=_curves(),
        comparisons=(
            Comparison(
                first="Transformer",
                second="tokens 4-gram",
                language="en",
                difference=-0.229,
                low=-0.236,
                high=-0.222,
                documents=400,
            ),
            Comparison(
                first="Transformer",
                second="tokens 4-gram",
                language="zh",
                difference=-0.179,
                low=-0.187,
                high=-0.171,
                documents=400,
            ),
        ),
        samples=(
            Sample(stage="step 0", language="en", text="q~\x00 <b>7é� \n  zz|the", prompt="Tom "),
            Sample(
                stage="step 200",
                language="en",
                text="went to the the school and and Anna has two apple.",
                prompt="Tom ",
            ),
            Sample(
                stage="pretrained",
                language="en",
                text="went to the library. He had three red apples and gave one of them to Anna. How many apples does Tom have now? Two.",
                prompt="Tom ",
            ),
            Sample(stage="step 0", language="zh", text="�仙2b 的的��", prompt="今天"),
            Sample(
                stage="pretrained",
                language="zh",
                text="我来到了仙II-212。今天的天气很好。小明有三个苹果，他给了小红一个苹果。小明现在有几个苹果？两个。",
                prompt="今天",
            ),
        ),
        dialogues=(
            (
                Turn(role="user", text="Tom has 3 apples and gives one to Anna. How many apples does Tom have?"),
                Turn(role="assistant", text="Tom has two apples."),
                Turn(role="user", text="你是谁？"),
                Turn(role="assistant", text="我是一个很小的语言模型，在一台笔记本电脑上训练了几分钟。"),
            ),
        ),
        chats=_chats(),
        order=_order(),
        next=_next(),
        seeds=tuple(
            SeedResult(seed=seed, bits_per_byte={"en": en, "zh": zh}, chat_accuracy={"en": a, "zh": b})
            for seed, en, zh, a, b in (
                (0, 0.541, 0.668, 0.95, 0.95),
                (1, 0.543, 0.671, 0.94, 0.96),
                (2, 0.539, 0.665, 0.96, 0.93),
            )
        ),
        costs=(
            Cost(stage="world and n-grams", seconds=48.2, memory_bytes=910_000_000),
            Cost(stage="pretraining", seconds=270.4, tokens=8_310_000, memory_bytes=1_730_000_000),
            Cost(stage="fine-tuning", seconds=118.9, tokens=3_020_000, memory_bytes=1_640_000_000),
            Cost(stage="evaluation and report", seconds=57.1, memory_bytes=1_200_000_000),
        ),
        commands=("chainrule chat runs/quickstart", 'chainrule next runs/quickstart "今天我来到了"'),
    )


class Uniform(LanguageModel):
    """Every one of ``vocab_size`` tokens is equally likely, except that ``never`` has probability 0."""

    def __init__(self, vocab_size: int, context: int | None = None, never: int | None = None) -> None:
        super().__init__()
        self.vocab_size, self.context, self.never = vocab_size, context, never

    def hidden(self, tokens, cache=None, *, layout=None, given=None, tap=None):
        return torch.zeros(*tokens.shape, 1)

    def readout(self, hidden):
        scores = hidden.expand(*hidden.shape[:-1], self.vocab_size).clone()
        if self.never is not None:
            scores[..., self.never] = -torch.inf
        return scores


class Reader(LanguageModel):
    """A model whose scores depend on the position within the window and on the last token, to test bookkeeping."""

    def __init__(self, vocab_size: int, context: int | None = None) -> None:
        super().__init__()
        self.vocab_size, self.context, self.longest = vocab_size, context, 0
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("table", torch.randn(vocab_size, vocab_size, generator=generator))

    def hidden(self, tokens, cache=None, *, layout=None, given=None, tap=None):
        self.longest = max(self.longest, tokens.shape[1])
        return self.table[tokens]

    def readout(self, hidden):
        return hidden


class Bytes(Tokenizer):
    """Bytes as ids 0 to 255; 256 begins and ends a document unless ``ends`` is False. A lossy one knows small letters alone."""

    def __init__(self, ends: bool = True, lossless: bool = True) -> None:
        self.vocab_size = 257
        self.lossless = lossless
        self.specials = {"<|endoftext|>": 256}
        self.eos = (256,) if ends else ()

    def encode(self, text):
        return list((text if self.lossless else text.lower()).encode())

    def decode(self, ids, *, specials=False):
        return bytes(id for id in ids if id < 256).decode(errors="replace")

    def token_bytes(self, id):
        return bytes([id]) if id < 256 else b""

    def save(self, folder):
        raise NotImplementedError


@pytest.fixture
def toys():
    """Small models and a byte tokenizer whose numbers can be worked out by hand."""
    return SimpleNamespace(Uniform=Uniform, Reader=Reader, Bytes=Bytes)


@pytest.fixture
def as_a_gpu_attends(monkeypatch):
    """In the products' format, short rows too: what a plan counts."""
    monkeypatch.setattr("chainrule.layers.attention.SHORT", 0)
