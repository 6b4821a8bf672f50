"""A stack of the encoder–decoder: blocks one after the other, with what they share.

    PreNormBlock    x ← x + f(norm(x))       Xiong et al. 2020, arXiv:2002.04745
    PostNormBlock   x ← norm(x + f(x))       Vaswani et al. 2017, arXiv:1706.03762

Both stacks are this one: a decoder's blocks also look at the source. Taps have TransformerLens' names of an encoder–decoder
(``encoder.0.attn.hook_pattern``, ``decoder.1.cross_attn.hook_z``, ``decoder.1.hook_resid_post``).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import nn

from chainrule.core.shapes import Bool, Float, Int, Tensor
from chainrule.core.tap import Tap, tell, under
from chainrule.layers.mlp import Gated, Plain
from chainrule.layers.multi_head import Mask, MultiHead
from chainrule.layers.norm import LayerNorm, RMSNorm
from chainrule.layers.relative_bias import RelativeBias
from chainrule.layers.sinusoidal import Sinusoidal

Store = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor]]
"""A cache: takes a layer's index and its new keys and values ``b t h c``, gives all of the row's, ``b h s c``."""


@dataclass(frozen=True, kw_only=True)
class PreNormBlock:
    """One layer: attention, in a decoder also to the source, and an mlp, with a norm before each."""

    kind: Literal["pre_norm"] = "pre_norm"
    attention: MultiHead
    mlp: Gated | Plain
    norm: RMSNorm | LayerNorm = field(default_factory=RMSNorm)

    def build(self, d_model: int, *, decodes: bool) -> "StackLayer":
        """The layer of a stream of width ``d_model``."""
        return PreNormStackLayer(self, d_model, decodes)


@dataclass(frozen=True, kw_only=True)
class PostNormBlock:
    """One layer: attention, in a decoder also to the source, and an mlp, with a norm after each sum."""

    kind: Literal["post_norm"] = "post_norm"
    attention: MultiHead
    mlp: Gated | Plain
    norm: RMSNorm | LayerNorm = field(default_factory=LayerNorm)

    def build(self, d_model: int, *, decodes: bool) -> "StackLayer":
        """The layer of a stream of width ``d_model``."""
        return PostNormStackLayer(self, d_model, decodes)


AnyStackBlock = PreNormBlock | PostNormBlock
"""The parts that a layer of an encoder–decoder may be."""


class Source(NamedTuple):
    """What a block of the decoder sees of the source: keys and values, and which are no padding."""

    k: Float[Tensor, "b h s c"]
    v: Float[Tensor, "b h s c"]
    real: Bool[Tensor, "b 1 1 s"]


class StackLayer(nn.Module, ABC):
    """Two sublayers, three where there is a source; ``add`` says how each is added to the stream."""

    def __init__(self, block: AnyStackBlock, d_model: int, decodes: bool) -> None:
        super().__init__()
        self.self_attn = block.attention.build(d_model)
        self.self_attn_norm = block.norm.build(d_model)
        if decodes:
            self.cross_attn = block.attention.build(d_model)
            self.cross_attn_norm = block.norm.build(d_model)
        self.mlp = block.mlp.build(d_model)
        self.mlp_norm = block.norm.build(d_model)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        mask: Mask,
        source: Source | None,
        store: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None,
        tap: Tap | None,
    ) -> Float[Tensor, "b t d"]:
        look = partial(self._look, mask=mask, store=store, tap=under("attn.", tap))
        tell(tap, "hook_resid_pre", x)
        x = self.add(x, self.self_attn_norm, look, "hook_attn_out", tap)
        tell(tap, "hook_resid_mid", x)
        if source is not None:
            across = partial(self._across, source=source, tap=under("cross_attn.", tap))
            x = self.add(x, self.cross_attn_norm, across, "hook_cross_attn_out", tap)
            tell(tap, "hook_resid_mid_cross", x)
        x = self.add(x, self.mlp_norm, partial(self.mlp, tap=under("mlp.", tap)), "hook_mlp_out", tap)
        tell(tap, "hook_resid_post", x)
        return x

    @abstractmethod
    def add(self, x: Tensor, norm: nn.Module, f: Callable[[Tensor], Tensor], name: str, tap: Tap | None) -> Tensor:
        """The stream after the sublayer ``f`` and its norm; the output of ``f`` is shown to the tap as ``name``."""

    def _look(
        self,
        x: Float[Tensor, "b t d"],
        mask: Mask,
        store: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None,
        tap: Tap | None,
    ) -> Float[Tensor, "b t d"]:
        k, v = self.self_attn.keys(x)
        k, v = (k.transpose(1, 2), v.transpose(1, 2)) if store is None else store(k, v)
        return self.self_attn(x, k, v, mask, tap)

    def _across(self, x: Float[Tensor, "b t d"], source: Source, tap: Tap | None) -> Float[Tensor, "b t d"]:
        return self.cross_attn(x, source.k, source.v, source.real, tap)


class PreNormStackLayer(StackLayer):
    """x + f(norm(x))."""

    def add(self, x: Tensor, norm: nn.Module, f: Callable[[Tensor], Tensor], name: str, tap: Tap | None) -> Tensor:
        out = f(norm(x))
        tell(tap, name, out)
        return x + out


class PostNormStackLayer(StackLayer):
    """norm(x + f(x))."""

    def add(self, x: Tensor, norm: nn.Module, f: Callable[[Tensor], Tensor], name: str, tap: Tap | None) -> Tensor:
        out = f(x)
        tell(tap, name, out)
        return norm(x + out)


class Stack(nn.Module):
    """The blocks, the table of relative positions where there is one, and the last norm where there is one."""

    def __init__(
        self,
        blocks: Sequence[AnyStackBlock],
        d_model: int,
        position: Sinusoidal | RelativeBias,
        norm: RMSNorm | LayerNorm | None,
        *,
        decodes: bool,
    ) -> None:
        super().__init__()
        relative = isinstance(position, RelativeBias)
        self.position = position.build(blocks[0].attention.n_heads, both_ways=not decodes) if relative else None
        self.layers = nn.ModuleList(block.build(d_model, decodes=decodes) for block in blocks)
        self.norm = None if norm is None else norm.build(d_model)

    def across(self, states: Float[Tensor, "b s d"]) -> list[tuple[Float[Tensor, "b s h c"], Float[Tensor, "b s h c"]]]:
        """Each block's keys and values of the source, whose states these are."""
        return [layer.cross_attn.keys(states) for layer in self.layers if isinstance(layer, StackLayer)]

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        query: Int[Tensor, "_ t"],
        key: Int[Tensor, "_ s"],
        seen: Bool[Tensor, "_ t s"],
        source: Sequence[Source] | None = None,
        store: Store | None = None,
        tap: Tap | None = None,
    ) -> Float[Tensor, "b t d"]:
        """The stream after all blocks; ``query`` and ``key`` are positions, ``seen`` the mask."""
        mask = seen[:, None]
        if self.position is not None:
            mask = self.position(query, key).masked_fill(~mask, -torch.inf)
        tell(tap, "hook_embed", x)
        for i, layer in enumerate(self.layers):
            seen_of_source = None if source is None else source[i]
            own = None if store is None else partial(store, i)
            x = layer(x, mask, seen_of_source, own, under(f"{i}.", tap))
        x = x if self.norm is None else self.norm(x)
        tell(tap, "final_ln.hook_normalized", x)
        return x
