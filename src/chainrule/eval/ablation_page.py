"""The ablations as one page: gradients by layer at the start and at the end, the loss on the way, what was lost.

page(ablation).html()        the file report.html
"""

import math

from chainrule.eval.ablation import PARTS, Ablated, Ablation, Norms, lost_bits, notes, paid, table
from chainrule.eval.findings import spoken
from chainrule.eval.report import beside
from chainrule.pages.figure import Bar, BarChart, Curve, LineChart, Rule
from chainrule.pages.page import Code, Data, Figure, Page, Prose, Section
from chainrule.pages.table import Table
from chainrule.pages.text import fixed

TONES = {None: 1, "residual": 2, "norm": 3, "position": 4}

LEAD = (
    "A Transformer of {layers} layers, trained whole and without each of its parts, on the same text from the same seed. What "
    "a part is for shows where it is missing: in how strongly each layer is told to change, and in bits per byte.",
    "一个 {layers} 层的 Transformer，完整地训练一次，再分别去掉一个部件各训练一次，文本和随机种子都相同。"
    "一个部件有什么用，去掉它就看得出来：看每一层收到多强的梯度，看每字节多付多少比特。",
)


def page(ablation: Ablation) -> Page:
    """The whole page; ``.html()`` is the file."""
    machine = ablation.machine
    where = f"Python {machine.python}, torch {machine.torch}, {machine.device}, {machine.threads} threads"
    return Page(
        title="Why the Transformer has its parts · 部件为何存在",
        lead=[text.format(layers=ablation.layers) for text in LEAD],
        sections=[lost(ablation), gradients(ablation), learning(ablation), parts(ablation), repeat(ablation)],
        foot=f"chainrule {ablation.chainrule}, {ablation.source}, seed {ablation.seed}. {where}.",
    )


def lost(ablation: Ablation) -> Section:
    """What every model pays, as bars for each language, and the table."""
    figure = beside([(spoken(language), _bars(ablation, language)) for language in ablation.models[0].bits_per_byte])
    blocks = [figure, Data(table=table(ablation)), Prose(paragraphs=notes(ablation))]
    return Section(title="What is lost · 失去了什么", blocks=blocks)


def _bars(ablation: Ablation, language: str) -> BarChart:
    whole = ablation.models[0].bits_per_byte[language]
    return BarChart(
        title=f"Bits per byte, whole and without each part, {spoken(language)}",
        unit="bits per byte, and how many are lost",
        bars=[_bar(ablation, one, language) for one in ablation.models],
        rules=[] if whole is None else [Rule(name=f"whole {fixed(whole)}", value=whole)],
    )


def _bar(ablation: Ablation, one: Ablated, language: str) -> Bar:
    """A model's bar; one that diverged pays without end."""
    bits, more = one.bits_per_byte[language], lost_bits(ablation, one, language)
    if bits is None:
        return Bar(name=one.name, value=math.inf, tone=TONES[one.without], text=paid(one, language))
    text = fixed(bits) if more is None else f"{fixed(bits)} ({'+' if more >= 0 else ''}{fixed(more)})"
    return Bar(name=one.name, value=bits, tone=TONES[one.without], text=text, strong=one.without is None)


def gradients(ablation: Ablation) -> Section:
    """The gradient norm of every layer, before the first step and after the last."""
    text = (
        "The norm of the gradient of each layer's parameters, on one batch. Where it falls layer by layer towards the input, "
        "the first layers hardly learn."
    )
    figure = beside([("before the first step", _norms(ablation, "start")), ("after the last step", _norms(ablation, "end"))])
    return Section(title="Gradients by layer · 各层的梯度", blocks=[Prose(paragraphs=[text]), figure])


def _norms(ablation: Ablation, when: str) -> LineChart:
    def norms(one: Ablated) -> Norms:
        return one.start if when == "start" else one.end

    return LineChart(
        title=f"Gradient norm by layer, {when} of training",
        x="layer",
        y="gradient norm",
        curves=[
            Curve(
                name=one.name,
                points=[(i, float("nan") if norm is None else norm) for i, norm in enumerate(norms(one))],
                tone=TONES[one.without],
            )
            for one in ablation.models
        ],
        log_y=True,
    )


def learning(ablation: Ablation) -> Section:
    """The training loss of every model."""
    drawing = LineChart(
        title="Training loss",
        x="step",
        y="nats a token",
        curves=[Curve(name=one.name, points=one.curve, tone=TONES[one.without]) for one in ablation.models],
    )
    return Section(title="Learning · 学习", blocks=[Figure(drawing=drawing)])


def parts(ablation: Ablation) -> Section:
    """What is left where a part is left out."""
    rows = [(one.name, PARTS[one.without]) for one in ablation.models if one.without is not None]
    return Section(title="The parts · 部件", blocks=[Data(table=Table(names=("model", "what is left"), rows=rows))])


def repeat(ablation: Ablation) -> Section:
    """What to type to see it again."""
    return Section(title="Go on · 继续", blocks=[Code(text="\n".join(ablation.commands))])
