"""One forward pass as the tap hears it: what flows where, its shape, the FLOPs between two calls, and the words at the end.

    tokens → hook_embed → blocks.0.attn.hook_q, …, blocks.0.hook_resid_post → … → readout → the likeliest words

There is no second pass and no hook: a tap is all there is. FLOPs are those of ``eval.flops``, so their sum is ``plan``'s: a
matrix is counted where its product is first heard of, comparing tokens at ``hook_z``. On the meta device the same pass runs on
shapes alone.
"""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from chainrule.core.masked import MaskedModel
from chainrule.core.shapes import Tensor
from chainrule.core.tap import Only
from chainrule.eval.anatomy import Anatomy
from chainrule.eval.explain.facts import Forward, LayerCost, Seen
from chainrule.eval.flops import flops_by_layer, formula
from chainrule.hub.weights import format_name

HEARD = (
    "hook_embed", "hook_pos_embed", "hook_token_type_embed", "hook_full_embed", "hook_resid_pre", "hook_q", "hook_k", "hook_v",
    "hook_z", "hook_attn_out", "hook_cross_attn_out", "hook_resid_mid", "hook_resid_mid_cross", "hook_router_scores",
    "hook_router_experts", "hook_post", "hook_mlp_out", "hook_resid_post", "hook_normalized_resid_post", "hook_normalized",
    "hook_state",
)  # fmt: skip
"""All that parts tell but the attention patterns, which nothing computes unless they are asked for."""
HEARD_AT = {
    "hook_q": ("q_proj", "q_a_proj", "q_b_proj"),
    "hook_k": ("k_proj", "kv_a_proj_with_mqa"),
    "hook_v": ("v_proj", "kv_b_proj"),
    "hook_attn_out": ("o_proj",),
    "hook_router_scores": ("gate", "router"),
    "hook_post": ("gate_proj", "up_proj"),
}
"""The tap at which a matrix of a layer has done its work; what no tap of the layer tells is heard at ``hook_mlp_out``."""
LAYER = re.compile(r"^(?:blocks\.|(encoder|decoder)\.)(\d+)\.(.+)")
BEST = 5


@dataclass
class Listener:
    """A tap that writes down what it hears."""

    spent: Callable[[str], tuple[float | None, tuple[str, ...]]]
    seen: list[Seen] = field(default_factory=list)
    last: float = field(default_factory=time.perf_counter)

    def __call__(self, name: str, tensor: Tensor) -> None:
        seconds = time.perf_counter() - self.last
        flops, by = self.spent(name)
        leaves = name.endswith(("hook_resid_post", "hook_state", "hook_embed", "hook_full_embed"))
        known = leaves and tensor.device.type != "meta"
        self.seen.append(
            Seen(
                name=name,
                shape=tuple(tensor.shape),
                dtype=format_name(tensor.dtype),
                seconds=seconds,
                flops=flops,
                by=by,
                rms=float(tensor.float().square().mean().sqrt()) if known else None,
            )
        )
        self.last = time.perf_counter()  # writing down is not part of what is told


@torch.inference_mode()
def pass_over(
    model: Any,
    ids: Sequence[int],
    *,
    anatomy: Anatomy | None,
    given: Mapping[str, Tensor] | None = None,
    prompt: str | None = None,
    pieces: Sequence[str] = (),
    piece: Callable[[int], str] = str,
    place: int = -1,
    asks: str = "the next token",
) -> Forward:
    """One pass over ``ids``; ``place`` is where the likeliest words are read off, ``piece`` how one is spelt."""
    tokens = torch.tensor([list(ids)], device=model.device)
    ledger = None if anatomy is None else _ledger(anatomy, len(ids))
    listener = Listener(lambda name: (None, ()) if ledger is None else _spent(ledger, name))
    begin = time.perf_counter()
    listener.last = begin
    scores = _scores(model, tokens, given, Only(HEARD, listener))
    if scores is not None:
        listener("readout", scores)
    seconds = time.perf_counter() - begin
    layers = () if anatomy is None else _layers(anatomy, len(ids))
    return Forward(
        prompt=prompt,
        ids=tuple(ids),
        pieces=tuple(pieces),
        tokens=len(ids),
        seconds=seconds,
        seen=tuple(listener.seen),
        layers=layers,
        flops=None if anatomy is None else sum(sum(layer.flops.values()) for layer in layers),
        formula="" if anatomy is None else formula(anatomy, len(ids)),
        asks=asks,
        likeliest=() if scores is None or scores.is_meta else _likeliest(scores[0, place], piece),
    )


