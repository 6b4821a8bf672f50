"""The blocks of a decoder: how attention and mlp are joined to the residual stream, and where the norms stand.

    Block           x ← x + attention(norm(x));           x ← x + mlp(norm(x))              Xiong et al. 2020, arXiv:2002.04745
    SandwichBlock   x ← x + norm(attention(norm(x)));     x ← x + norm(mlp(norm(x)))        Gemma 2, GLM-4
    OutputNormBlock x ← x + norm(attention(x));           x ← x + norm(mlp(x))              OLMo 2, arXiv:2501.00656
    BareBlock       x ← attention(norm(x));               x ← mlp(norm(x))                  to see what the residual is for

Norms carry the names that published weights give them.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from chainrule.core.shapes import Bool, Float, Tensor
from chainrule.core.tap import Tap, tell, under
from chainrule.layers.attention import GroupedQuery, Kernel, Remember, Turn
from chainrule.layers.latent import MultiHeadLatent
from chainrule.layers.mlp import Gated, Plain
from chainrule.layers.moe import MixtureOfExperts
from chainrule.layers.norm import LayerNorm, NoNorm, OffsetRMSNorm, RMSNorm
from chainrule.layers.position import Learned, NoPosition, Temperature
from chainrule.layers.rope import Rope


@dataclass(frozen=True, kw_only=True)
class Block:
    """Norms before attention and mlp, whose outputs are added to the stream."""

    kind: Literal["pre_norm"] = "pre_norm"
    attention: GroupedQuery | MultiHeadLatent
    mlp: Gated | Plain | MixtureOfExperts
    norm: RMSNorm | OffsetRMSNorm | LayerNorm | NoNorm = field(default_factory=RMSNorm)
    position: Rope | NoPosition | Learned | Temperature | None = None
    """This layer's own positions; None takes the decoder's."""

    def build(self, d_model: int, kernel: Kernel | None = None) -> "BlockLayer":
        """The layer of a stream of width ``d_model``; ``kernel`` replaces the attention's arithmetic."""
        return PreNormLayer(self, d_model, kernel)


@dataclass(frozen=True, kw_only=True)
class SandwichBlock:
    """Norms before and after attention and mlp."""

    kind: Literal["sandwich"] = "sandwich"
    attention: GroupedQuery | MultiHeadLatent
    mlp: Gated | Plain | MixtureOfExperts
    norm: RMSNorm | OffsetRMSNorm | LayerNorm | NoNorm = field(default_factory=RMSNorm)
    position: Rope | NoPosition | Learned | Temperature | None = None

    def build(self, d_model: int, kernel: Kernel | None = None) -> "BlockLayer":
        """The layer of a stream of width ``d_model``; ``kernel`` replaces the attention's arithmetic."""
        return SandwichLayer(self, d_model, kernel)


@dataclass(frozen=True, kw_only=True)
class OutputNormBlock:
    """Norms of the outputs of attention and mlp, before they are added."""

    kind: Literal["output_norm"] = "output_norm"
    attention: GroupedQuery | MultiHeadLatent
    mlp: Gated | Plain | MixtureOfExperts
    norm: RMSNorm | OffsetRMSNorm | LayerNorm | NoNorm = field(default_factory=RMSNorm)
    position: Rope | NoPosition | Learned | Temperature | None = None

    def build(self, d_model: int, kernel: Kernel | None = None) -> "BlockLayer":
        """The layer of a stream of width ``d_model``; ``kernel`` replaces the attention's arithmetic."""
        return OutputNormLayer(self, d_model, kernel)


@dataclass(frozen=True, kw_only=True)
class BareBlock:
    """``Block`` without the residual stream: each output takes its place."""

    kind: Literal["bare"] = "bare"
    attention: GroupedQuery | MultiHeadLatent
    mlp: Gated | Plain | MixtureOfExperts
    norm: RMSNorm | OffsetRMSNorm | LayerNorm | NoNorm = field(default_factory=RMSNorm)
    position: Rope | NoPosition | Learned | Temperature | None = None

    def build(self, d_model: int, kernel: Kernel | None = None) -> "BlockLayer":
        """The layer of a stream of width ``d_model``; ``kernel`` replaces the attention's arithmetic."""
        return BareLayer(self, d_model, kernel)


AnyBlock = Block | SandwichBlock | OutputNormBlock | BareBlock
"""The parts that a layer of a decoder may be."""


