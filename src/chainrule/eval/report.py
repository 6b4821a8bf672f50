"""The report of a run: ``results.json`` as one HTML page with figures, tables and a few words in two languages.

    page(results).html()        the file report.html
    summary.summary(results)    the same in short, for the terminal

Whatever a run did not measure is left out; nothing is computed here but what ``findings`` derives from the numbers.
"""

import math
from collections.abc import Sequence

from chainrule.eval import findings, tables
from chainrule.eval.results import NextProbe, Results, Rung
from chainrule.pages.figure import Bar, BarChart, Curve, Drawn, GroupedBars, LineChart, Rule, Series
from chainrule.pages.page import Block, Code, Data, Figure, Numbers, Page, Pair, Prose, Samples, Section
from chainrule.pages.text import compact, duration, fixed, percent

TONES = {"uniform": 5, "bytes": 5, "tokens": 2, "model": 1, "truth": 0}
ROLES = {"majority": 5, "ngram": 2, "before": 4, "after": 1}
LANGUAGE_TONES = (1, 2, 3, 4)

LEAD = (
    "A language model, trained from nothing on {source}, taught to chat, and measured against the truth: this language "
    "has a distribution that is known exactly, so how far a model is from it is a number and not an opinion.",
    "这个语言模型从零开始在 {source} 上训练，学会了对话，再与真实分布比较：这种语言的概率分布是精确已知的，"
    "所以模型离它有多远是一个数，而不是一种看法。",
)
LEAD_TEXT = (
    "A language model, trained from nothing on {source} and measured on a part of it that was held out. Nobody knows "
    "the true distribution of such a text, so the n-grams are what there is to beat.",
    "这个语言模型从零开始在 {source} 上训练，并在留出的部分上测量。这样的文本没有人知道它的真实分布，所以要超过的是 n 元模型。",
)


def page(results: Results) -> Page:
    """The whole report; ``.html()`` is the file."""
    known = any(rung.family == "truth" for rung in results.ladder)
    lead = LEAD if known else LEAD_TEXT
    parts = (goals, learning, ladder, samples, chats, order, following, seeds, costs, repeat)
    return Page(
        title=results.name,
        lead=[text.format(source=results.source) for text in lead],
        above=[Numbers(items=numbers(results))],
        sections=[section for part in parts if (section := part(results)) is not None],
        foot=_foot(results),
    )


def numbers(results: Results) -> list[tuple[str, str, str]]:
    """The few numbers at the top."""
    model = findings.trained(results.ladder)
    items: list[tuple[str, str, str]] = []
    for language in findings.languages(results.ladder):
        bits = model.bits_per_byte.get(language) if model else None
        above = findings.above_truth(results.ladder, model, language)
        note = f"{percent(above)} above the truth" if above is not None else ""
        items.append((fixed(bits), f"bits per byte, {findings.spoken(language)}", note))
    right = findings.accuracy(score for score in results.chats if score.role == "after")
    if right is not None:
        asked = sum(score.asked for score in results.chats if score.role == "after")
        items.append((percent(right), "chat questions answered exactly", f"of {compact(asked)}"))
    seconds = sum(cost.seconds for cost in results.costs)
    items.append((duration(seconds), "for everything", f"{results.machine.threads} threads, {results.machine.device}"))
    return items


def goals(results: Results) -> Section | None:
    """What the run set out to show, and whether it did."""
    checks = findings.checks(results)
    if not checks:
        return None
    met = sum(check.met for check in checks)
    text = f"{met} of {len(checks)} goals were met."
    return Section(title="Goals · 目标", blocks=[Prose(paragraphs=[text]), Data(table=tables.checks(checks))])


