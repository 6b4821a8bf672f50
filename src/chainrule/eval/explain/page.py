"""An explanation as a page: what was found, built, read and computed, with figures of memory, seconds, bytes and FLOPs."""

import re
from collections.abc import Sequence

from chainrule.eval.explain import rows
from chainrule.eval.explain.facts import Explanation, Forward
from chainrule.eval.explain.text import article
from chainrule.eval.explain.tree import by, tree_lines
from chainrule.pages.columns import Columns
from chainrule.pages.figure import Bar, BarChart, Curve, LineChart, Rule, Series
from chainrule.pages.page import Block, Code, Data, Figure, Numbers, Page, Pair, Prose, Samples, Section
from chainrule.pages.table import INDENT, Table
from chainrule.pages.text import compact, size, timing

TONES = {"cells": 1, "attention": 1, "scores": 4, "mlp": 3, "experts": 2, "router": 0}
"""A part has the same colour in every figure; the others are grey."""
LEAD = (
    "How a name becomes a model that answers: what was found, what its config means, how each tensor came from the file into "
    "the model, and what one forward pass computes, layer by layer.",
    "一个名字怎样变成会回答的模型：找到了什么，配置意味着什么，每个张量怎样从文件来到模型里，一次前向计算又逐层算了什么。",
)


def explanation_page(explanation: Explanation, version: str) -> Page:
    """The whole page; ``.html()`` is the file."""
    name = explanation.name
    parts = (_found, _parts, _modules, _bytes, _tensors, _load, _beside, _around, _forward, _missing)
    return Page(
        title=name,
        lead=LEAD,
        above=[Numbers(items=_numbers(explanation))],
        sections=[section for part in parts if (section := part(explanation)) is not None],
        foot=f"chainrule {version}, explain {name}; {explanation.kind}, {explanation.dtype}, on {explanation.device}.",
    )


def _numbers(explanation: Explanation) -> list[tuple[str, str, str]]:
    tensors = f" in {explanation.tensors_published:,} tensors" if explanation.tensors_published else ""
    items = [(compact(explanation.parameters), "parameters", f"{explanation.parameters:,}{tensors}")]
    if explanation.size_bytes:
        items.append((size(explanation.size_bytes, digits=4), "of weights", explanation.dtype))
    if explanation.stages:
        items.append((timing(explanation.seconds), "to load", f"on {explanation.device}"))
    if explanation.forward is not None and explanation.forward.formula and explanation.forward.flops:
        items.append(
            (
                f"{compact(explanation.forward.flops / explanation.forward.tokens)}FLOP",
                "a token, forward",
                f"the mean over {explanation.forward.tokens:,}",
            )
        )
    return items


def _found(explanation: Explanation) -> Section:
    what = f"{explanation.name} is {article(explanation.kind)}. Found: {explanation.found}."
    blocks: list[Block] = [Prose(paragraphs=[what])]
    if explanation.files:
        lines = [(file.name, rows.data(file.size_bytes), file.what) for file in explanation.files]
        blocks.append(Data(table=Table(names=("file", "bytes", "what for"), rows=lines, numbers=frozenset({1}))))
    return Section(title="Files · 文件", blocks=blocks)


def _parts(explanation: Explanation) -> Section | None:
    if not explanation.parts:
        return None
    says = {name: text for part in explanation.parts for name, text in part.says.items()}
    blocks: list[Block] = [
        Prose(paragraphs=["Read from left to right, as a token's vector passes; + adds what was said to the stream."]),
        Samples(items=[(part.where, part.what) for part in explanation.parts]),
    ]
    if says:
        blocks.append(
            Data(
                table=Table(
                    names=("part", "what it is"),
                    rows=[(name, re.sub("`([^`]+)`", r"‘\1’", text)) for name, text in says.items()],
                )
            )
        )
    return Section(title="What the config means · 配置的含义", blocks=blocks)


def _modules(explanation: Explanation) -> Section | None:
    if not explanation.tree.children:
        return None
    lines = []
    for name, kind, count, each in tree_lines(explanation.tree):
        what, _, shapes = kind.partition("  ")
        shown = f"{what}\n{_whole(shapes)}" if shapes else what
        lines.append((name.replace("  ", 2 * INDENT) or explanation.kind, shown if name else "", f"{compact(count)}\n{each}"))
    table = Table(names=("module", "kind, shape", "parameters"), rows=lines, numbers=frozenset({2}))
    caption = "Equal layers are told once. Built on the meta device first: shapes, and no memory."
    return Section(title="Modules · 模块", blocks=[Data(table=table, caption=caption)])


def _whole(shape: str) -> str:
    """A shape that is not broken over lines."""
    return shape.replace(" × ", "\u00a0×\u00a0")


