"""An explanation in few rows, for the terminal and the page alike: equal layers folded, numbers as a person writes them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from chainrule.eval.anatomy import PARTS
from chainrule.eval.explain.facts import Explanation, Forward, Seen, TensorFact
from chainrule.eval.explain.forward import split
from chainrule.eval.explain.parts import span
from chainrule.eval.explain.tree import by
from chainrule.pages.table import Table
from chainrule.pages.text import compact, percent, size, timing

NUMBER = re.compile(r"(?<=\.)(\d+)(?=\.)")


def stages(explanation: Explanation) -> Table:
    """The stages of the load."""
    rows = [
        (one.name, one.what, one.where, timing(one.seconds), data(one.size_bytes), grown(one.grown_bytes))
        for one in explanation.stages
    ]
    rows.append(("together", "", "", timing(explanation.seconds), "", ""))
    names = ("stage", "what happened", "where", "seconds", "about", "memory grew")
    return Table(names=names, rows=rows, numbers=frozenset({3, 4, 5}), strong=frozenset({len(rows) - 1}))


def beside(explanation: Explanation) -> Table:
    """The stages of transformers, and beside each the stage of ours that does the same; what has no like stands alone."""
    theirs = explanation.theirs
    assert theirs is not None
    ours = {one.name: (one.name, one.where, timing(one.seconds), grown(one.grown_bytes)) for one in explanation.stages}
    rows: list[tuple[str, ...]] = []
    for stage in theirs.stages:
        same = ours.pop(stage.ours, ("", "", "", ""))
        rows.append((stage.name, stage.where, timing(stage.seconds), grown(stage.grown_bytes), *same))
    rows += [("", "", "", "", *left) for left in ours.values()]
    loading = theirs.seconds - theirs.stages[0].seconds
    rows.append(("together, without import", "", timing(loading), "", "together", "", timing(explanation.seconds), ""))
    names = (f"transformers {theirs.version}", "where", "seconds", "memory", "chainrule", "where", "seconds", "memory")
    return Table(names=names, rows=rows, numbers=frozenset({2, 3, 6, 7}), strong=frozenset({len(rows) - 1}))


def notes(explanation: Explanation) -> list[str]:
    """What to know of the two columns."""
    theirs = explanation.theirs
    assert theirs is not None
    return [
        f"{theirs.entry}, watched by sys.setprofile, which makes its much-called Python slower; ours was loaded first, so "
        "theirs finds the file in memory. Ours was imported before it was timed; theirs is timed too, in the first row. "
        "Memory is RssAnon: what no file backs.",
        *(f"not in this version: {name}" for name in theirs.absent),
        *theirs.remarks,
    ]


def parameters(explanation: Explanation) -> Table:
    """Parameters and bytes by part."""
    sizes, whole = explanation.bytes_by_part, max(explanation.size_bytes, 1)
    rows = [
        (part, f"{count:,}", data(sizes[part]), percent(sizes[part] / whole))
        for part, count in explanation.parameters_by_part.items()
    ]
    rows.append(("together", f"{explanation.parameters:,}", data(explanation.size_bytes), ""))
    return Table(
        names=("part", "parameters", "bytes", "share"),
        rows=rows,
        numbers=frozenset({1, 2, 3}),
        strong=frozenset({len(rows) - 1}),
    )


@dataclass(frozen=True)
class Alike:
    """Tensors of several layers that differ in the layer alone."""

    first: TensorFact
    name: str
    published: str
    count: int
    size_bytes: int


def alike(facts: Sequence[TensorFact]) -> list[Alike]:
    """The tensors, those told once that are the same in several layers, in the order of their first."""
    groups: dict[tuple[object, ...], list[TensorFact]] = {}
    for fact in facts:
        shape = (NUMBER.sub("#", fact.name), fact.shape, fact.stored, fact.dtype, fact.way, fact.note)
        groups.setdefault((*shape, NUMBER.sub("#", fact.published[0]) if fact.published else ""), []).append(fact)
    return [
        Alike(
            first=group[0],
            name=_ranged([fact.name for fact in group]),
            published=_ranged([name for fact in group for name in fact.published]),
            count=len(group),
            size_bytes=sum(fact.size_bytes for fact in group),
        )
        for group in groups.values()
    ]


def tensors(explanation: Explanation) -> Table:
    """Every tensor's way, equal ones of several layers in one row."""
    rows = []
    for group in alike(explanation.tensors):
        fact = group.first
        formats = (
            fact.dtype if fact.stored in ("", fact.dtype) else f"{fact.stored} → {fact.dtype}" if fact.dtype else fact.stored
        )
        way = f"{fact.way}: {fact.note}" if fact.note else fact.way
        rows.append((group.published or "—", group.name or "—", by(fact.shape), formats, data(group.size_bytes), way))
    return Table(names=("in the file", "in the model", "shape", "format", "bytes", "way"), rows=rows, numbers=frozenset({4}))