def learning(results: Results) -> Section | None:
    """Loss against the entropy line."""
    if not results.curves:
        return None
    drawing = LineChart(
        title="Bits per byte while training, against the entropy of the language",
        x="training tokens",
        y="bits per byte",
        curves=[Curve(name=curve.name, points=curve.points, tone=_tone(results, curve.language)) for curve in results.curves],
        rules=_entropies(results),
        log_y=True,
    )
    caption = "Held-out text is text whose facts the model has never read."
    if drawing.rules:
        caption += " The dashed lines are the entropy of the language: no model can stay below them."
    return Section(title="Learning · 学习", blocks=[Figure(drawing=drawing, caption=caption)])


def _tone(results: Results, language: str) -> int:
    known = findings.languages(results.ladder)
    return LANGUAGE_TONES[known.index(language) % len(LANGUAGE_TONES)] if language in known else 5


def _entropies(results: Results) -> list[Rule]:
    truths = [(language, findings.truth(results.ladder, language)) for language in findings.languages(results.ladder)]
    return [
        Rule(name=f"entropy, {findings.spoken(language)}: {fixed(bits)}", value=bits, tone=_tone(results, language))
        for language, bits in truths
        if bits is not None
    ]


def ladder(results: Results) -> Section | None:
    """Every model on one scale, from the uniform guess to the truth."""
    if not results.ladder:
        return None
    text = (
        "Bits per byte: how many bits a model needs to write down one byte of held-out text, "
        "−log₂ p(text, end) over its bytes. The unit does not depend on how a model cuts text into tokens."
    )
    figure = beside(ladder_figures(results.ladder))
    blocks: list[Block] = [Prose(paragraphs=[text]), figure, Data(table=tables.ladder(results.ladder))]
    if results.comparisons:
        caption = "A difference below 0 says that the first is better; the intervals resample whole documents."
        blocks.append(Data(table=tables.comparisons(results.comparisons), caption=caption))
    return Section(title="The ladder · 阶梯", blocks=blocks)


def ladder_figures(rungs: Sequence[Rung]) -> list[tuple[str, Drawn]]:
    """One chart for every language, under its name; bars begin at the truth where it is known."""
    return [(findings.spoken(language), _bars(rungs, language)) for language in findings.languages(rungs)]


def beside(drawings: Sequence[tuple[str, Drawn]]) -> Figure | Pair:
    """Several drawings side by side, or one alone over the full width."""
    return Pair(drawings=drawings) if len(drawings) > 1 else Figure(drawing=drawings[0][1])


def _bars(rungs: Sequence[Rung], language: str) -> BarChart:
    floor = findings.truth(rungs, language)
    return BarChart(
        title=f"Bits per byte of every model, {findings.spoken(language)}",
        unit="bits per byte, log scale from the truth" if floor else "bits per byte",
        bars=[_bar(rung, language) for rung in rungs],
        rules=[Rule(name=f"truth {fixed(floor)}", value=floor)] if floor else [],
        origin=floor or 0.0,
    )


def _bar(rung: Rung, language: str) -> Bar:
    bits = rung.bits_per_byte.get(language)
    return Bar(
        name=rung.name,
        value=float("inf") if bits is None else bits,
        tone=TONES[rung.family],
        strong=rung.family in ("model", "truth"),
    )


def samples(results: Results) -> Section | None:
    """What the model wrote at each stage, and what it says in a chat."""
    blocks: list[Block] = []
    for language in dict.fromkeys(sample.language for sample in results.samples):
        rows = [sample for sample in results.samples if sample.language == language]
        blocks.append(Samples(items=[(sample.stage, sample.prompt + sample.text) for sample in rows]))
    blocks += [Samples(items=[(turn.role, turn.text) for turn in dialogue]) for dialogue in results.dialogues]
    return Section(title="What it wrote · 样本", blocks=blocks) if blocks else None


def chats(results: Results) -> Section | None:
    """Chat accuracy by kind, before and after fine-tuning, beside the baselines."""
    spoken = list(dict.fromkeys(score.language for score in results.chats))
    if not spoken:
        return None
    drawings: list[tuple[str, Drawn]] = [(findings.spoken(language), _chat_bars(results, language)) for language in spoken]
    text = (
        "Held-out questions by kind: the answer counts if it is exactly right. The majority answer is given the right "
        "sentence without its value, and puts in the value that was most frequent in training."
    )
    figure = beside(drawings)
    return Section(title="Chat · 对话", blocks=[Prose(paragraphs=[text]), figure, Data(table=tables.chats(results.chats))])


