"""The encoder–decoder: p(y | x) = ∏ p(y_t | y_<t, x). One stack reads the source, the other writes and looks at what was read.

    s = encode(x);   h ← h + attention(h);   h ← h + attention(h → s);   h ← h + mlp(h)      per decoder block, with norms

Sutskever et al. 2014, arXiv:1409.3215; Vaswani et al. 2017, arXiv:1706.03762 (``Seq2SeqConfig.original``); Raffel et al. 2020,
arXiv:1910.10683 (``Seq2SeqConfig.t5``).

The condition is one tensor, ``given={"source": ids}``, int ``b s``: row i of the tokens is the target of row i of the sources.
An id of −1 (``PADDING``) is padding, wherever it stands, and changes nothing. All documents packed into one row share the row's
source, so pairs with different sources stand in rows of their own. A cache encodes the source once and holds, row by row, the
keys and values that cross attention looks at; ``keep`` moves them along with their row.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F

from chainrule.core.cache import Cache, TokenCache
from chainrule.core.datum import PADDING, Given, Layout, visible
from chainrule.core.errors import ConfigError, RequestError
from chainrule.core.model import LanguageModel, replay
from chainrule.core.shapes import Float, Int, Tensor
from chainrule.core.tap import Tap, under
from chainrule.layers.attention import head_width
from chainrule.layers.cache import KVCache
from chainrule.layers.init import GPT2, Init
from chainrule.layers.linear import embedding, linear, plain_weight
from chainrule.layers.mlp import Gated, Plain
from chainrule.layers.multi_head import MultiHead
from chainrule.layers.norm import LayerNorm, RMSNorm
from chainrule.layers.relative_bias import RelativeBias
from chainrule.layers.sinusoidal import Sinusoidal
from chainrule.models.stack import AnyStackBlock, PostNormBlock, PreNormBlock, Source, Stack


@dataclass(frozen=True, kw_only=True)
class Seq2SeqConfig:
    """An encoder–decoder as data. ``context`` is the longest source and the longest target; None sets no limit."""

    kind: Literal["seq2seq"] = "seq2seq"
    version: Literal[1] = 1
    vocab_size: int
    context: int | None
    d_model: int
    encoder: tuple[AnyStackBlock, ...]
    decoder: tuple[AnyStackBlock, ...]
    position: Sinusoidal | RelativeBias
    norm: RMSNorm | LayerNorm | None
    """The norm after the last block of each stack; None where the blocks end with one."""
    tied: bool = True
    """Whether the readout is the embedding table itself."""
    embed_scale: float = 1.0
    head_scale: float = 1.0
    """What the last state is multiplied by before the readout."""
    start: int | None = None
    """The id that every target begins with; None: the tokenizer's own begin token."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")
        if self.context is not None and self.context < 1:
            raise ConfigError(f"context={self.context} must be at least 1; leave it null for no limit")
        for name, blocks in (("encoder", self.encoder), ("decoder", self.decoder)):
            if not blocks:
                raise ConfigError(f"{name} is empty; it needs at least one block")
            heads = sorted({block.attention.n_heads for block in blocks})
            if isinstance(self.position, RelativeBias) and len(heads) > 1:
                raise ConfigError(f"the {name}'s blocks have {heads} heads, but a relative bias is one table for all of them")

    @classmethod
    def original(
        cls, *, vocab_size: int, context: int, d_model: int, n_layers: int, n_heads: int, d_ff: int
    ) -> "Seq2SeqConfig":
        """The Transformer of 2017: sinusoids, LayerNorm after each sum, ReLU, one table for everything."""
        attention = MultiHead(n_heads=n_heads, d_head=head_width(d_model, n_heads), bias=True)
        block = PostNormBlock(attention=attention, mlp=Plain(d_ff=d_ff, activation="relu"))
        return cls(
            vocab_size=vocab_size, context=context, d_model=d_model, encoder=(block,) * n_layers, decoder=(block,) * n_layers,
            position=Sinusoidal(), norm=None, embed_scale=math.sqrt(d_model),
        )  # fmt: skip

    @classmethod
    def t5(cls, *, vocab_size: int, context: int, d_model: int, n_layers: int, n_heads: int, d_ff: int) -> "Seq2SeqConfig":
        """T5 1.1: relative bias, RMSNorm before each sublayer, a gated mlp, no bias anywhere; one table for everything."""
        attention = MultiHead(n_heads=n_heads, d_head=head_width(d_model, n_heads))
        block = PreNormBlock(attention=attention, mlp=Gated(d_ff=d_ff, activation="gelu_tanh"))
        return cls(
            vocab_size=vocab_size, context=context, d_model=d_model, encoder=(block,) * n_layers, decoder=(block,) * n_layers,
            position=RelativeBias(), norm=RMSNorm(),
        )  # fmt: skip


