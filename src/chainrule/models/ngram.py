"""N-grams: the next token given the last n−1, from a table of counts.

    mle          p(w | c) = count(c w) / count(c ·)
    laplace      p(w | c) = (count(c w) + α) / (count(c ·) + α V)
    kneser-ney   p(w | c) = max(a(c w) − D, 0) / a(c ·) + γ(c) · p(w | c without its first token)

Modified Kneser–Ney, interpolated (Chen and Goodman 1998, TR-10-98), as KenLM's lmplz computes it: below the highest order a
counts after how many different tokens an n-gram occurs (at the beginning of a document: how often), and the discounts D₁,
D₂, D₃₊ follow from the counts of counts. All three are one recursion from the uniform distribution upwards,

    p_k(w | c) = share(c w) + rest(c) · p_{k−1}(w | shorter c)

**An unseen context** leaves the shorter one's distribution as it is (mle, kneser-ney) or gives the uniform one (laplace, by its
own formula). Near a document's beginning the context is what the document offers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from chainrule.core.cache import Cache
from chainrule.core.datum import Given, Layout
from chainrule.core.errors import ConfigError
from chainrule.core.model import LanguageModel, replay
from chainrule.core.shapes import Float, Int, Tensor
from chainrule.core.tap import Tap
from chainrule.models.ngram_counts import Ints, Level, count_ngrams

Smoothing = Literal["mle", "laplace", "kneser-ney"]
UNSEEN, ABSENT = -1, -2
"""A context that was never counted; a context longer than what the document has so far."""
FALLBACK = (0.5, 1.0, 1.5)
"""The discounts where the counts of counts give none, as lmplz has them with --discount_fallback."""


@dataclass(frozen=True, kw_only=True)
class NGramConfig:
    """An n-gram model as data; ``sizes`` counts the n-grams of each length. ``never`` is an id that is never predicted."""

    kind: Literal["ngram"] = "ngram"
    version: Literal[1] = 1
    order: int
    vocab_size: int
    smoothing: Smoothing = "kneser-ney"
    alpha: float = 1.0
    never: int | None = None
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.order < 1 or len(self.sizes) != self.order:
            raise ConfigError(f"order={self.order} needs as many sizes, but there are {len(self.sizes)}")
        if self.smoothing == "laplace" and not self.alpha > 0:
            raise ConfigError(f"alpha={self.alpha} must be above 0: adding nothing is smoothing='mle'")


class NGram(LanguageModel):
    """A table of counts as a language model. The counts are buffers, so it saves and loads like any other."""

    context = None

    def __init__(self, config: NGramConfig) -> None:
        super().__init__()
        self.config, self.vocab_size = config, config.vocab_size
        for k, size in enumerate(config.sizes, 1):
            self.register_buffer(f"keys_{k}", torch.zeros(size, dtype=torch.long))
            self.register_buffer(f"counts_{k}", torch.zeros(size, dtype=torch.long))
        self._tables: list[_Table] | None = None

    @classmethod
    def fit(
        cls,
        documents: Sequence[Sequence[int] | Ints],
        *,
        order: int,
        vocab_size: int,
        smoothing: Smoothing = "kneser-ney",
        alpha: float = 1.0,
        never: int | None = None,
    ) -> "NGram":
        """Count documents of ids. A document's first id is given, never predicted: let it be a begin token."""
        levels = count_ngrams(documents, order, vocab_size)
        return cls.of_levels(levels, vocab_size=vocab_size, smoothing=smoothing, alpha=alpha, never=never)

    @classmethod
    def of_levels(
        cls,
        levels: Sequence[Level],
        *,
        vocab_size: int,
        smoothing: Smoothing = "kneser-ney",
        alpha: float = 1.0,
        never: int | None = None,
    ) -> "NGram":
        """The model of what was counted; the first levels of a longer count are the model of a shorter order."""
        sizes = tuple(len(level.keys) for level in levels)
        shape = NGramConfig(
            order=len(levels), vocab_size=vocab_size, smoothing=smoothing, alpha=alpha, never=never, sizes=sizes
        )
        model = cls(shape)
        for k, level in enumerate(levels, 1):
            adjusted = smoothing == "kneser-ney" and k < len(levels)
            counts = _continuations(level) if adjusted else level.count
            model.get_buffer(f"keys_{k}").copy_(torch.from_numpy(level.keys))
            model.get_buffer(f"counts_{k}").copy_(torch.from_numpy(counts))
        return model

    def hidden(
        self,
        tokens: Int[Tensor, "b t"],
        cache: Cache | None = None,
        *,
        layout: Layout | None = None,
        given: Given | None = None,
        tap: Tap | None = None,
    ) -> Float[Tensor, "b t d"]:
        """The nodes of the last 1 … n−1 tokens, as numbers (float64 holds them exactly)."""
        self.check_given(given)
        if cache is not None:
            return replay(self, cache, tokens, layout=layout, given=given, tap=tap)
        layout = Layout.plain(tokens) if layout is None else layout
        starts = layout.starts
        node = tokens
        nodes = [torch.zeros_like(tokens), node][: self.config.order]
        for k in range(2, self.config.order):
            before = torch.cat([torch.full_like(node[:, :1], ABSENT), node[:, :-1]], 1).masked_fill(starts, ABSENT)
            keys = self.get_buffer(f"keys_{k}")
            wanted = before * self.vocab_size + tokens
            at = torch.searchsorted(keys, wanted).clamp(max=max(len(keys) - 1, 0))
            found = (keys[at] == wanted) & (before >= 0) if len(keys) else torch.zeros_like(before, dtype=torch.bool)
            node = torch.where(found, at, torch.where(before == ABSENT, ABSENT, UNSEEN))
            nodes.append(node)
        return torch.stack(nodes, -1).double()

    def readout(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        """log p of every token after each state, in float64."""
        states = hidden.reshape(-1, hidden.shape[-1]).long()
        levels = self._levels_used(states)
        unigram = self._extend(self._uniform[None], 1, torch.zeros(1, dtype=torch.long, device=states.device))
        p = torch.where(levels[:, :1], unigram, self._uniform)
        for k in range(2, self.config.order + 1):
            rows = levels[:, k - 1].nonzero()[:, 0]
            if len(rows):
                p[rows] = self._extend(p[rows], k, states[rows, k - 1])
        return p.log().reshape(*hidden.shape[:-1], self.vocab_size)

    def logp_of(self, hidden: Float[Tensor, "*b d"], targets: Int[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The same for one token after each state: two numbers a level are looked up, and no distribution is written out."""
        states, tokens = hidden.reshape(-1, hidden.shape[-1]).long(), targets.flatten()
        levels = self._levels_used(states)
        p = self._uniform[tokens]
        for k, table in enumerate(self.tables, 1):
            rows = levels[:, k - 1].nonzero()[:, 0]
            if len(rows):
                nodes = states[rows, k - 1]
                share = table.share_of(self.get_buffer(f"keys_{k}"), nodes * self.vocab_size + tokens[rows])
                p[rows] = p[rows] * table.rest[nodes] + share
        return p.log().reshape(targets.shape)

    def _extend(self, p: Float[Tensor, "n v"], k: int, nodes: Int[Tensor, "n"]) -> Float[Tensor, "n v"]:
        """p_k from p_{k−1}: the shares by these nodes' counts, and the rest as before."""
        table = self.tables[k - 1]
        p = p * table.rest[nodes][:, None]
        table.add(p, nodes, self.vocab_size)
        return p

    def _levels_used(self, states: Int[Tensor, "n d"]) -> Tensor:
        """Which contexts are used: all that were seen, or for Laplace only the longest that the document offers."""
        if self.config.smoothing != "laplace":
            return torch.stack([self._has_counts(k, states[:, k]) for k in range(states.shape[1])], 1)
        longest = (states != ABSENT).sum(1) - 1
        only = torch.arange(states.shape[1], device=states.device) == longest[:, None]
        return only & (states >= 0)

    def _has_counts(self, k: int, nodes: Int[Tensor, "n"]) -> Tensor:
        """Whether each node was counted with anything after it; of an order longer than every document there is none."""
        if not len(self.tables[k].total):
            return torch.zeros_like(nodes, dtype=torch.bool)
        return (nodes >= 0) & (self.tables[k].total[nodes.clamp(min=0)] > 0)

    @property
    def _uniform(self) -> Float[Tensor, "v"]:
        p = torch.ones(self.vocab_size, dtype=torch.float64, device=self.device)
        if self.config.never is not None:
            p[self.config.never] = 0
        return p / p.sum()

    @property
    def tables(self) -> "list[_Table]":
        """What the counts mean, worked out when first needed."""
        if self._tables is None or self._tables[0].total.device != self.device:
            self._tables = [self._table(k) for k in range(1, self.config.order + 1)]
        return self._tables

    def load_state_dict(self, *arguments: object, **named: object) -> object:  # type: ignore[override]
        """Take new counts; what they mean is worked out again."""
        self._tables = None
        return super().load_state_dict(*arguments, **named)  # type: ignore[arg-type]

    def discounts(self, k: int) -> tuple[float, float, float]:
        """D₁, D₂, D₃₊ of the n-grams of length k."""
        return _discounts(self.get_buffer(f"counts_{k}").cpu().numpy())

    def _table(self, k: int) -> "_Table":
        keys, counts = self.get_buffer(f"keys_{k}"), self.get_buffer(f"counts_{k}")
        contexts = 1 if k == 1 else len(self.get_buffer(f"keys_{k - 1}"))
        node = keys // self.vocab_size
        token = keys % self.vocab_size
        edges = torch.arange(contexts + 1, device=keys.device) * self.vocab_size
        start = torch.searchsorted(keys, edges)
        total = torch.zeros(contexts, dtype=torch.float64, device=keys.device).index_add(0, node, counts.double())
        safe = total.clamp(min=1)
        if self.config.smoothing == "mle":
            return _Table(start, token, counts / safe[node], torch.zeros_like(total), total)
        if self.config.smoothing == "laplace":
            added = self.config.alpha * (self.vocab_size - (self.config.never is not None))
            return _Table(start, token, counts / (total + added)[node], added / (total + added), total)
        d = torch.tensor([0.0, *self.discounts(k)], dtype=torch.float64, device=keys.device)[counts.clamp(max=3)]
        taken = torch.zeros_like(total).index_add(0, node, d)
        return _Table(start, token, (counts - d) / safe[node], taken / safe, total)


@dataclass(frozen=True)
class _Table:
    """One level of the recursion: what follows node c lies in start[c] … start[c + 1]."""

    start: Tensor
    token: Tensor
    share: Tensor
    rest: Tensor
    total: Tensor

    def add(self, p: Float[Tensor, "n v"], nodes: Tensor, vocab_size: int) -> None:
        """Add each node's shares to its row's distribution, in place."""
        length = self.start[nodes + 1] - self.start[nodes]
        row = torch.arange(len(nodes), device=nodes.device).repeat_interleave(length)
        within = torch.arange(len(row), device=row.device) - (length.cumsum(0) - length).repeat_interleave(length)
        entry = self.start[nodes].repeat_interleave(length) + within
        p.view(-1).index_add_(0, row * vocab_size + self.token[entry], self.share[entry])

    def share_of(self, keys: Int[Tensor, "m"], wanted: Int[Tensor, "n"]) -> Float[Tensor, "n"]:
        """The shares of single n-grams by their keys; 0 for those that were never counted."""
        if not len(keys):
            return torch.zeros(len(wanted), dtype=self.share.dtype, device=wanted.device)
        at = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        return torch.where(keys[at] == wanted, self.share[at], 0.0)


def _continuations(level: Level) -> Ints:
    """Kneser–Ney's counts below the highest order: after how many tokens, or how often at a document's beginning."""
    return level.preceded + level.at_start


def _discounts(counts: Ints) -> tuple[float, float, float]:
    n = [int((counts == i).sum()) for i in range(5)]
    if min(n[1:4]) == 0:
        return FALLBACK
    y = n[1] / (n[1] + 2 * n[2])
    d1, d2, d3 = (i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3))
    return (d1, d2, d3) if min(d1, d2, d3) >= 0 else FALLBACK
