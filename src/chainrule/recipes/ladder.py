"""Who climbs the ladder: uniform, n-grams of orders 1 to 6 on bytes and on a model's tokens, the model, the truth."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from chainrule.core.model import LanguageModel
from chainrule.core.tokenizer import Tokenizer
from chainrule.data.documents import beginning
from chainrule.eval.ladder import ORDERS, Contender, contender, ngrams, truth, uniform
from chainrule.eval.results import Family
from chainrule.hub.lm import LM
from chainrule.models.ngram import NGram
from chainrule.models.ngram_counts import Level, count_ngrams
from chainrule.pages.text import size
from chainrule.tokenizers.byte import ByteTokenizer

MOST_BYTES = {"bytes": 4_000_000, "tokens": 24_000_000}
"""So much of the text the n-grams of a family count: of bytes more would take minutes and hardly help, of tokens gigabytes."""
Heard = Callable[[str, LM], Any]


def counted(texts: Sequence[str], tokenizer: Tokenizer, order: int) -> list[Level]:
    """The n-grams of documents under a tokenizer, each with its begin and end, of all lengths up to ``order``."""
    documents = [np.array(tokenizer.framed(ids)) for ids in tokenizer.encode_many(texts)]
    return count_ngrams(documents, order, tokenizer.vocab_size)


def foot(
    train: Sequence[str], tokenizer: Tokenizer | None, *, orders: Sequence[int] = ORDERS, heard: Heard | None = None
) -> list[Contender]:
    """The lower rungs. ``heard`` is called with the name and each n-gram as it is counted."""

    def fit(family: Family, text: Sequence[str], tokenizer: Tokenizer) -> Callable[[int], tuple[LanguageModel, Tokenizer]]:
        levels: list[Level] = []

        def one(order: int) -> tuple[LanguageModel, Tokenizer]:
            if not levels:  # counted once, when the first of them climbs
                levels.extend(counted(text, tokenizer, max(orders)))
            model = NGram.of_levels(levels[:order], vocab_size=tokenizer.vocab_size)
            if heard is not None:
                heard(f"{family} {order}-gram", LM(model, tokenizer))
            return model, tokenizer

        return one

    rungs = [uniform(), *ngrams("bytes", fit("bytes", _read("bytes", train), ByteTokenizer()), orders)]
    if tokenizer is not None:
        rungs += ngrams("tokens", fit("tokens", _read("tokens", train), tokenizer), orders)
    return rungs


def _read(family: Family, train: Sequence[str]) -> list[str]:
    """What the n-grams of a family count; where that is not all of the text, it is said on stderr."""
    read = beginning(train, MOST_BYTES[family])
    if read != list(train):
        print(f"n-grams of {family} count the first {size(MOST_BYTES[family])} of the text alone", file=sys.stderr)
    return read


def head(lm: LM | None, *, name: str = "Transformer", world: bool, force: bool = False) -> list[Contender]:
    """The upper rungs: the model, and the truth where it is known."""
    rungs: list[Contender] = []
    if lm is not None:
        rungs.append(contender(name, "model", lambda: (lm.model, lm.need_tokenizer()), force=force))
    if world:
        from chainrule.world import logp

        rungs.append(truth(logp))
    return rungs