def _chat_bars(results: Results, language: str) -> GroupedBars:
    scores = [score for score in results.chats if score.language == language]
    kinds = list(dict.fromkeys(score.kind for score in scores))
    systems = dict.fromkeys((score.system, score.role) for score in scores)
    return GroupedBars(
        title=f"Share of chat questions answered exactly, by kind, {findings.spoken(language)}",
        unit="% answered exactly",
        groups=kinds,
        series=[Series(name=name, values=_shares(scores, name, kinds), tone=ROLES[role]) for name, role in systems],
        high=100.0,
    )


def _shares(scores: list[findings.ChatScore], system: str, kinds: list[str]) -> list[float | None]:
    rows = [score for score in scores if score.system == system]
    shares = [findings.accuracy(score for score in rows if score.kind == kind) for kind in kinds]
    return [None if share is None else 100 * share for share in shares]


def order(results: Results) -> Section | None:
    """The lecture's sentence in its two orders."""
    probe = results.order
    if probe is None:
        return None
    wrong = [odds.name for odds in probe.odds if odds.nats is None or abs(odds.nats - probe.expected) > results.goals.odds]
    bars = [Bar(name=odds.name, value=odds.nats, tone=TONES[odds.family], text=fixed(odds.nats, 2)) for odds in probe.odds]
    drawing = BarChart(
        title="Log-odds of the two orders under every model",
        unit="log p(plain) − log p(fronted), nats",
        bars=bars,
        rules=[Rule(name=f"truth {fixed(probe.expected, 2)}", value=probe.expected)],
    )
    # both sentences bring their own full stop
    text = f"In truth {probe.plain} is {fixed(math.exp(probe.expected), 0)} times as likely as {probe.fronted}"
    verdict = f"Not within {fixed(results.goals.odds, 1)} nats of that: {', '.join(wrong)}." if wrong else "All get it right."
    return Section(
        title="Word order · 词序",
        blocks=[Prose(paragraphs=[text, verdict]), Figure(drawing=drawing), Data(table=tables.order(probe))],
    )


def following(results: Results) -> Section | None:
    """What comes next, in truth and under the model."""
    if not results.next:
        return None
    blocks: list[Block] = [Data(table=tables.following(probe), caption=_deviation(probe)) for probe in results.next]
    return Section(title="What comes next · 下一个词", blocks=blocks)


def _deviation(probe: NextProbe) -> str:
    agree = "the same" if probe.same else "not the same: " + "、".join(probe.top)
    return f"The model's own top {len(probe.top)} are {agree}; the largest deviation is {fixed(probe.deviation)}."


def seeds(results: Results) -> Section | None:
    """Mean and spread over seeds."""
    if len(results.seeds) < 2:
        return None
    return Section(title="Seeds · 随机种子", blocks=[Data(table=tables.seeds(results), caption="Mean ± standard deviation.")])


def costs(results: Results) -> Section | None:
    """Seconds, memory, tokens a second."""
    if not results.costs:
        return None
    caption = f"{results.model.shape}; {compact(results.model.parameters)} parameters, {results.model.vocab_size:,} tokens."
    return Section(title="Cost · 代价", blocks=[Data(table=tables.costs(results), caption=caption)])


def repeat(results: Results) -> Section | None:
    """What to type to see it again, and to go on."""
    return Section(title="Go on · 继续", blocks=[Code(text="\n".join(results.commands))]) if results.commands else None


def _foot(results: Results) -> str:
    machine = results.machine
    world = f", world {results.world}" if results.world else ""
    return (
        f"chainrule {results.chainrule}{world}, seed {results.seed}. Python {machine.python}, torch {machine.torch}, "
        f"{machine.device}, {machine.threads} threads, {machine.dtype}."
    )
