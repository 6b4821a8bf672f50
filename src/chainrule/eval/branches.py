"""Bits per byte of models that are no left-to-right readers: the chain rule holds for them too.

    encoder–decoder    p(x) = ∏ p(part_i | the parts before it)                          (``data.parts``)
    encoder            p(x) = ∏ p(x_t | x_<t [MASK]):  the next word is hidden, and nothing stands after it

Both are distributions over whole texts and pay for the end, so they stand on one scale with all others. Of an encoder it is
asked what it was not made for: it read both sides of every word it guessed. One pass of the model answers for one token.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch.nn.utils.rnn import pad_sequence

from chainrule.core.datum import Layout
from chainrule.core.errors import ConfigError
from chainrule.core.masked import MaskedModel
from chainrule.core.model import LanguageModel
from chainrule.core.tokenizer import Tokenizer
from chainrule.data.pairs import EncodedPair, together
from chainrule.data.parts import parts
from chainrule.eval.bpb import TOKENS_AT_ONCE, Measured, alike, checked
from chainrule.logprobs.measures import refuse_lossy
from chainrule.logprobs.scoring import check_numbers, token_logprobs, widen

Scored = Iterable[tuple[Sequence[int], torch.Tensor]]
"""Which documents were scored together, and log p of what was judged in each: on the CPU, since MPS has no float64."""


def measure_in_parts(
    model: LanguageModel, tokenizer: Tokenizer, texts: Sequence[str], languages: Sequence[str] | None = None, *, name: str
) -> Measured:
    """Measure an encoder–decoder that writes every text in parts. Raises ``ConfigError`` where it does not read a source."""
    if model.needs != ("source",) or model.context is None:
        raise ConfigError(f"{name} reads no source; measure a model of p(x) as it is")
    start, context = tokenizer.begin if model.start is None else model.start, model.context
    if start is None:
        raise ConfigError(f"{name}'s tokenizer has no token to begin a part with; use one that has")

    def score(documents: list[list[int]]) -> Scored:
        rows = [
            (i, part)
            for i, ids in enumerate(documents)
            for part in parts(ids, start=start, end=_end(tokenizer, name), context=context)
        ]
        for group in alike(rows, lambda row: len(row[1].source) + len(row[1].target), TOKENS_AT_ONCE):
            yield [i for i, _ in group], _logp(model, [part for _, part in group])

    return _measured(score, model, tokenizer, texts, languages, name)


def measure_in_order(
    model: MaskedModel,
    tokenizer: Tokenizer,
    mask: int,
    texts: Sequence[str],
    languages: Sequence[str] | None = None,
    *,
    name: str,
) -> Measured:
    """Measure an encoder that guesses every token of a text from those before it, behind ``mask``."""
    first = len(tokenizer.framed([], end=False))

    def score(documents: list[list[int]]) -> Scored:
        whole = [tokenizer.framed(ids, end=False) for ids in documents]
        rows = [_Riddle(i, ids, at) for i, ids in enumerate(whole) for at in range(first, len(ids))]
        for group in alike(rows, lambda row: min(row.at + 1, model.context), TOKENS_AT_ONCE):
            seen = [torch.tensor([*row.ids[max(0, row.at + 1 - model.context) : row.at], mask]) for row in group]
            hidden = torch.tensor([row.ids[row.at] for row in group])
            yield [row.document for row in group], _guessed(model, seen, hidden)

    return _measured(score, model, tokenizer, texts, languages, name)


@dataclass(frozen=True)
class _Riddle:
    """A token of a document that is to be guessed from those before it."""

    document: int
    ids: list[int]
    at: int


def _logp(model: LanguageModel, group: list[EncodedPair]) -> torch.Tensor:
    return check_numbers(token_logprobs(model, together(group).to(model.device)).cpu()).sum(1, dtype=torch.float64)


def _guessed(model: MaskedModel, seen: list[torch.Tensor], hidden: torch.Tensor) -> torch.Tensor:
    """log p of each row's last token, which its row does not show."""
    lengths = torch.tensor([len(row) for row in seen])
    tokens = pad_sequence(seen, batch_first=True)
    layout = Layout.lengths(lengths, tokens.shape[1])
    states = model.states(tokens.to(model.device), layout=layout.to(model.device))
    last = states[torch.arange(len(seen)), lengths - 1]
    logp = widen(model.scores(last)).log_softmax(-1)
    return check_numbers(logp.gather(1, hidden.to(model.device)[:, None]).cpu())[:, 0].double()


def _measured(
    score: Callable[[list[list[int]]], Scored], model: LanguageModel | MaskedModel, tokenizer: Tokenizer,
    texts: Sequence[str], languages: Sequence[str] | None, name: str,
) -> Measured:  # fmt: skip
    spoken = checked(texts, languages)
    refuse_lossy(tokenizer, texts, name)
    documents = [[*ids, _end(tokenizer, name)] for ids in tokenizer.encode_many(texts)]
    nats = torch.zeros(len(texts), dtype=torch.float64)
    training, began = model.training, time.perf_counter()
    model.eval()
    try:
        with torch.inference_mode():
            for rows, logp in score(documents):
                nats.index_add_(0, torch.tensor(rows), -logp)
    finally:
        model.train(training)
    return Measured(
        name=name,
        nats=tuple(nats.tolist()),
        size_bytes=tuple(len(text.encode()) for text in texts),
        languages=spoken,
        tokens=sum(map(len, documents)) - len(texts),
        seconds=time.perf_counter() - began,
    )


def _end(tokenizer: Tokenizer, name: str) -> int:
    if tokenizer.end is None:
        raise ConfigError(f"{name}'s tokenizer has no token to end a text with, so no text is whole; use one that has")
    return tokenizer.end
