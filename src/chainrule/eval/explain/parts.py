"""What a config means: its parts, spelt as one would write them, equal layers told once.

    layers 0–31   RMSNorm(eps=1e-05) → GroupedQuery(n_heads=32, n_kv_heads=8, d_head=128) → + → RMSNorm → Gated(d_ff=14336) → +

A part's sentence is the first of its own docstring, so that the page says what the code says.
"""

from collections.abc import Hashable, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from itertools import pairwise
from typing import Any, TypeVar

from chainrule.eval.explain.facts import Part

T = TypeVar("T")
ORDERS = {
    "pre_norm": ("norm", "attention", "+", "norm", "mlp", "+"),
    "sandwich": ("norm", "attention", "norm", "+", "norm", "mlp", "norm", "+"),
    "output_norm": ("attention", "norm", "+", "mlp", "norm", "+"),
    "bare": ("norm", "attention", "norm", "mlp"),
    "post_norm": ("attention", "+", "norm", "mlp", "+", "norm"),
}
"""What a token's vector passes in a block, by the block's kind; + adds it to the stream."""


def parts_of(config: Any) -> tuple[Part, ...]:
    """The parts of a model's config, in the order of its fields."""
    if not is_dataclass(config):
        return ()
    whole = [(field.name, getattr(config, field.name)) for field in fields(config) if field.name not in ("kind", "version")]
    shown = [field.name for field in fields(config) if _worth_saying(config, field) or field.name == "tied"]
    plain = {name: value for name, value in whole if name in shown and not _is_part(value) and value not in (None, ())}
    parts = [
        Part(where=type(config).__name__, what=", ".join(f"{name}={spelt(value)}" for name, value in plain.items()), says={})
    ]
    for name, value in whole:
        if isinstance(value, tuple) and _is_part(value):
            parts += [_layers(name, span, part) for span, part in folded(value)]
        elif _is_part(value):
            parts.append(Part(where=name, what=spelt(value), says=_says(value)))
    return tuple(parts)


def spelt(value: Any) -> str:
    """A part as one would write it: what is not the default, and nothing else.

    >>> spelt(0.00001), spelt((1, 2))
    ('1e-05', '(1, 2)')
    """
    if isinstance(value, float):
        return f"{value:.10g}"
    if isinstance(value, tuple) and not is_dataclass(value):
        shown = [spelt(item) for item in value[:4]] + ["…"] * (len(value) > 4)
        return f"({', '.join(shown)})"
    if not is_dataclass(value):
        return repr(value)
    said = [f"{f.name}={spelt(getattr(value, f.name))}" for f in fields(value) if _worth_saying(value, f)]
    return f"{type(value).__name__}({', '.join(said)})" if said else type(value).__name__


def folded(items: Sequence[T]) -> list[tuple[str, T]]:
    """Equal items told once, each with the places where it stands.

    >>> folded(["a", "b", "a", "b"])
    [('0, 2', 'a'), ('1, 3', 'b')]
    """
    places: dict[Hashable, tuple[T, list[int]]] = {}
    for i, item in enumerate(items):
        places.setdefault(repr(item), (item, []))[1].append(i)
    return [(span(where), item) for item, where in places.values()]


def span(places: Sequence[int]) -> str:
    """Places in few characters.

    >>> span([0, 1, 2, 3]), span([0, 2, 4, 6, 8]), span([3]), span([0, 1, 2, 5])
    ('0–3', '0, 2, … 8', '3', '0–2, 5')
    """
    steps = {b - a for a, b in pairwise(places)}
    if len(places) > 3 and len(steps) == 1 and steps != {1}:
        return f"{places[0]}, {places[1]}, … {places[-1]}"
    runs: list[list[int]] = []
    for place in places:
        if runs and place == runs[-1][-1] + 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    texts = [f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs]
    return ", ".join(texts if len(texts) <= 6 else [*texts[:3], "…", texts[-1]])


def _layers(field: str, where: str, block: Any) -> Part:
    """A block as the way of a vector through it."""
    name = {"blocks": "layers" if "–" in where or "," in where else "layer"}.get(field, field)
    if not hasattr(block, "attention"):  # the cells of a recurrent model
        return Part(where=f"{name} {where}", what=spelt(block), says=_says(block))
    seen: set[str] = set()
    way = []
    for step in _order(block, field):
        text = step if step == "+" or not hasattr(block, step) else spelt(getattr(block, step))
        way.append(text.partition("(")[0] if text in seen else text)
        seen.add(text)
    own = getattr(block, "position", None)
    what = " → ".join(way) + (f", positions {spelt(own)}" if own is not None else "")
    return Part(where=f"{name} {where}", what=what, says=_says(block) | _says(block.norm, block.attention, block.mlp, own))


def _order(block: Any, field: str) -> tuple[str, ...]:
    """The order of a block; a decoder that looks at a source does so after it looked at itself."""
    if block.attention.kind != "multi_head":
        return ORDERS[block.kind]
    before = block.kind == "pre_norm"
    once = ("norm", "attention", "+") if before else ("attention", "+", "norm")
    source = ("norm", "attention to the source", "+") if before else ("attention to the source", "+", "norm")
    mlp = ("norm", "mlp", "+") if before else ("mlp", "+", "norm")
    return (*once, *(source if field == "decoder" else ()), *mlp)


def _says(*parts: Any) -> dict[str, str]:
    """What each kind of part is, in its own words; parts within parts too."""
    sentences: dict[str, str] = {}
    for part in parts:
        if is_dataclass(part):
            sentence = (type(part).__doc__ or "").strip().split("\n\n")[0]
            sentences[type(part).__name__] = sentence.replace("\n    ", " ").replace("``", "`")
            sentences |= _says(*(getattr(part, field.name) for field in fields(part)))
    return sentences


def _is_part(value: Any) -> bool:
    return is_dataclass(value) or (isinstance(value, tuple) and bool(value) and is_dataclass(value[0]))


def _worth_saying(part: Any, field: "Field[Any]") -> bool:
    value = getattr(part, field.name)
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return field.name != "version" and value != default
