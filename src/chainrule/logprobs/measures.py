"""How good: perplexity, and bits per byte, the unit that every model and the truth share.

    bits per byte = −log₂ p(tokens, end | begin) / (UTF-8 bytes of the text)

The same events for every model: the whole text and its end, given its beginning. A tokenizer without any begin token leaves
its first token unjudged; that token's bytes are then not counted either, and ``Judged.unjudged_bytes`` says how many.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from chainrule.core.errors import TokenizerError
from chainrule.core.tokenizer import Tokenizer


@dataclass(frozen=True)
class Judged:
    """A text as the ids a model is judged on; the first id is never judged."""

    ids: list[int]
    n_bytes: int
    unjudged_bytes: int

    @classmethod
    def of(cls, tokenizer: Tokenizer, text: str, ids: Sequence[int], *, end: bool = True, begin: int | None = None) -> "Judged":
        """A text with its ids: begin (the tokenizer's, unless another is given), the ids, end."""
        begin = tokenizer.begin if begin is None else begin
        unjudged = len(tokenizer.token_bytes(ids[0])) if ids and begin is None else 0
        head = [] if begin is None else [begin]
        return cls([*head, *tokenizer.framed(ids, begin=False, end=end)], len(text.encode()) - unjudged, unjudged)


def judged_ids(tokenizer: Tokenizer, text: str, *, end: bool = True, force: bool = False, begin: int | None = None) -> Judged:
    """One text to judge. Raises ``TokenizerError`` where it is empty, or loses a part on the way to ids, unless ``force``d."""
    if not force:
        refuse_lossy(tokenizer, [text], "the model")
    ids = tokenizer.encode(text)
    if not ids:
        raise TokenizerError("there is no text to judge; give at least one character")
    return Judged.of(tokenizer, text, ids, end=end, begin=begin)


def loses(tokenizer: Tokenizer, texts: Sequence[str]) -> bool:
    """Whether one of the texts does not come back from its ids; a lossless tokenizer is taken at its word."""
    if tokenizer.lossless:
        return False
    return any(tokenizer.decode(ids) != text for text, ids in zip(texts, tokenizer.encode_many(texts), strict=True))


def refuse_lossy(tokenizer: Tokenizer, texts: Sequence[str], name: str) -> None:
    """Raises ``TokenizerError`` where the tokenizer of model ``name`` loses part of a text, which would then cost nothing."""
    if loses(tokenizer, texts):
        raise TokenizerError(
            f"{name}'s tokenizer loses part of a text (it normalises), so bits per byte would judge another text; "
            "use a lossless tokenizer, or pass force=True, or --force, to measure it all the same"
        )


def bits_per_byte(nats: float, n_bytes: int) -> float:
    """−log₂ p per byte, from −ln p.

    >>> bits_per_byte(math.log(256) * 10, 10)
    8.0
    """
    return nats / math.log(2) / n_bytes


def perplexity(nats: float, n_tokens: int) -> float:
    """e to the mean negative log-probability of a token; infinite where that is beyond a float.

    >>> round(perplexity(math.log(4) * 3, 3), 6)
    4.0
    """
    mean = nats / n_tokens
    return math.exp(mean) if mean < math.log(sys.float_info.max) else math.inf