class BlockLayer(nn.Module, ABC):
    """Attention, then mlp; ``join`` says how the output of each meets the stream."""

    def __init__(self, block: AnyBlock, d_model: int, kernel: Kernel | None) -> None:
        super().__init__()
        self.self_attn = block.attention.build(d_model, kernel)
        self.mlp = block.mlp.build(d_model)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        tables: Turn | None,
        mask: Bool[Tensor, "_ t s"] | None,
        remember: Remember | None,
        tap: Tap | None,
    ) -> Float[Tensor, "b t d"]:
        tell(tap, "hook_resid_pre", x)
        attention_out = self.attention_out(x, tables, mask, remember, under("attn.", tap))
        x = self.join(x, attention_out)
        tell(tap, "hook_attn_out", attention_out)
        tell(tap, "hook_resid_mid", x)
        mlp_out = self.mlp_out(x, under("mlp.", tap))
        x = self.join(x, mlp_out)
        tell(tap, "hook_mlp_out", mlp_out)
        tell(tap, "hook_resid_post", x)
        return x

    def join(self, x: Float[Tensor, "b t d"], out: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """The stream after an output."""
        return x + out

    @abstractmethod
    def attention_out(
        self,
        x: Float[Tensor, "b t d"],
        tables: Turn | None,
        mask: Bool[Tensor, "_ t s"] | None,
        remember: Remember | None,
        tap: Tap | None,
    ) -> Float[Tensor, "b t d"]:
        """Attention with its norms."""

    @abstractmethod
    def mlp_out(self, x: Float[Tensor, "b t d"], tap: Tap | None) -> Float[Tensor, "b t d"]:
        """The mlp with its norms."""


class PreNormLayer(BlockLayer):
    """x + attention(norm(x)), then + mlp(norm(·))."""

    def __init__(self, block: Block, d_model: int, kernel: Kernel | None) -> None:
        super().__init__(block, d_model, kernel)
        self.input_layernorm = block.norm.build(d_model)
        self.post_attention_layernorm = block.norm.build(d_model)

    def attention_out(self, x, tables, mask, remember, tap):
        return self.self_attn(self.input_layernorm(x), tables, mask, remember, tap)

    def mlp_out(self, x, tap):
        return self.mlp(self.post_attention_layernorm(x), tap)


class SandwichLayer(BlockLayer):
    """x + norm(attention(norm(x))), then + norm(mlp(norm(·)))."""

    def __init__(self, block: SandwichBlock, d_model: int, kernel: Kernel | None) -> None:
        super().__init__(block, d_model, kernel)
        self.input_layernorm = block.norm.build(d_model)
        self.post_attention_layernorm = block.norm.build(d_model)
        self.pre_feedforward_layernorm = block.norm.build(d_model)
        self.post_feedforward_layernorm = block.norm.build(d_model)

    def attention_out(self, x, tables, mask, remember, tap):
        return self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), tables, mask, remember, tap))

    def mlp_out(self, x, tap):
        return self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x), tap))


class OutputNormLayer(BlockLayer):
    """x + norm(attention(x)), then + norm(mlp(·))."""

    def __init__(self, block: OutputNormBlock, d_model: int, kernel: Kernel | None) -> None:
        super().__init__(block, d_model, kernel)
        self.post_attention_layernorm = block.norm.build(d_model)
        self.post_feedforward_layernorm = block.norm.build(d_model)

    def attention_out(self, x, tables, mask, remember, tap):
        return self.post_attention_layernorm(self.self_attn(x, tables, mask, remember, tap))

    def mlp_out(self, x, tap):
        return self.post_feedforward_layernorm(self.mlp(x, tap))


class BareLayer(BlockLayer):
    """attention(norm(x)), then mlp(norm(·)): nothing is carried past them."""

    def __init__(self, block: BareBlock, d_model: int, kernel: Kernel | None) -> None:
        super().__init__(block, d_model, kernel)
        self.input_layernorm = block.norm.build(d_model)
        self.post_attention_layernorm = block.norm.build(d_model)

    def join(self, x: Float[Tensor, "b t d"], out: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        return out

    def attention_out(self, x, tables, mask, remember, tap):
        return self.self_attn(self.input_layernorm(x), tables, mask, remember, tap)

    def mlp_out(self, x, tap):
        return self.mlp(self.post_attention_layernorm(x), tap)
