"""One forward pass as the tap hears it: what flows where, its shape, the FLOPs between two calls, and the words at the end.

    tokens → hook_embed → blocks.0.attn.hook_q, …, blocks.0.hook_resid_post → … → readout → the likeliest words

There is no second pass and no hook: a tap is all there is. FLOPs are counted beforehand (``work``) and told where the result
of a product is first heard of; what no tap of a layer tells is told at its end, so that nothing is lost. On the meta device the
same pass runs on shapes alone.
"""

import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from chainrule.core.device import format_name, settle
from chainrule.core.masked import MaskedModel
from chainrule.core.shapes import Tensor
from chainrule.core.tap import Only
from chainrule.eval.explain.facts import Forward, Seen
from chainrule.eval.explain.work import Work, layers_of
from chainrule.logprobs.scoring import widen

HEARD = (
    "hook_embed", "hook_pos_embed", "hook_token_type_embed", "hook_full_embed", "hook_resid_pre", "hook_q", "hook_k", "hook_v",
    "hook_z", "hook_attn_out", "hook_cross_attn_out", "hook_resid_mid", "hook_resid_mid_cross", "hook_router_scores",
    "hook_router_experts", "hook_post", "hook_mlp_out", "hook_resid_post", "hook_normalized_resid_post", "hook_normalized",
    "hook_state",
)  # fmt: skip
"""All that parts tell but the attention patterns, which nothing computes unless they are asked for."""
ENDS = ("hook_mlp_out", "hook_state", "readout")
"""The last tap of a layer that stands behind a product."""
LAYER = re.compile(r"^(blocks|encoder|decoder)\.(\d+)\.(.+)")
BEST = 5


@dataclass
class Listener:
    """A tap that writes down what it hears."""

    spent: Callable[[str], tuple[float | None, tuple[str, ...]]]
    seen: list[Seen] = field(default_factory=list)
    last: float = field(default_factory=time.perf_counter)
    busy: float = 0.0
    """Seconds spent on writing down, which are no part of what is told."""

    def __call__(self, name: str, tensor: Tensor) -> None:
        settle(tensor.device)
        heard = time.perf_counter()
        flops, by = self.spent(name)
        leaves = name.endswith(("hook_resid_post", "hook_state", "hook_embed", "hook_full_embed"))
        known = leaves and tensor.device.type != "meta"
        self.seen.append(
            Seen(
                name=name,
                shape=tuple(tensor.shape),
                dtype=format_name(tensor.dtype),
                seconds=heard - self.last,
                flops=flops,
                by=by,
                rms=float(tensor.float().square().mean().sqrt()) if known else None,
            )
        )
        self.last = time.perf_counter()
        self.busy += self.last - heard


@torch.inference_mode()
def pass_over(
    model: Any,
    ids: Sequence[int],
    *,
    works: tuple[Work, ...] = (),
    formula: str = "",
    given: Mapping[str, Tensor] | None = None,
    prompt: str | None = None,
    pieces: Sequence[str] = (),
    piece: Callable[[int], str] = str,
    place: int = -1,
    asks: str = "the next token",
) -> Forward:
    """One pass over ``ids``; ``place`` is where the likeliest words are read off, ``piece`` how one is spelt."""
    tokens = torch.tensor([list(ids)], device=model.device)
    ledger = _ledger(works)
    listener = Listener(lambda name: _spent(ledger, name) if works else (None, ()))
    settle(tokens.device)
    begin = time.perf_counter()
    listener.last = begin
    scores = _scores(model, tokens, given, Only(HEARD, listener))
    if scores is not None:
        listener("readout", scores)
    settle(tokens.device)
    seconds = time.perf_counter() - begin - listener.busy
    return Forward(
        prompt=prompt,
        ids=tuple(ids),
        pieces=tuple(pieces),
        tokens=len(ids),
        seconds=seconds,
        seen=tuple(listener.seen),
        layers=layers_of(works),
        flops=sum(work.flops for work in works) if works else None,
        formula=formula,
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
    best = widen(scores).softmax(-1).topk(min(BEST, len(scores)))
    return tuple((piece(id), p) for id, p in zip(best.indices.tolist(), best.values.tolist(), strict=True))


Ledger = dict[str, list[Work]]
"""The products of each layer that have not been told yet."""


def _ledger(works: Iterable[Work]) -> Ledger:
    ledger: Ledger = {}
    for work in works:
        ledger.setdefault(work.place, []).append(work)
    return ledger


def _spent(ledger: Ledger, name: str) -> tuple[float, tuple[str, ...]]:
    """What was spent until this tap: what is known to end here, at a layer's end all that is left of it."""
    stack, layer, leaf = split(name)
    place = "" if layer is None else f"{stack}.{layer}"
    left = ledger.get(place, [])
    done = left if leaf in ENDS else [work for work in left if work.tap == leaf]
    ledger[place] = [work for work in left if work not in done]
    return sum(work.flops for work in done), tuple(dict.fromkeys(work.by for work in done))


def split(name: str) -> tuple[str, int | None, str]:
    """A tap's stack and layer, and its name within the layer.

    >>> split("blocks.3.attn.hook_q"), split("ln_final.hook_normalized")
    (('blocks', 3, 'attn.hook_q'), ('', None, 'ln_final.hook_normalized'))
    """
    match = LAYER.match(name)
    return (match[1], int(match[2]), match[3]) if match else ("", None, name)
