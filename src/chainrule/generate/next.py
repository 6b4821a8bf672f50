"""What comes next, in pieces that any tokenizer agrees on.

A piece is the next token and whatever is nearly certain to follow it within the word. So a model of bytes, of characters
and of word pieces can be asked the same question: 今天我来到了___?
"""

import heapq
import unicodedata

import torch

from chainrule.core.datum import Layout
from chainrule.core.errors import RequestError
from chainrule.core.model import LanguageModel
from chainrule.core.tokenizer import Tokenizer

SURE = 0.9
"""A token that follows with at least this probability belongs to the piece."""
MOST_PASSES = 200
"""So many prefixes are looked at, at most."""


@torch.inference_mode()
def next_pieces(model: LanguageModel, tokenizer: Tokenizer, ids: list[int], k: int = 5) -> list[tuple[str, float]]:
    """The ``k`` most probable pieces after ``ids``, with their probabilities; special tokens by their names.

    Best-first search: prefixes are extended in the order of their probability, so the first k finished are the best k. Where
    a character is still incomplete, every continuation is followed, not only the sure one. A piece ends where the model's
    context does. Raises ``RequestError`` for a prompt longer than the context.
    """
    if model.context is not None and len(ids) > model.context:
        raise RequestError(f"the prompt is {len(ids)} tokens long, but the model reads {model.context}; give its end alone")
    found: list[tuple[str, float]] = []
    queue: list[tuple[float, list[int]]] = [(0.0, [])]
    done: list[tuple[float, str]] = []
    for _ in range(MOST_PASSES):
        while done and (not queue or done[0][0] <= queue[0][0]):
            negative, text = heapq.heappop(done)
            found.append((text, float(torch.tensor(-negative).exp())))
        if len(found) >= k or not queue:
            break
        negative, piece = heapq.heappop(queue)
        _extend(model, tokenizer, ids, -negative, piece, queue, done, width=max(2 * k, 8))
    while done and len(found) < k:
        negative, text = heapq.heappop(done)
        found.append((text, float(torch.tensor(-negative).exp())))
    return found[:k]


def _extend(
    model: LanguageModel,
    tokenizer: Tokenizer,
    ids: list[int],
    logp: float,
    piece: list[int],
    queue: list[tuple[float, list[int]]],
    done: list[tuple[float, str]],
    *,
    width: int,
) -> None:
    """Look one token further: a piece ends, or grows by what is sure, or (mid-character) by whatever is likely."""
    if model.context is not None and len(ids) + len(piece) > model.context:
        said = b"".join(map(tokenizer.token_bytes, piece)).decode(errors="replace")
        heapq.heappush(done, (-logp, said))
        return
    after = _logp(model, [*ids, *piece])
    best = after.topk(min(width, len(after)))
    options = [(value, token) for value, token in zip(best.values.tolist(), best.indices.tolist(), strict=True) if value > -50]
    data = b"".join(tokenizer.token_bytes(token) for token in piece)
    if piece and _complete(data):
        value, token = options[0]
        grown = data + tokenizer.token_bytes(token)
        special = token in tokenizer.specials.values()
        if special or value < torch.tensor(SURE).log() or not _within_word(data, grown):
            heapq.heappush(done, (-logp, _word(data.decode())))
        else:
            heapq.heappush(queue, (-(logp + value), [*piece, token]))
        return
    for value, token in options:
        if token in tokenizer.specials.values():
            heapq.heappush(done, (-(logp + value), data.decode(errors="replace") + tokenizer.piece(token)))
        else:
            heapq.heappush(queue, (-(logp + value), [*piece, token]))


def _logp(model: LanguageModel, ids: list[int]) -> torch.Tensor:
    tokens = torch.tensor([ids], device=model.device)
    hidden = model.hidden(tokens, layout=Layout.plain(tokens))
    scores = model.readout(hidden[:, -1])[0]
    return scores.to(torch.promote_types(scores.dtype, torch.float32)).log_softmax(-1).cpu()


def _complete(data: bytes) -> bool:
    try:
        return bool(data.decode().strip()) or len(data) > 8
    except UnicodeDecodeError:
        return False


def _within_word(data: bytes, grown: bytes) -> bool:
    """Whether what was added carries on the word: no space, no sentence punctuation."""
    new = grown.decode(errors="ignore")[len(data.decode()) :]
    return not any(_ends_word(character) for character in new) and not _ends_word(data.decode()[-1])


def _ends_word(character: str) -> bool:
    return character.isspace() or unicodedata.category(character) in ("Po", "Pe", "Ps")


def _word(text: str) -> str:
    """A piece without the punctuation that a character of several tokens turned out to be."""
    return text[:-1] if len(text) > 1 and _ends_word(text[-1]) and not text[-1].isspace() else text
