"""The ladder of history as one page: bars for every language, the table, how fast each model learned, what was new.

    page(history).html()        the file report.html

Nothing is computed here; what was not measured is left out.
"""

from chainrule.eval import findings
from chainrule.eval import history as ladder
from chainrule.eval.history import BRANCHES, ERAS, History
from chainrule.eval.report import beside, ladder_figures
from chainrule.pages.figure import Curve, LineChart, Rule
from chainrule.pages.page import Block, Code, Data, Figure, Numbers, Page, Prose, Section
from chainrule.pages.table import Table
from chainrule.pages.text import duration, fixed, percent

TONES = {
    "neural-ngram": 5,
    "rnn": 4,
    "lstm": 2,
    "transformer": 3,
    "llama": 1,
    "moe": 6,
    "encoder-decoder": 7,
    "t5": 8,
    "gru": 9,
}

LEAD = (
    "Seventy years of language models on one scale: each learned from the same text, {source}, and was measured on the same "
    "documents. The unit is bits per byte; {floor}",
    "七十年的语言模型放在同一把尺上：每个模型学习同一份文本（{source}），并在相同的文档上测量。单位是每字节比特数；{floor_zh}",
)
FLOOR = (
    "the truth of this language is known, so the last rung is where nobody can get past.",
    "这种语言的真实分布是已知的，所以最后一级是谁也无法越过的。",
)
NO_FLOOR = (
    "nobody knows the truth of such a text, so the ladder has no last rung.",
    "这样的文本没有人知道它的真实分布，所以这架梯子没有最后一级。",
)


def page(history: History) -> Page:
    """The whole page; ``.html()`` is the file."""
    floor, floor_zh = FLOOR if history.milestone("truth") else NO_FLOOR
    parts = (bars, learning, ideas, repeat)
    return Page(
        title="The ladder of history · 历史的阶梯",
        lead=[text.format(source=history.source, floor=floor, floor_zh=floor_zh) for text in LEAD],
        above=[Numbers(items=numbers(history))],
        sections=[section for part in parts if (section := part(history)) is not None],
        foot=_foot(history),
    )


def numbers(history: History) -> list[tuple[str, str, str]]:
    """The few numbers at the top: what is best, in each language, and the time."""
    rungs = [rung for rung in history.rungs if rung.family != "truth"]
    items: list[tuple[str, str, str]] = []
    for language in findings.languages(rungs):
        best = min(rungs, key=lambda rung: ladder.bits(rung, language))
        above = findings.above_truth(history.rungs, best, language)
        note = best.name + (f", {percent(above)} above the truth" if above is not None else "")
        items.append((fixed(best.bits_per_byte[language]), f"bits per byte, {findings.spoken(language)}", note))
    machine = history.machine
    items.append((duration(history.seconds), "for everything", f"{machine.threads} threads, {machine.device}"))
    return items


def bars(history: History) -> Section:
    """Every rung as a bar, and the table."""
    text = "Bars begin at the truth and are long in the logarithm." if history.milestone("truth") else ""
    blocks: list[Block] = [Prose(paragraphs=[ladder.verdict(history), text] if text else [ladder.verdict(history)])]
    blocks += [
        beside(ladder_figures(history.rungs)),
        Data(table=ladder.table(history, years=False), caption=" ".join(ladder.notes(history))),
    ]
    return Section(title="Bits per byte · 每字节比特数", blocks=blocks)


def learning(history: History) -> Section | None:
    """Bits per byte after so many training tokens, for every model that was trained."""
    curves = [
        Curve(name=one.rung.name, points=one.curve, tone=TONES[one.key]) for one in history.milestones if len(one.curve) > 1
    ]
    if not curves:
        return None
    drawing = LineChart(
        title="Bits per byte while training",
        x="training tokens",
        y="bits per byte",
        curves=curves,
        rules=[Rule(name=f"truth {fixed(history.floor)}", value=history.floor)] if history.floor is not None else [],
        log_y=True,
    )
    seen = "Every model of the line" if any(one.key in BRANCHES for one in history.milestones) else "Every model"
    caption = f"On a few of the held-out documents, all languages together. {seen} sees the same tokens in the same order."
    return Section(title="Learning · 学习", blocks=[Figure(drawing=drawing, caption=caption)])


def ideas(history: History) -> Section:
    """What was new, rung by rung."""
    rows = [(one.rung.name, str(ERAS[one.key].year or ""), _new(one.key)) for one in history.milestones]
    table = Table(names=("model", "year", "what was new"), rows=rows)
    return Section(title="What was new · 新在哪里", blocks=[Data(table=table)])


def _new(key: str) -> str:
    era = ERAS[key]
    return f"{era.new} ({era.paper})" if era.paper else era.new


def repeat(history: History) -> Section | None:
    """What to type to see it again."""
    return Section(title="Go on · 继续", blocks=[Code(text="\n".join(history.commands))]) if history.commands else None


def _foot(history: History) -> str:
    machine = history.machine
    where = f"Python {machine.python}, torch {machine.torch}, {machine.device}, {machine.threads} threads, {machine.dtype}"
    what = f"chainrule {history.chainrule}, {history.source}, seed {history.seed}, {history.held_out:,} held-out documents"
    return f"{what}. {where}."
