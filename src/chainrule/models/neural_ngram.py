"""The neural n-gram: the next token from the vectors of the last n−1.

    x = (C w_t, C w_{t−1}, …),     a = tanh(d + H x),     scores = U a  (+ W x)

Bengio et al. 2003, "A neural probabilistic language model". A table of counts knows nothing of a context it never saw; here
alike tokens have alike vectors, so what was learned of one context holds for its like. **An unseen context** is none of its
own: every context is a point, and has the distribution that the network gives there. Where a document has fewer tokens than
the network looks at, a learned ``begin`` vector stands for each that is missing. The table C may begin from word2vec's
vectors. The scores' own bias is left out: without it the readout is one matrix, as everywhere here.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from chainrule.core.cache import Cache
from chainrule.core.datum import Given, Layout
from chainrule.core.errors import ConfigError
from chainrule.core.model import LanguageModel, replay
from chainrule.core.shapes import Float, Int, Tensor
from chainrule.core.tap import Tap, tell
from chainrule.layers.linear import embedding, linear, plain_weight


@dataclass(frozen=True, kw_only=True)
class NeuralNGramConfig:
    """A neural n-gram as data: it sees ``order`` − 1 tokens, each as ``d_model`` numbers."""

    kind: Literal["neural_ngram"] = "neural_ngram"
    version: Literal[1] = 1
    vocab_size: int
    order: int
    d_model: int
    d_hidden: int
    direct: bool = False
    """Whether the vectors also enter the scores directly (W), as in the paper's variant."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "d_hidden"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")
        if self.order < 2:
            raise ConfigError(f"order={self.order} sees {self.order - 1} tokens; a neural n-gram needs order 2 or more")


class NeuralNGram(LanguageModel):
    """Reads the last ``order`` − 1 tokens and nothing before. ``generator`` draws the weights."""

    context = None

    def __init__(self, config: NeuralNGramConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config, self.vocab_size = config, config.vocab_size
        seen = (config.order - 1) * config.d_model
        self.embed_tokens = embedding(config.vocab_size, config.d_model)
        self.begin = nn.Parameter(torch.zeros(config.d_model))
        self.hidden_proj = linear(seen, config.d_hidden, bias=True)
        self.lm_head = linear(config.d_hidden + (seen if config.direct else 0), config.vocab_size)
        self.init(generator)

    def init(self, generator: torch.Generator | None = None) -> None:
        """Draw all matrices anew; the readout begins small, so that a new model knows nothing: its loss is ln V."""
        if self.device.type == "meta":
            return
        nn.init.normal_(self.embed_tokens.weight, std=1.0, generator=generator)
        nn.init.normal_(self.begin, std=1.0, generator=generator)
        seen = self.hidden_proj.weight.shape[1]
        nn.init.normal_(self.hidden_proj.weight, std=1 / math.sqrt(seen), generator=generator)
        nn.init.normal_(self.lm_head.weight, std=0.02, generator=generator)

    @torch.no_grad()
    def take_vectors(self, vectors: Float[Tensor, "v d"]) -> None:
        """Begin from learned word vectors, a row a token, brought to the scale of drawn ones."""
        if vectors.shape != self.embed_tokens.weight.shape:
            raise ConfigError(
                f"the vectors are {tuple(vectors.shape)}, but the table is {tuple(self.embed_tokens.weight.shape)}: "
                "train them on the same tokens, d_model wide"
            )
        vectors = vectors.to(self.embed_tokens.weight) - vectors.mean(0).to(self.embed_tokens.weight)
        self.embed_tokens.weight.copy_(vectors / vectors.std().clamp(min=1e-8))

    def hidden(
        self,
        tokens: Int[Tensor, "b t"],
        cache: Cache | None = None,
        *,
        layout: Layout | None = None,
        given: Given | None = None,
        tap: Tap | None = None,
    ) -> Float[Tensor, "b t d"]:
        self.check_given(given)
        if cache is not None:
            return replay(self, cache, tokens, layout=layout, given=given, tap=tap)
        layout = Layout.plain(tokens) if layout is None else layout
        seen = self._seen(self.embed_tokens(tokens), layout)
        tell(tap, "hook_embed", seen)
        a = torch.tanh(self.hidden_proj(seen))
        tell(tap, "blocks.0.hook_state", a)
        return torch.cat([a, seen.to(a.dtype)], -1) if self.config.direct else a

    def _seen(self, x: Float[Tensor, "b t d"], layout: Layout) -> Float[Tensor, "b t n"]:
        """The vectors of the last n−1 tokens side by side, the newest first."""
        starts, begin = layout.starts[:, :, None], self.begin.to(x.dtype)
        window = [x]
        for _ in range(self.config.order - 2):
            before = torch.cat([window[-1][:, :1], window[-1][:, :-1]], 1)
            window.append(torch.where(starts, begin, before))
        return torch.cat(window, -1)

    def readout(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        return self.lm_head(hidden)

    @property
    def readout_weight(self) -> Float[Tensor, "v d"] | None:
        return plain_weight(self.lm_head)
