"""An encoder one can use: it fills in hidden words, and turns texts into vectors."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from chainrule.core.chat import Embedder
from chainrule.core.datum import Layout
from chainrule.core.errors import RequestError
from chainrule.core.masked import MaskedModel
from chainrule.core.tokenizer import Tokenizer, needed
from chainrule.hub.sentences import Pooling, write_pooling

MASKS = ("[MASK]", "<mask>")
"""How tokenizers spell the token that hides a word."""
ROWS = 32
"""So many texts are embedded at once."""

LEFT_TO_RIGHT = ("score", "logp", "logp_begins", "next", "generate", "stream", "chat", "stream_chat", "converse")
"""What an ``LM`` does and no encoder can."""

Filled = list[tuple[str, float]]
"""The likeliest words of one mask, each with its probability."""


class MaskedLM:
    """``model`` is a ``MaskedModel``; ``pooling`` says how a text's states become its vector (None: their mean)."""

    def __init__(
        self, model: MaskedModel, tokenizer: Tokenizer | None = None, pooling: Pooling | None = None, *, name: str = ""
    ) -> None:
        self.model, self.pooling, self.name = model, pooling or Pooling(), name
        self.tokenizer = tokenizer

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(reads_both_ways(self.name) if name in LEFT_TO_RIGHT else f"an encoder has no {name!r}")

    def need_tokenizer(self) -> Tokenizer:
        """The tokenizer; raises ``RequestError`` where the model came without one."""
        return needed(self.tokenizer, self.name)

    def fill(self, text: str, k: int = 5) -> list[Filled]:
        """For every mask of the text its ``k`` likeliest tokens, with their probabilities given all that is not masked.

        Several masks are filled each for itself, with the others still hidden. Raises ``RequestError`` for a text without
        a mask, and for a model that cannot fill.
        """
        if not self.model.fills:
            raise RequestError(
                f"{self.name} has no masked-word head, as sentence models often have none: it embeds texts and cannot fill in "
                "words; give a checkpoint with cls.predictions weights, such as google-bert/bert-base-uncased"
            )
        tokenizer = self.need_tokenizer()
        mask = mask_token(tokenizer)
        parts = text.split(mask)
        if len(parts) == 1:
            raise RequestError(
                f"the text has no mask to fill; write {mask} where a word is missing, as in: The {mask} is blue."
            )
        hidden = tokenizer.specials[mask]
        row = tokenizer.framed(around_masks(tokenizer, parts, hidden))  # BERT's [CLS] and [SEP]
        return [self._best(p, k) for p, id in zip(self._probabilities(row), row, strict=True) if id == hidden]

    @torch.inference_mode()
    def embed(self, texts: Sequence[str], /, *, truncate: bool = False) -> list[list[float]]:
        """One vector a text. A text longer than the model reads is refused, or cut where ``truncate``."""
        if isinstance(texts, str):
            raise RequestError("embed takes a list of texts; write embed([text])")
        rows = [self._row(number, text, truncate) for number, text in enumerate(texts)]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # rows of like length waste no padding
        found: dict[int, list[float]] = {}
        for first in range(0, len(order), ROWS):
            here = order[first : first + ROWS]
            found |= dict(zip(here, self._pooled([rows[i] for i in here]), strict=True))
        return [found[i] for i in range(len(rows))]

    def save(self, folder: str | Path, *, force: bool = False, **how: Any) -> Path:
        """Write the Hugging Face layout, and that of sentence-transformers; ``how`` may say ``shard_bytes``."""
        from chainrule.hub.save import save

        folder = save(folder, self.model, self.tokenizer, force=force, **how)
        if self.pooling != Pooling():
            write_pooling(self.pooling, self.model.width, folder)
        return folder

    def _row(self, number: int, text: str, truncate: bool) -> list[int]:
        """The ids of a text to embed, no longer than the model reads."""
        tokenizer = self.need_tokenizer()
        ids, frame = tokenizer.encode(text), len(tokenizer.framed([]))
        limit = min(self.pooling.limit or self.model.context, self.model.context) - frame
        if len(ids) > limit and not truncate:
            raise RequestError(
                f"text {number} is {len(ids) + frame} tokens long, but {self.name} reads {limit + frame}; cut it into pieces, "
                "or pass truncate=True to embed its beginning"
            )
        if not ids and not frame:
            raise RequestError(f"text {number} is empty, and an empty text has no vector; give at least one character")
        return tokenizer.framed(ids[:limit])

    def _pooled(self, rows: list[list[int]]) -> list[list[float]]:
        """The vectors of some rows, read side by side with padding on the right."""
        lengths = torch.tensor([len(row) for row in rows], device=self.model.device)
        longest = max(map(len, rows))
        tokens = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=self.model.device)
        layout = Layout.lengths(lengths, longest)
        return self.pooling.pool(self.model.states(tokens, layout=layout).float(), layout).tolist()

    @torch.inference_mode()
    def _probabilities(self, ids: list[int]) -> torch.Tensor:
        """p(every token) at each place of a row, ``t v``."""
        if len(ids) > self.model.context:
            raise RequestError(f"the text is {len(ids)} tokens long, but {self.name} reads {self.model.context}; cut it")
        return self.model(torch.tensor([ids], device=self.model.device))[0].float().softmax(-1).cpu()

    def _best(self, p: torch.Tensor, k: int) -> Filled:
        if not 1 <= k <= len(p):
            raise RequestError(f"k={k} words were asked for; it must be 1 to {len(p)}")
        best = p.topk(k)
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return [(self._word(id), value) for id, value in pairs]

    def _word(self, id: int) -> str:
        """A token as a reader may see it; an id beyond the tokenizer's by its number."""
        tokenizer = self.need_tokenizer()
        return tokenizer.piece(id) if id < tokenizer.vocab_size else f"<{id}>"


def reads_both_ways(name: str) -> str:
    """What to say to who asks an encoder for what comes next."""
    return (
        f"{name} is an encoder: it reads both ways, so it has no next token to score, generate or chat with; "
        "ask it for hidden words (chainrule fill), or give a model that reads from left to right"
    )


def around_masks(tokenizer: Tokenizer, parts: Sequence[str], mask: int) -> list[int]:
    """The ids of a text's parts with masks between; where a word's token holds the space before it, a mask stands for both."""
    ids: list[int] = []
    for part in parts[:-1]:
        ids += [*_before_a_word(tokenizer, part), mask]
    return [*ids, *tokenizer.encode(parts[-1])]


def _before_a_word(tokenizer: Tokenizer, part: str) -> list[int]:
    ids, bare = tokenizer.encode(part), tokenizer.encode(part.removesuffix(" "))
    followed = tokenizer.encode(f"{part}a")
    glued = followed[: len(ids)] != ids and followed[: len(bare)] == bare
    return list(bare if glued else ids)


def mask_token(tokenizer: Tokenizer) -> str:
    """How a tokenizer spells its mask; raises ``RequestError`` where it has none."""
    found = [name for name in MASKS if name in tokenizer.specials]
    if not found:
        raise RequestError(f"the tokenizer has no mask token ({' or '.join(MASKS)}), so no word of a text can be hidden")
    return found[0]


if TYPE_CHECKING:  # applications may be given it for one: a type checker holds it to that
    _: type[Embedder] = MaskedLM