def _scores(model: Any, tokens: Tensor, given: Mapping[str, Tensor] | None, tap: Only) -> Tensor | None:
    """What the model says at every place; None for an encoder that has states alone."""
    if isinstance(model, MaskedModel):
        states = model.states(tokens, tap=tap)
        return model.scores(states) if model.fills else None
    return model.readout(model.hidden(tokens, given=given, tap=tap))


def _likeliest(scores: Tensor, piece: Callable[[int], str]) -> tuple[tuple[str, float], ...]:
    wide = torch.promote_types(scores.dtype, torch.float32)
    best = scores.to(wide).softmax(-1).topk(min(BEST, len(scores)))
    return tuple((piece(id), p) for id, p in zip(best.indices.tolist(), best.values.tolist(), strict=True))


Ledger = dict[int | None, dict[str, tuple[float, tuple[str, ...]]]]
"""Layer → tap → FLOPs of the whole row, and the matrices that they go into. What has been told is struck out."""


def _ledger(anatomy: Anatomy, length: int) -> Ledger:
    ledger: Ledger = {i: {} for i in (*range(len(anatomy.blocks)), None)}
    for matrix in anatomy.matrices:
        at = "readout" if matrix.layer is None else _heard_at(matrix.name)
        spent, by = ledger[matrix.layer].get(at, (0.0, ()))
        ledger[matrix.layer][at] = (spent + 2.0 * matrix.used * length, (*by, matrix.name))
    for i, costs in enumerate(flops_by_layer(anatomy, length)[:-1]):
        ledger[i]["hook_z"] = (costs.scores * length, ("scores",))
    return ledger


def _heard_at(name: str) -> str:
    return next((tap for tap, names in HEARD_AT.items() if name in names), "hook_mlp_out")


def _spent(ledger: Ledger, name: str) -> tuple[float, tuple[str, ...]]:
    """What was spent until this tap: what is known to end here, at a layer's end all that is left of it."""
    layer, leaf = split(name)
    tap, left = leaf.rpartition(".")[2], ledger[layer]
    told = list(left) if tap == "hook_mlp_out" else [tap] if tap in left else []
    entries = [left.pop(name) for name in told]
    return sum(spent for spent, _ in entries), tuple(dict.fromkeys(name for _, by in entries for name in by))


def split(name: str) -> tuple[int | None, str]:
    """A tap's layer, and its name within the layer.

    >>> split("blocks.3.attn.hook_q"), split("ln_final.hook_normalized")
    ((3, 'attn.hook_q'), (None, 'ln_final.hook_normalized'))
    """
    match = LAYER.match(name)
    return (int(match[2]), match[3]) if match else (None, name)


def _layers(anatomy: Anatomy, length: int) -> tuple[LayerCost, ...]:
    """FLOPs of the whole row layer by layer, the head's last."""
    told = flops_by_layer(anatomy, length)
    names = [f"layer {i}" for i in range(len(told) - 1)] + ["head"]
    return tuple(LayerCost(name=name, flops=_by_part(costs, length)) for name, costs in zip(names, told, strict=True))


def _by_part(costs: Any, length: int) -> dict[str, float]:
    spent = {part: float(count * length) for part, count in costs.matrices.items()}
    return spent | ({"scores": costs.scores * length} if costs.scores else {})