def _bytes(explanation: Explanation) -> Section | None:
    if not explanation.size_bytes:
        return None
    bars = [
        Bar(name=part, value=float(held), tone=TONES.get(part, 5), text=rows.data(held))
        for part, held in explanation.bytes_by_part.items()
    ]
    drawing = BarChart(title="Bytes of weights by part", unit=f"bytes of weights, {explanation.dtype}", bars=bars)
    return Section(
        title="Bytes by part · 各部分的字节", blocks=[Figure(drawing=drawing), Data(table=rows.parameters(explanation))]
    )


def _tensors(explanation: Explanation) -> Section | None:
    if not explanation.tensors:
        return None
    lines = []
    for group in rows.alike(explanation.tensors):
        fact = group.first
        way = f"{fact.way}: {fact.note}" if fact.note else fact.way
        formats = fact.dtype if fact.stored in ("", fact.dtype) else f"{fact.stored} → {fact.dtype or '—'}"
        name = f"{group.name or '—'}\n{group.published}" if group.published not in ("", group.name) else group.name
        lines.append((name, f"{_whole(by(fact.shape))}\n{formats}", f"{rows.data(group.size_bytes) or '—'}\n{way}"))
    table = Table(names=("tensor here, and in the file", "shape, format", "bytes, way"), rows=lines, numbers=frozenset({2}))
    return Section(title="Each tensor's way · 每个张量的路", blocks=[Prose(paragraphs=[_ways(explanation)]), Data(table=table)])


def _ways(explanation: Explanation) -> str:
    meant = {
        "mapped": "mapped: the parameter is the file's own pages, and nothing was copied",
        "copied": "copied: read into memory as it is",
        "converted": "converted: written anew in another number format",
        "quantised": "quantised: written anew in four bits",
        "left out": "left out: the model has no place for it",
        "tied": "tied: it is another tensor, and takes nothing",
        "made": "made: computed on the spot, from no checkpoint",
        "not read": "not read: there are no weights here; the names are those it will be published under",
    }
    return "; ".join(meant[way] for way in dict.fromkeys(fact.way for fact in explanation.tensors)).capitalize() + "."


def _load(explanation: Explanation) -> Section | None:
    if not explanation.stages:
        return None
    blocks: list[Block] = [
        Figure(
            drawing=_milliseconds([(one.name, one.seconds) for one in explanation.stages], "ours"),
            caption="The stages in the order in which they began.",
        ),
        Data(table=_stages(explanation)),
    ]
    drawing = _memory(explanation)
    if drawing is not None:
        caption = (
            "Memory that no file backs (RssAnon), counted from the beginning, against the weights handed to the model so far. "
            "Mapped weights are pages of the file: they do not appear in it."
        )
        blocks.append(Figure(drawing=drawing, caption=caption))
    return Section(title="The load · 加载", blocks=blocks)


def _stages(explanation: Explanation) -> Table:
    lines = [
        (stage.name, f"{stage.what}\n{stage.where}", f"{timing(stage.seconds)}\n{rows.grown(stage.grown_bytes)}")
        for stage in explanation.stages
    ]
    lines.append(("together", "", timing(explanation.seconds)))
    names = ("stage", "what happened, and where", "time, memory")
    return Table(names=names, rows=lines, numbers=frozenset({2}), strong=frozenset({len(lines) - 1}))


def _memory(explanation: Explanation) -> LineChart | None:
    first = explanation.moments[0].anonymous_bytes
    if first is None:
        return None
    curves = [
        Curve(
            name="memory of the process",
            points=[(1e3 * one.seconds, (one.anonymous_bytes or first) - first) for one in explanation.moments],
            tone=1,
        ),
        Curve(
            name="weights handed over", points=[(1e3 * one.seconds, one.weights_bytes) for one in explanation.moments], tone=3
        ),
    ]
    weights = explanation.size_bytes
    rules = [Rule(name=f"all weights: {size(weights, digits=4)}", value=float(weights), tone=3)] if weights else []
    return LineChart(title="Memory while loading", x="milliseconds", y="bytes", curves=curves, rules=rules)


