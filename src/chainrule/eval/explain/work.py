"""The FLOPs of one pass, product by product: in which layer, into which matrix, and at which tap its result is first heard.

    a matrix d_out × d_in      2 · d_out · d_in · (tokens that pass it)
    queries that meet keys     2 · heads · (key + value width) · (pairs that see each other)

A decoder's are those of ``eval.flops``, so that their sum is ``plan``'s. Encoders, encoder–decoders, recurrent models and
neural n-grams are counted by the same two rules on their own parameters: an encoder's tokens all see each other, and of an
encoder–decoder one stack reads the source and the other the target.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from chainrule.eval.anatomy import Anatomy, part_of
from chainrule.eval.explain.facts import LayerCost
from chainrule.eval.flops import flops_by_layer

HEARD_AT = {
    "q_proj": "hook_q", "q_a_proj": "hook_q", "q_b_proj": "hook_q", "k_proj": "hook_k", "kv_a_proj_with_mqa": "hook_k",
    "v_proj": "hook_v", "kv_b_proj": "hook_v",
}  # fmt: skip
"""The tap of an attention at which one of its matrices has done its work."""
OUT = {"attn": "hook_attn_out", "cross_attn": "hook_cross_attn_out"}
"""The tap of what an attention says."""
INSIDE = re.compile(r"^(?:(encoder|decoder)\.)?(layers|cells)\.(\d+)\.(.+?)(?:\.weight)?$")


@dataclass(frozen=True)
class Work:
    """Some products of one layer: ``place`` is its name before every tap, empty for the head."""

    place: str
    tap: str
    by: str
    part: str
    flops: float


def work_of(shapes: nn.Module, anatomy: Anatomy | None, tokens: int, source: int = 0) -> tuple[Work, ...]:
    """All products of a pass over ``tokens``, given ``source`` tokens; none for a model that multiplies no matrices."""
    kind = getattr(getattr(shapes, "config", None), "kind", "")
    if anatomy is not None:
        return tuple(_of_decoder(anatomy, tokens))
    if kind in ("encoder", "seq2seq", "recurrent", "neural_ngram"):
        return (*_of_parameters(shapes, tokens, source), *_of_scores(shapes, tokens, source), *_of_head(shapes, tokens))
    return ()


def layers_of(works: tuple[Work, ...]) -> tuple[LayerCost, ...]:
    """The products by layer and part, the head's last."""
    places = list(dict.fromkeys(work.place for work in works))
    costs: list[LayerCost] = []
    for place in sorted(places, key=lambda place: place == ""):
        flops: dict[str, float] = {}
        for work in works:
            if work.place == place:
                flops[work.part] = flops.get(work.part, 0.0) + work.flops
        costs.append(LayerCost(name=place.replace("blocks.", "layer ").replace(".", " ") or "head", flops=flops))
    return tuple(costs)


def _of_decoder(anatomy: Anatomy, tokens: int) -> Iterator[Work]:
    for matrix in anatomy.matrices:
        place = "" if matrix.layer is None else f"blocks.{matrix.layer}"
        tap = "readout" if matrix.layer is None else _tap(matrix.part, matrix.name)
        yield Work(place, tap, matrix.name, matrix.part, 2.0 * matrix.used * tokens)
    for i, costs in enumerate(flops_by_layer(anatomy, tokens)[:-1]):
        yield Work(f"blocks.{i}", "attn.hook_z", "scores", "scores", costs.scores * tokens)


def _tap(part: str, name: str, attention: str = "attn") -> str:
    """Where a matrix of a layer is heard."""
    if part == "attention":
        return f"{attention}.{HEARD_AT[name]}" if name in HEARD_AT else OUT[attention]
    if part == "router":
        return "mlp.hook_router_scores"
    return "mlp.hook_post" if part == "mlp" and name in ("gate_proj", "up_proj") else "hook_mlp_out"


def _of_parameters(shapes: nn.Module, tokens: int, source: int) -> Iterator[Work]:
    """The matrices inside the layers of a model that is no decoder."""
    for path, parameter in shapes.named_parameters():
        inside = INSIDE.match(path)
        if parameter.ndim != 2 or inside is None:
            continue
        stack, kind, layer, name = inside.groups()
        leaf = name.rpartition(".")[2]
        read = source if stack == "encoder" or (name.startswith("cross_attn.") and leaf in ("k_proj", "v_proj")) else tokens
        if kind == "cells":
            yield Work(f"blocks.{layer}", "hook_state", leaf, "cells", 2.0 * parameter.numel() * read)
            continue
        part = part_of(f"layers.0.{name}")
        tap = _tap(part, leaf, "cross_attn" if name.startswith("cross_attn.") else "attn")
        yield Work(f"{stack or 'blocks'}.{layer}", tap, leaf, part, 2.0 * parameter.numel() * read)


def _of_scores(shapes: Any, tokens: int, source: int) -> Iterator[Work]:
    """Queries that meet keys."""
    config = shapes.config
    pairs = tokens * (tokens + 1) / 2
    if config.kind == "encoder":
        yield from _scores("blocks", "attn", config.blocks, tokens * tokens)
    elif config.kind == "seq2seq":
        yield from _scores("encoder", "attn", config.encoder, source * source)
        yield from _scores("decoder", "attn", config.decoder, pairs)
        yield from _scores("decoder", "cross_attn", config.decoder, tokens * source)


def _scores(stack: str, attention: str, blocks: Any, pairs: float) -> Iterator[Work]:
    for i, block in enumerate(blocks):
        width = 2 * block.attention.n_heads * 2 * block.attention.d_head
        yield Work(f"{stack}.{i}", f"{attention}.hook_z", "scores", "scores", width * pairs)


def _of_head(shapes: Any, tokens: int) -> Iterator[Work]:
    """What scores words, and what stands between the layers and it."""
    if getattr(shapes, "hidden_proj", None) is not None:
        yield Work("blocks.0", "hook_state", "hidden_proj", "mlp", 2.0 * shapes.hidden_proj.weight.numel() * tokens)
    head = getattr(shapes, "head", None)
    if head is not None:
        yield Work("", "readout", "dense", "head", 2.0 * head.dense.weight.numel() * tokens)
    words = shapes.readout_weight
    if words is not None:
        yield Work("", "readout", "words", "head", 2.0 * words.numel() * tokens)
