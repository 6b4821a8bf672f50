"""What comes next, in pieces that any tokenizer agrees on.

A piece is the next token and whatever is nearly certain to follow it within the word. So a model of bytes, of characters
and of word pieces can be asked the same question: 今天我来到了___?
"""

import codecs
import heapq
import math
import unicodedata

import torch

from chainrule.core.datum import Layout
from chainrule.core.errors import NotNumbers, RequestError
from chainrule.core.model import LanguageModel
from chainrule.core.tokenizer import Tokenizer
from chainrule.logprobs.scoring import widen

SURE = 0.9
"""A character that follows with at least this probability belongs to the piece."""
LONGEST = 64
"""A piece ends after so many tokens at the latest."""
BEGINNINGS = 100
"""So many beginnings are looked at, at most, for each piece that is asked for."""
NEGLIGIBLE, MORE = 0.01, 20
"""The search ends where what waits has this share of the k-th piece, or after so many more beginnings for each piece."""


@torch.inference_mode()
def next_pieces(model: LanguageModel, tokenizer: Tokenizer, ids: list[int], k: int = 5) -> list[tuple[str, float]]:
    """The ``k`` most probable pieces after ``ids``, with their probabilities; special tokens by their names.

    Best-first search: beginnings are looked at in the order of their probability. Until a beginning holds a whole character,
    every continuation of it is followed; then only what is sure, a whole character at a time. Two ways to say one piece are
    one piece, so when k are found the search goes on until what is left is ``NEGLIGIBLE`` beside the k-th, or it has looked
    at ``MORE`` further beginnings for each. A piece ends where the model's context does. Raises ``RequestError`` for an empty
    prompt, for one longer than the context, and where the search finds no end.
    """
    if not ids:
        raise RequestError("the prompt is empty and the model has no begin token; give at least one character")
    if model.context is not None and len(ids) > model.context:
        raise RequestError(f"the prompt is {len(ids)} tokens long, but the model reads {model.context}; give its end alone")
    search = _Search(model, tokenizer, ids, width=max(2 * k, 32))
    found: dict[str, float] = {}
    more = MORE * k
    for _ in range(BEGINNINGS * max(k, 1)):
        for text, logp in search.certain():
            found[text] = found.get(text, 0.0) + math.exp(logp)
        best = sorted(found.items(), key=lambda piece: -piece[1])[:k]
        if not search.waiting:
            return best
        if len(found) >= k:
            if more == 0 or search.best < NEGLIGIBLE * best[-1][1]:
                return best
            more -= 1
        search.go_on()
    raise RequestError(f"{BEGINNINGS * k} beginnings gave only {len(found)} pieces; ask for fewer: k={max(len(found), 1)}")


class _Search:
    """Beginnings that wait to be looked at, and pieces that are done, each with its log p."""

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, ids: list[int], *, width: int) -> None:
        self.model, self.tokenizer, self.ids, self.width = model, tokenizer, ids, width
        self.specials = set(tokenizer.specials.values())
        self.waiting: list[tuple[float, list[int]]] = [(0.0, [])]
        self.done: list[tuple[float, str]] = []

    @property
    def best(self) -> float:
        """The probability of the likeliest beginning that waits."""
        return math.exp(-self.waiting[0][0]) if self.waiting else 0.0

    def certain(self) -> list[tuple[str, float]]:
        """The pieces that no beginning can overtake, with their log p; each is given once."""
        pieces: list[tuple[str, float]] = []
        while self.done and (not self.waiting or self.done[0][0] <= self.waiting[0][0]):
            negative, text = heapq.heappop(self.done)
            pieces.append((text, -negative))
        return pieces

    def go_on(self) -> None:
        """Look at the most probable beginning: it becomes a piece, or all that may follow it are beginnings."""
        negative, piece = heapq.heappop(self.waiting)
        if self.begun(piece):
            text, logp = self.grown(piece, -negative)
            self.end(text, logp)
        elif self.full(piece):
            self.end(self.text(piece, final=True), -negative)
        else:
            for value, token in self.options(piece):
                if token in self.specials:
                    heapq.heappush(self.done, (negative - value, self.text(piece, final=True) + self.tokenizer.piece(token)))
                else:
                    heapq.heappush(self.waiting, (negative - value, [*piece, token]))

    def grown(self, piece: list[int], logp: float) -> tuple[str, float]:
        """The piece with all that is sure to follow it within the word, and the log p of that."""
        text, now, before = self.text(piece), logp, logp
        while not _ends_word(text[-1]) and not self.full(piece):
            value, token = self.options(piece)[0]
            piece, now = [*piece, token], now + value
            longer = self.text(piece)
            if token in self.specials or now - before < math.log(SURE) or any(map(_ends_word, longer[len(text) :])):
                break
            if longer != text:
                text, logp, before = longer, now, now
        return text, logp

    def end(self, text: str, logp: float) -> None:
        """A piece is done; punctuation that one token brings along behind a word is no part of it."""
        word = text[:-1] if _ends_word(text[-1:]) and text[:-1].strip() else text
        heapq.heappush(self.done, (-logp, word))

    def begun(self, piece: list[int]) -> bool:
        """Whether the piece holds a whole character, or more white space than matters."""
        text = self.text(piece)
        return bool(text.strip()) or len(text) > 8

    def full(self, piece: list[int]) -> bool:
        """Whether the piece must end here: it is long enough, or the model reads no more."""
        context = self.model.context
        return len(piece) >= LONGEST or (context is not None and len(self.ids) + len(piece) > context)

    def text(self, piece: list[int], *, final: bool = False) -> str:
        """The whole characters of a piece; with ``final`` a part of one stands as U+FFFD."""
        data = b"".join(map(self.tokenizer.token_bytes, piece))
        return codecs.getincrementaldecoder("utf-8")(errors="replace").decode(data, final=final)

    def options(self, piece: list[int]) -> list[tuple[float, int]]:
        """The likeliest next tokens with their log p, the best first; none that all but cannot be.

        Raises ``NotNumbers`` where the model's scores are none.
        """
        tokens = torch.tensor([[*self.ids, *piece]], device=self.model.device)
        scores = self.model.readout(self.model.hidden(tokens, layout=Layout.plain(tokens))[:, -1])[0]
        logp = widen(scores).log_softmax(-1).cpu()
        if bool(logp.isnan().any()):
            raise NotNumbers(tokens.shape[1])
        best = logp.topk(min(self.width, len(logp)))
        return [(value, id) for value, id in zip(best.values.tolist(), best.indices.tolist(), strict=True) if value > -50]


def _ends_word(character: str) -> bool:
    return character.isspace() or (character != "" and unicodedata.category(character) in ("Po", "Pe", "Ps"))