def _beside(explanation: Explanation) -> Section | None:
    theirs = explanation.theirs
    if theirs is None:
        return None
    whats = {stage.name: stage.what for stage in theirs.stages}
    lines = []
    for name, where, seconds, memory, ours, ours_at, ours_seconds, ours_memory in rows.beside(explanation).rows:
        left = f"{name}\n{whats.get(name, '')}{'; ' * bool(where)}{where}" if name in whats else name
        lines.append((left, f"{seconds}\n{memory}", f"{ours}\n{ours_at}", f"{ours_seconds}\n{ours_memory}"))
    names = (f"transformers {theirs.version}", "time, memory", "chainrule", "time, memory")
    table = Table(names=names, rows=lines, numbers=frozenset({1, 3}), strong=frozenset({len(lines) - 1}))
    drawings = [
        (f"transformers {theirs.version}", _milliseconds([(one.name, one.seconds) for one in theirs.stages[1:]], "theirs")),
        ("chainrule", _milliseconds([(one.name, one.seconds) for one in explanation.stages], "ours")),
    ]
    caption = "Milliseconds; the import of the library is left out, and each side has its own scale."
    blocks = [Pair(drawings=drawings, caption=caption), Data(table=table), Prose(paragraphs=rows.notes(explanation))]
    return Section(title="Beside transformers · 两个库并排", blocks=blocks)


def _milliseconds(spent: Sequence[tuple[str, float]], whose: str) -> BarChart:
    bars = [Bar(name=name, value=1e3 * seconds, tone=1, text=timing(seconds)) for name, seconds in spent]
    return BarChart(title=f"Milliseconds by stage, {whose}", unit="milliseconds", bars=bars)


def _around(explanation: Explanation) -> Section | None:
    if not explanation.stages:
        return None
    settings, template = ", ".join(f"{key} = {value}" for key, value in explanation.generation.items()), explanation.template
    blocks: list[Block] = [
        Samples(
            items=[
                ("tokenizer", explanation.tokenizer or "none: ids alone"),
                ("generation settings", settings or "none given"),
                ("chat template", f"{len(template):,} characters" if template else "none: not taught to chat"),
            ]
        )
    ]
    if template:
        blocks.append(Code(text=template))
    return Section(title="Around the model · 模型周围", blocks=blocks)


def _forward(explanation: Explanation) -> Section | None:
    passed = explanation.forward
    if passed is None:
        return None
    blocks: list[Block] = [Prose(paragraphs=[_read(passed)])]
    if passed.flops:
        plan = f"FLOPs a token: {passed.formula}. `chainrule plan MODEL --length {passed.tokens}` counts the same."
        caption = plan if passed.formula else "Product by product; `chainrule plan MODEL` adds up the same."
        blocks += [Figure(drawing=_work(passed), caption=caption), Data(table=rows.work(passed))]
    blocks.append(Data(table=_taps(passed), caption="What the tap hears; layers in which it hears the same are told once."))
    if len(rows.stream(passed)) > 2:
        blocks.append(
            Figure(drawing=_stream(passed), caption="How large the stream's numbers are, as it enters and after each layer.")
        )
    if passed.likeliest:
        bars = [Bar(name=repr(piece), value=p, text=f"{p:.4f}") for piece, p in passed.likeliest]
        drawing = BarChart(title="The likeliest words", unit=f"probability of {passed.asks}", bars=bars)
        blocks.append(Figure(drawing=drawing))
    return Section(title="One forward pass · 一次前向计算", blocks=blocks)


def _read(passed: Forward) -> str:
    if not passed.pieces:
        return f"{passed.tokens:,} made-up ids" + ("." if passed.likeliest else ", as shapes alone: nothing is multiplied.")
    shown = " ".join(f"`{piece.replace('`', 'ˋ') or '∅'}`" for piece in passed.pieces[:64])
    return f"{len(passed.pieces)} tokens: {shown}{' …' * (len(passed.pieces) > 64)}"


def _work(passed: Forward) -> Columns:
    parts = rows.parts_at_work(passed)
    names = [layer.name.removeprefix("layer ") for layer in passed.layers]
    series = [
        Series(name=part, values=[layer.flops.get(part, 0.0) for layer in passed.layers], tone=TONES.get(part, 5))
        for part in parts
    ]
    return Columns(title="FLOPs by layer and part", x="layer", y="FLOP for the whole row", names=names, series=series)


def _taps(passed: Forward) -> Table:
    lines = []
    for layer, tap, shape, *work in rows.forward(passed).rows:
        spent = ["\n".join(one for one in work if one)] if work else []
        lines.append((layer, f"{tap}\n{_whole(shape)}", *spent))
    counted = passed.flops is not None
    names = ("layer", "tap, shape", *(("work, in",) if counted else ()))
    return Table(names=names, rows=lines, numbers=frozenset({2}) if counted else frozenset())


def _stream(passed: Forward) -> Columns:
    names, sizes = zip(*rows.stream(passed), strict=True)
    series = [Series(name="root of the mean square of the stream", values=sizes, tone=1)]
    return Columns(title="Size of the stream", x="after layer", y="", names=names, series=series)


def _missing(explanation: Explanation) -> Section | None:
    unknown = list(explanation.unknown)
    return Section(title="Not shown · 没有显示的", blocks=[Prose(paragraphs=unknown)]) if unknown else None
