"""Who climbs the ladder: uniform, n-grams of orders 1 to 6 on bytes and on a model's tokens, the model, the truth."""

import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from chainrule.core.model import LanguageModel
from chainrule.core.tokenizer import Tokenizer
from chainrule.data.documents import beginning
from chainrule.data.packing import Ids
from chainrule.eval.ladder import ORDERS, Contender, contender, ngrams, truth, uniform
from chainrule.eval.results import Family
from chainrule.hub.lm import LM
from chainrule.models.ngram import NGram
from chainrule.models.ngram_counts import Ints, Level, count_ngrams
from chainrule.tokenizers.byte import ByteTokenizer
from chainrule.train.material import framed_texts

MOST_BYTES, MOST_TOKENS = 4_000_000, 6_000_000
"""N-grams count so many bytes, or tokens, of a text: more would take minutes, or gigabytes, and hardly help."""
Heard = Callable[[str, LM], Any]


def counted(documents: Iterable[Ids], order: int, vocab_size: int) -> list[Level]:
    """The n-grams of documents that are ids, each with its begin and end, of all lengths up to ``order``.

    What stands behind the first ``MOST_TOKENS`` is left out, and that is said on stderr.
    """
    waiting, first, left = iter(documents), list[Ints](), MOST_TOKENS
    for ids in waiting:
        first.append(ids[:left].astype(np.int64))
        left -= len(ids)
        if left <= 0:
            break
    if left < 0 or next(waiting, None) is not None:
        _say_left_out("tokens", MOST_TOKENS)
    return count_ngrams(first, order, vocab_size)


def _say_left_out(family: Family, most: int) -> None:
    print(f"n-grams of {family} count the first {most:,} of the text alone", file=sys.stderr)


def foot(
    train: Sequence[str], tokenizer: Tokenizer | None, *, orders: Sequence[int] = ORDERS, heard: Heard | None = None
) -> list[Contender]:
    """The lower rungs. ``heard`` is called with the name and each n-gram as it is counted."""

    def fit(family: Family, text: Sequence[str], tokenizer: Tokenizer) -> Callable[[int], tuple[LanguageModel, Tokenizer]]:
        levels: list[Level] = []

        def one(order: int) -> tuple[LanguageModel, Tokenizer]:
            if not levels:  # counted once, when the first of them climbs
                levels.extend(counted(framed_texts(text, tokenizer), max(orders), tokenizer.vocab_size))
            model = NGram.of_levels(levels[:order], vocab_size=tokenizer.vocab_size)
            if heard is not None:
                heard(f"{family} {order}-gram", LM(model, tokenizer))
            return model, tokenizer

        return one

    first = beginning(train, MOST_BYTES)
    if first != list(train):
        _say_left_out("bytes", MOST_BYTES)
    rungs = [uniform(), *ngrams("bytes", fit("bytes", first, ByteTokenizer()), orders)]
    if tokenizer is not None:
        rungs += ngrams("tokens", fit("tokens", train, tokenizer), orders)
    return rungs


def head(lm: LM | None, *, name: str = "Transformer", world: bool, force: bool = False) -> list[Contender]:
    """The upper rungs: the model, and the truth where it is known."""
    rungs: list[Contender] = []
    if lm is not None:
        rungs.append(contender(name, "model", lambda: (lm.model, lm.need_tokenizer()), force=force))
    if world:
        from chainrule.world import logp

        rungs.append(truth(logp))
    return rungs
