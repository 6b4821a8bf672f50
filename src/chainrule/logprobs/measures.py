"""How good: perplexity, and bits per byte, the unit that every model and the truth share.

    bits per byte = −log₂ p(tokens, end | begin) / (UTF-8 bytes of the text)

The same events for every model: the whole text and its end, given its beginning. A tokenizer without any begin token leaves
its first token unjudged; that token's bytes are then not counted either, and ``Judged.unjudged_bytes`` says how many.
"""

import math
from dataclasses import dataclass

from chainrule.core.errors import TokenizerError
from chainrule.core.tokenizer import Tokenizer


@dataclass(frozen=True)
class Judged:
    """A text as the ids a model is judged on; the first id is never judged."""

    ids: list[int]
    n_bytes: int
    unjudged_bytes: int


def judged_ids(tokenizer: Tokenizer, text: str, *, end: bool = True, force: bool = False, begin: int | None = None) -> Judged:
    """begin (the tokenizer's, unless another is given), the text's ids, end.

    Raises ``TokenizerError`` for an empty text, and for a lossy tokenizer unless forced.
    """
    if not tokenizer.lossless and not force and tokenizer.decode(tokenizer.encode(text)) != text:
        raise TokenizerError(
            "this tokenizer loses part of the text (it normalises), so bits per byte would judge another text; "
            "pass force=True, or --force, to measure it all the same"
        )
    ids = tokenizer.encode(text)
    if not ids:
        raise TokenizerError("there is no text to judge; give at least one character")
    tail = [tokenizer.end] if end and tokenizer.end is not None else []
    begin = tokenizer.begin if begin is None else begin
    if begin is None:
        unjudged = len(tokenizer.token_bytes(ids[0]))
        return Judged([*ids, *tail], len(text.encode()) - unjudged, unjudged)
    return Judged([begin, *ids, *tail], len(text.encode()), 0)


def bits_per_byte(nats: float, n_bytes: int) -> float:
    """−log₂ p per byte, from −ln p.

    >>> bits_per_byte(math.log(256) * 10, 10)
    8.0
    """
    return nats / math.log(2) / n_bytes


def perplexity(nats: float, n_tokens: int) -> float:
    """e to the mean negative log-probability of a token.

    >>> round(perplexity(math.log(4) * 3, 3), 6)
    4.0
    """
    return math.exp(nats / n_tokens)