class Seq2Seq(LanguageModel):
    """A model of a target given its source. ``generator`` draws the weights (None: torch's global one)."""

    needs = ("source",)

    def __init__(self, config: Seq2SeqConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config, self.vocab_size, self.context, self.start = config, config.vocab_size, config.context, config.start
        self.embed_tokens = embedding(config.vocab_size, config.d_model)
        self.encoder = Stack(config.encoder, config.d_model, config.position, config.norm, decodes=False)
        self.decoder = Stack(config.decoder, config.d_model, config.position, config.norm, decodes=True)
        self.lm_head = None if config.tied else linear(config.d_model, config.vocab_size)
        self.init(generator)

    def init(self, generator: torch.Generator | None = None, scheme: Init = GPT2) -> None:
        """Draw all matrices anew, from ``generator`` alone; on the meta device nothing is drawn."""
        if self.device.type != "meta":
            scheme.fill(self, max(len(self.config.encoder), len(self.config.decoder)), generator)

    def encode(self, source: Int[Tensor, "b s"], tap: Tap | None = None) -> Float[Tensor, "b s d"]:
        """The states of the source, each having seen all of it; those at padding mean nothing."""
        real = source != PADDING
        position = (real.cumsum(1) - 1).clamp(min=0)
        seen = real[:, None, :] | ~real[:, :, None]  # padding sees all, since to see nothing would be 0/0
        x = self._embed(source.clamp(min=0), position)
        return self.encoder(x, position, position, seen, tap=under("encoder.", tap))

    def hidden(
        self,
        tokens: Int[Tensor, "b t"],
        cache: Cache | None = None,
        *,
        layout: Layout | None = None,
        given: Given | None = None,
        tap: Tap | None = None,
    ) -> Float[Tensor, "b t d"]:
        if isinstance(cache, TokenCache):
            return replay(self, cache, tokens, layout=layout, given=given, tap=tap)
        source = self._looked_at(len(tokens), cache, given, tap)
        if cache is None:
            self._check_length("target", tokens.shape[1] if layout is None else int(layout.position.max()) + 1)
            where = Layout.plain(tokens[:1]) if layout is None else layout  # one row's positions speak for all
            key, store = where, None
        else:
            memory = self._own(cache)
            where = memory.layout(tokens, layout)
            store = partial(_store, memory, memory.append(where, plain=layout is None))
            key = memory.layout_of_keys
        seen = visible(where, key) | ~where.real[:, :, None]
        x = self._embed(tokens, where.position)
        x = self.decoder(x, where.position, key.position, seen, source, store, under("decoder.", tap))
        return x * self.config.head_scale

    def readout(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        return F.linear(hidden, self.embed_tokens.weight) if self.lm_head is None else self.lm_head(hidden)

    @property
    def readout_weight(self) -> Float[Tensor, "v d"] | None:
        return plain_weight(self.embed_tokens if self.lm_head is None else self.lm_head)

    def cache(self, rows: int, capacity: int, given: Given | None = None, pool: object | None = None) -> KVCache:
        """A memory for ``rows`` targets; ``given`` their sources, which are encoded here, once."""
        shapes = [(block.attention.shape, block.attention.shape) for block in self.config.decoder]
        known = None if given is None else self._remembered(rows, given, None)
        dtype = self.embed_tokens.weight.dtype
        return KVCache(rows, self.checked_capacity(capacity), shapes, given=known, device=self.device, dtype=dtype)

    def _embed(self, tokens: Int[Tensor, "b t"], position: Int[Tensor, "_ t"]) -> Float[Tensor, "b t d"]:
        x = self.embed_tokens(tokens) * self.config.embed_scale
        if isinstance(self.config.position, Sinusoidal):
            x = x + self.config.position.added(position, self.config.d_model).to(x.dtype)
        return x

    def _looked_at(self, rows: int, cache: Cache | None, given: Given | None, tap: Tap | None) -> list[Source]:
        """Keys and values of the source, for each block of the decoder, and which of them are no padding."""
        known = cache.given if given is None and cache is not None else None
        if known is None:
            known = self._remembered(rows, given, tap)
        if cache is not None:
            cache.given = {name: tensor.detach() for name, tensor in known.items()}
        real = (known["source"] != PADDING)[:, None, None, :]
        return [Source(known[f"keys.{i}"], known[f"values.{i}"], real) for i in range(len(self.config.decoder))]

    def _remembered(self, rows: int, given: Given | None, tap: Tap | None) -> dict[str, Tensor]:
        """All that a row must know of its source, as tensors whose first axis is the row."""
        self.check_given(given, rows)
        assert given is not None
        source = given["source"].to(self.device)
        states = self.encode(source, tap)
        known = {"source": source}
        for i, (k, v) in enumerate(self.decoder.across(states)):
            known |= {f"keys.{i}": k.transpose(1, 2), f"values.{i}": v.transpose(1, 2)}  # b s h c -> b h s c
        return known

    def check_given(self, given: Given | None, rows: int = 1) -> None:
        """Raises ``ConfigError`` or ``RequestError`` where there is no source, or none that can be read."""
        if given is None:
            raise ConfigError(
                "this model writes a target given a source, and was given none; pass given={'source': ids} "
                "(generate takes the source as its prompt, score and next take --given, eval measures translations)"
            )
        super().check_given(given, rows)
        source = given["source"]
        if source.ndim != 2 or len(source) != rows or source.is_floating_point():
            shape = " by ".join(map(str, source.shape))
            raise ConfigError(f"the source is {source.dtype} of {shape}; it must be ids, one row for each of {rows} targets")
        self._check_length("source", source.shape[1])
        if not torch.compiler.is_compiling():
            _check_ids(source, self.vocab_size)

    def _check_length(self, what: str, length: int) -> None:
        if self.context is not None and length > self.context:
            raise RequestError(f"a {what} of {length} tokens is too long: this model reads at most {self.context}; cut it")

    def _own(self, cache: Cache) -> KVCache:
        if not isinstance(cache, KVCache):
            raise ConfigError(f"a Seq2Seq reads a KVCache, not a {type(cache).__name__}; use model.cache()")
        return cache


def _check_ids(source: Int[Tensor, "b s"], vocab_size: int) -> None:
    if source.numel() == 0 or not bool((source != PADDING).any(1).all()):
        raise RequestError("a source is empty; give at least one token (an end token will do)")
    least, most = int(source.min()), int(source.max())
    if least < PADDING or most >= vocab_size:
        worst = least if least < PADDING else most
        raise RequestError(
            f"a source holds the id {worst}; this model knows ids 0 to {vocab_size - 1}, and {PADDING} for padding"
        )


def _store(cache: KVCache, slot: Int[Tensor, "b t"], layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return cache.store(layer, slot, k, v)
