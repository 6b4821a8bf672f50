"""The encoder: a Transformer that reads both ways, assembled from the decoder's bricks.

    x ← norm(word + place + type);   x ← norm(x + attention(x));   x ← norm(x + mlp(x))   per block
    scores = norm(act(W x)) Eᵀ + b                                                        the masked-word head

Devlin et al. 2018, arXiv:1810.04805. Norms come after the sums, as in Vaswani et al. 2017. Attention follows the one mask
rule without its causal part: i sees j iff they are of one document, so packing and padding are layouts here too. Dropout
and the next-sentence head are left out: no recipe uses them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from chainrule.core.datum import Layout, together
from chainrule.core.errors import ConfigError, RequestError
from chainrule.core.masked import MaskedModel
from chainrule.core.shapes import Bool, Float, Int, Tensor
from chainrule.core.tap import Tap, tell, under
from chainrule.layers.attention import GroupedQuery, Kernel, head_width
from chainrule.layers.init import GPT2, Init
from chainrule.layers.linear import embedding, linear
from chainrule.layers.mlp import Activation, Gated, Plain, activation
from chainrule.layers.norm import LayerNorm, RMSNorm


@dataclass(frozen=True, kw_only=True)
class EncoderBlock:
    """One layer: attention, then mlp, each added to the stream, and the sum normed."""

    kind: Literal["post_norm"] = "post_norm"
    attention: GroupedQuery
    mlp: Plain | Gated
    norm: LayerNorm | RMSNorm = field(default_factory=LayerNorm)

    def __post_init__(self) -> None:
        for name, cut in (("window", self.attention.window), ("chunk", self.attention.chunk)):
            if cut is not None:
                raise ConfigError(f"an encoder sees whole documents, but its attention has {name}={cut}; leave it out")

    def build(self, d_model: int, kernel: Kernel | None = None) -> nn.Module:
        """The layer of a stream of width ``d_model``; ``kernel`` replaces the attention's arithmetic."""
        return EncoderLayer(self, d_model, kernel)


@dataclass(frozen=True, kw_only=True)
class WordHead:
    """States to scores of words: a linear map with an activation, a norm, and the word table itself where ``tied``."""

    kind: Literal["word"] = "word"
    activation: Activation = "gelu"
    norm: LayerNorm | RMSNorm = field(default_factory=LayerNorm)
    tied: bool = True

    def build(self, d_model: int, vocab_size: int) -> "WordHeadLayer":
        """The head of states of width ``d_model``."""
        return WordHeadLayer(self, d_model, vocab_size)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """An encoder as data; ``core.schema`` writes and reads it. ``context`` counts the positions it knows."""

    kind: Literal["encoder"] = "encoder"
    version: Literal[1] = 1
    vocab_size: int
    context: int
    d_model: int
    types: int = 2
    """How many kinds of text share a row: 2 for pairs."""
    blocks: tuple[EncoderBlock, ...]
    norm: LayerNorm | RMSNorm = field(default_factory=LayerNorm)
    head: WordHead | None = field(default_factory=WordHead)
    pooler: bool = False
    """Whether a tanh layer reads the first state of a row, as BERT's next-sentence task trained it."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "context", "d_model", "types"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")
        if not self.blocks:
            raise ConfigError("blocks is empty; an encoder needs at least one block")

    @classmethod
    def uniform(
        cls, *, vocab_size: int, context: int, d_model: int, n_layers: int, n_heads: int, d_ff: int | None = None
    ) -> "EncoderConfig":
        """BERT's plan with equal layers; ``d_ff`` is four times ``d_model`` unless given."""
        d_head = head_width(d_model, n_heads)
        attention = GroupedQuery(n_heads=n_heads, n_kv_heads=n_heads, d_head=d_head, qkv_bias=True, o_bias=True)
        block = EncoderBlock(attention=attention, mlp=Plain(d_ff=d_ff or 4 * d_model, activation="gelu"))
        return cls(vocab_size=vocab_size, context=context, d_model=d_model, blocks=(block,) * n_layers)


class EncoderLayer(nn.Module):
    """norm(x + attention(x)), then norm(· + mlp(·))."""

    def __init__(self, block: EncoderBlock, d_model: int, kernel: Kernel | None) -> None:
        super().__init__()
        self.self_attn = block.attention.build(d_model, kernel)
        self.self_attn_norm = block.norm.build(d_model)
        self.mlp = block.mlp.build(d_model)
        self.mlp_norm = block.norm.build(d_model)

    def forward(self, x: Float[Tensor, "b t d"], mask: Bool[Tensor, "_ t t"], tap: Tap | None = None) -> Float[Tensor, "b t d"]:
        tell(tap, "hook_resid_pre", x)
        attention_out = self.self_attn(x, None, mask, None, under("attn.", tap))
        total = x + attention_out
        tell(tap, "hook_attn_out", attention_out)
        tell(tap, "hook_resid_mid", total)
        x = self.self_attn_norm(total)
        mlp_out = self.mlp(x, under("mlp.", tap))
        total = x + mlp_out
        x = self.mlp_norm(total)
        tell(tap, "hook_mlp_out", mlp_out)
        tell(tap, "hook_resid_post", total)
        tell(tap, "hook_normalized_resid_post", x)
        return x


