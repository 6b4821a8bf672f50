"""The row that an explanation is given at the end of the road: a prompt as ids, and where its answer is read off.

A decoder answers behind the last token, an encoder at its mask; an encoder–decoder reads the prompt as the source and answers
with the first word of the target. Where there is no tokenizer, made-up ids do: shapes and FLOPs do not depend on them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from chainrule.core.errors import RequestError
from chainrule.core.shapes import Tensor
from chainrule.core.tokenizer import Tokenizer
from chainrule.hub.encoder import MaskedLM, around_masks, mask_token
from chainrule.hub.lm import LM

PROMPT, MASKED, SENTENCE = "Once upon a time", "The {mask} is blue.", "The sky is blue."
MADE_UP = 8
"""So many ids are made up where nothing else is said."""
NEXT, FIRST, LAST = "the next token", "the first token of the target", "the word at the last place"


@dataclass(frozen=True, kw_only=True)
class Row:
    """What ``forward.pass_over`` is asked with."""

    ids: Sequence[int]
    given: Mapping[str, Tensor] | None = None
    prompt: str | None = None
    pieces: Sequence[str] = ()
    piece: Callable[[int], str] = str
    place: int = -1
    asks: str = NEXT


def row(lm: LM | MaskedLM, text: str | None, length: int | None) -> Row:
    """The prompt as this model reads it; raises ``RequestError`` where there is a text but no tokenizer, or nothing at all."""
    if text is not None and length is not None:
        raise RequestError("a prompt has its own length; give --prompt or --length, not both")
    if length is not None or lm.tokenizer is None:
        if text is not None:
            raise RequestError(f"{lm.name} came without a tokenizer, so it reads no text; say --length N instead of --prompt")
        found = made_up(MADE_UP if length is None else length, lm.model.vocab_size, lm.model.context)
        return replace(found, asks=LAST) if isinstance(lm, MaskedLM) else _sourced(lm, found)
    found = _masked(lm, text) if isinstance(lm, MaskedLM) else _causal(lm, text)
    if not found.ids:
        raise RequestError("the prompt is empty, and this model's rows begin with no token of their own; give a word")
    return found


def made_up(length: int, vocab_size: int, context: int | None) -> Row:
    """A row of so many ids; raises ``RequestError`` for more than the model reads."""
    if length < 1 or (context is not None and length > context):
        raise RequestError(f"--length is {length}; this model reads rows of 1 to {context or 'any number of'} tokens")
    return Row(ids=[i % vocab_size for i in range(length)])


def _sourced(lm: LM, found: Row) -> Row:
    """Made-up ids as the source of a model that needs one; its target begins as every target does."""
    if lm.model.needs != ("source",):
        return found
    first = 0 if lm.model.start is None else lm.model.start
    return replace(found, ids=[first], given={"source": torch.tensor([list(found.ids)])}, asks=FIRST)


def _causal(lm: LM, text: str | None) -> Row:
    text = _default(lm) if text is None else text
    asked = lm.asked(text)
    tokenizer, source = lm.need_tokenizer(), "source" in lm.model.needs
    read = tokenizer.encode(text) if source else asked.tokens
    spelt = _piece(tokenizer)
    return Row(
        ids=asked.tokens,
        given=asked.given,
        prompt=text,
        pieces=[spelt(id) for id in read],
        piece=spelt,
        asks=FIRST if source else NEXT,
    )


def _default(lm: LM) -> str:
    """A prompt that any model may have met; the world's own model knows nothing but the world."""
    if lm.name != "world":
        return PROMPT
    from chainrule.world import documents

    return next(iter(documents(0, split="heldout"))).text[:24].rpartition(" ")[0]


def _masked(lm: MaskedLM, text: str | None) -> Row:
    tokenizer = lm.need_tokenizer()
    mask = mask_token(tokenizer) if lm.model.fills else ""
    text = (MASKED.format(mask=mask) if mask else SENTENCE) if text is None else text
    parts = text.split(mask) if mask else [text]
    masked = len(parts) > 1
    ids = tokenizer.framed(around_masks(tokenizer, parts, tokenizer.specials.get(mask, -1)))
    hidden = ids.index(tokenizer.specials[mask]) if masked else -1
    asks = f"the word behind {mask}" if masked else LAST
    spelt = _piece(tokenizer)
    return Row(ids=ids, prompt=text, pieces=[spelt(id) for id in ids], piece=spelt, place=hidden, asks=asks)


def _piece(tokenizer: Tokenizer) -> Callable[[int], str]:
    """How an id is shown; one beyond the tokenizer's by its number."""
    return lambda id: tokenizer.piece(id) if id < tokenizer.vocab_size else f"<{id}>"