def forward(passed: Forward) -> Table:
    """What the tap heard: each distinct layer once."""
    rows: list[tuple[str, ...]] = []
    counted = passed.flops is not None
    for places, heard in _sections(passed.seen):
        each = "" if len(places) < 2 else " each"
        stack = f"{split(heard[0].name)[0]} ".removeprefix("blocks ")
        name = f"{stack}layer{'s' * (len(places) > 1)} {span(places)}" if places else ""
        for seen in heard:
            spent = [f"{compact(seen.flops)}FLOP{each}" if seen.flops else "", ", ".join(seen.by)] if counted else []
            rows.append((name, split(seen.name)[2], by(seen.shape), *spent))
            name = ""
    names = ("layer", "tap", "shape", *(("work", "in") if counted else ()))
    return Table(names=names, rows=rows, numbers=frozenset({3}) if counted else frozenset())


def work(passed: Forward) -> Table:
    """FLOPs of the whole prompt by part."""
    assert passed.flops is not None
    parts = {part: sum(layer.flops.get(part, 0.0) for layer in passed.layers) for part in parts_at_work(passed)}
    rows = [(part, f"{compact(flops)}FLOP", percent(flops / passed.flops)) for part, flops in parts.items()]
    rows.append(("together", f"{compact(passed.flops)}FLOP", ""))
    return Table(names=("part", "work", "share"), rows=rows, numbers=frozenset({1, 2}), strong=frozenset({len(rows) - 1}))


def parts_at_work(passed: Forward) -> list[str]:
    """The parts that multiply, in the order in which a token meets them."""
    there = {part for layer in passed.layers for part in layer.flops}
    order = ("cells", "attention", "scores", *PARTS)
    return [part for part in dict.fromkeys(order) if part in there]


def stream(passed: Forward) -> list[tuple[str, float]]:
    """How large the stream is: as it enters, and after each layer."""
    sizes: list[tuple[str, float]] = []
    for seen in passed.seen:
        stack, layer, _ = split(seen.name)
        if seen.rms is not None and not seen.name.startswith("embed."):
            sizes.append((f"{stack.removeprefix('blocks')} {'in' if layer is None else layer}".strip(), seen.rms))
    return sizes


def _sections(seen: Sequence[Seen]) -> list[tuple[list[int], list[Seen]]]:
    """What was heard, by layer; layers in which the same was heard are one section, at the place of the first."""
    sections: list[tuple[str, list[int], list[Seen]]] = []
    open_at: dict[tuple[str, int | None], int] = {}
    for one in seen:
        stack, layer, _ = split(one.name)
        stack = stack or one.name
        at = (stack, layer)
        if layer is None or at not in open_at:
            open_at[at] = len(sections)
            sections.append((stack, [] if layer is None else [layer], []))
        sections[open_at[at]][2].append(one)
    folded: dict[tuple[object, ...], tuple[list[int], list[Seen]]] = {}
    for stack, layers, heard in sections:
        same = (stack, *((split(one.name)[2], one.shape, one.flops, one.by) for one in heard))
        if same in folded:
            folded[same][0].extend(layers)
        else:
            folded[same] = (layers, heard)
    return list(folded.values())


def _ranged(names: Sequence[str]) -> str:
    """Names that differ in their numbers alone, as one.

    >>> _ranged(["layers.0.mlp.up", "layers.1.mlp.up"])
    'layers.{0–1}.mlp.up'
    """
    if not names:
        return ""
    places = [NUMBER.findall(name) for name in names]
    columns = [sorted({int(place[i]) for place in places}) for i in range(len(places[0]))]
    texts = iter([span(column) if len(column) == 1 else f"{{{span(column)}}}" for column in columns])
    return NUMBER.sub(lambda _: next(texts), names[0])


def data(size_bytes: float | None) -> str:
    """A number of bytes; nothing where there are none."""
    return size(size_bytes) if size_bytes else ""


def grown(size_bytes: int | None) -> str:
    """By how much memory grew, with its sign."""
    if size_bytes is None:
        return "—"
    return ("+" if size_bytes > 0 else "−" if size_bytes < 0 else "") + (data(abs(size_bytes)) or "0")