class WordHeadLayer(nn.Module):
    """norm(act(W x)) Eᵀ + b, with the rows of E one a word."""

    def __init__(self, part: WordHead, d_model: int, vocab_size: int) -> None:
        super().__init__()
        self.dense = linear(d_model, d_model, bias=True)
        self.norm = part.norm.build(d_model)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.words = None if part.tied else linear(d_model, vocab_size)
        self.activation = activation(part.activation)

    def forward(self, states: Float[Tensor, "*b d"], table: Float[Tensor, "v d"]) -> Float[Tensor, "*b v"]:
        """The scores; ``table`` is the embedding, which an untied head does not read."""
        x = self.norm(self.activation(self.dense(states)))
        return F.linear(x, table, self.bias) if self.words is None else self.words(x) + self.bias


class Encoder(MaskedModel):
    """A masked model assembled from the parts of its config.

    ``generator`` draws the weights (None: torch's global one). Made under ``torch.device("meta")`` it holds shapes
    alone, for a loader to fill. ``kernel`` replaces the arithmetic of every attention; it is always given a mask.
    """

    def __init__(
        self, config: EncoderConfig, generator: torch.Generator | None = None, *, kernel: Kernel | None = None
    ) -> None:
        super().__init__()
        self.config, self.vocab_size = config, config.vocab_size
        self.context, self.width = config.context, config.d_model
        self.embed_tokens = embedding(config.vocab_size, config.d_model)
        self.embed_positions = embedding(config.context, config.d_model)
        self.embed_types = embedding(config.types, config.d_model)
        self.embed_norm = config.norm.build(config.d_model)
        self.layers = nn.ModuleList(block.build(config.d_model, kernel) for block in config.blocks)
        self.head = None if config.head is None else config.head.build(config.d_model, config.vocab_size)
        self.pooler = linear(config.d_model, config.d_model, bias=True) if config.pooler else None
        self.init(generator)

    def init(self, generator: torch.Generator | None = None, scheme: Init = GPT2) -> None:
        """Draw all matrices anew, from ``generator`` alone; on the meta device nothing is drawn."""
        if self.device.type != "meta":
            scheme.fill(self, len(self.layers), generator)

    @property
    def fills(self) -> bool:
        return self.head is not None

    @property
    def readout_weight(self) -> Float[Tensor, "v d"] | None:
        if self.head is None:
            return None
        return self.embed_tokens.weight if self.head.words is None else self.head.words.weight

    def aside(self) -> Sequence[nn.Parameter]:
        return () if self.pooler is None else tuple(self.pooler.parameters())

    def states(
        self,
        tokens: Int[Tensor, "b t"],
        *,
        layout: Layout | None = None,
        types: Int[Tensor, "b t"] | None = None,
        tap: Tap | None = None,
    ) -> Float[Tensor, "b t d"]:
        self._check(tokens, layout, types)
        where = Layout.plain(tokens[:1]) if layout is None else layout  # one plain row speaks for all
        x = self._embed(tokens, where, types, tap)
        mask = together(where, where)
        for i, layer in enumerate(self.layers):
            x = layer(x, mask, None if tap is None else under(f"blocks.{i}.", tap))
        return x

    def scores(self, states: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        if self.head is None:
            raise RequestError("this encoder has no masked-word head: it turns texts into states, and cannot fill in words")
        return self.head(states, self.embed_tokens.weight)

    def pooled(self, states: Float[Tensor, "b t d"]) -> Float[Tensor, "b d"]:
        """tanh(W x) of each row's first state, which in BERT is [CLS]."""
        if self.pooler is None:
            raise RequestError("this encoder has no pooler; take the mean of its states, or the first")
        return torch.tanh(self.pooler(states[:, 0]))

    def _embed(
        self, tokens: Int[Tensor, "b t"], where: Layout, types: Int[Tensor, "b t"] | None, tap: Tap | None
    ) -> Float[Tensor, "b t d"]:
        """Word + place + type, normed."""
        word, place = self.embed_tokens(tokens), self.embed_positions(where.position)
        kind = self.embed_types(torch.zeros_like(tokens) if types is None else types)
        x = self.embed_norm(word + kind + place)
        tell(tap, "embed.hook_embed", word)
        tell(tap, "embed.hook_pos_embed", place)
        tell(tap, "embed.hook_token_type_embed", kind)
        tell(tap, "hook_full_embed", x)
        return x

    def _check(self, tokens: Int[Tensor, "b t"], layout: Layout | None, types: Int[Tensor, "b t"] | None) -> None:
        """Refuse what the tables do not hold, before an index error would."""
        longest = tokens.shape[1]
        if layout is not None and longest > 0 and not torch.compiler.is_compiling():
            longest = int(layout.position.max()) + 1
        if longest > self.context and not torch.compiler.is_compiling():
            raise RequestError(f"a text of {longest} tokens is too long: this model reads at most {self.context}; cut it")
        if types is not None and not torch.compiler.is_compiling() and int(types.max()) >= self.config.types:
            raise RequestError(
                f"types reach {int(types.max())}, but this model knows {self.config.types}: give 0 and 1 for a pair"
            )
