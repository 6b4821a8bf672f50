"""Bits per byte of documents under any model with its tokenizer.

    bits per byte = − Σ_d log₂ p(tokens_d, end | begin) / Σ_d bytes_d

``begin`` is BOS, else the end-of-text token. A tokenizer with neither leaves the first token of a document unjudged and
its bytes uncounted, and the result says so. A document longer than the model's context is read in windows that overlap
by half, and each token is judged in the first window that holds it. The nats of every document are kept, so that two
models can be compared in pairs.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from chainrule.core.datum import Batch, Layout
from chainrule.core.errors import DataError
from chainrule.core.model import LanguageModel
from chainrule.core.tokenizer import Tokenizer
from chainrule.logprobs.measures import Judged, loses, perplexity, refuse_lossy
from chainrule.logprobs.scoring import check_numbers, token_logprobs

TOKENS_AT_ONCE = 8192
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What documents cost under one model: nats and judged bytes of each, and what the measuring took.

    ``judged_tokens`` are those that the nats are of, the ends of documents among them; ``tokens`` are those of the texts.
    ``begins`` says whether the first token of every document is judged, ``ends`` whether its end is.
    """

    name: str
    nats: tuple[float, ...]
    size_bytes: tuple[int, ...]
    languages: tuple[str, ...]
    tokens: int
    seconds: float
    judged_tokens: int = 0
    notes: tuple[str, ...] = ()
    begins: bool = True
    ends: bool = True

    @property
    def bits_per_byte(self) -> float:
        """Over all documents; infinite where the model rules one out."""
        return self._over(range(len(self.nats)))

    @property
    def by_language(self) -> dict[str, float]:
        """Bits per byte of the documents of each language, in order of appearance."""
        return {
            language: self._over([i for i, spoken in enumerate(self.languages) if spoken == language])
            for language in dict.fromkeys(self.languages)
        }

    @property
    def perplexity(self) -> float | None:
        """Per judged token, over all documents; None where the judged tokens were not counted."""
        return perplexity(sum(self.nats), self.judged_tokens) if self.judged_tokens else None

    @property
    def tokens_per_s(self) -> float | None:
        """Tokens scored a second."""
        return self.tokens / self.seconds if self.tokens and self.seconds > 0 else None

    def _over(self, documents: Sequence[int]) -> float:
        size = sum(self.size_bytes[i] for i in documents)
        if size == 0:
            raise DataError(f"{self.name} judged no byte of {len(documents)} documents; give a text with more in it")
        return sum(self.nats[i] for i in documents) / (math.log(2) * size)


@dataclass(frozen=True)
class _Row:
    """A window of one document's ids, judged from ``first`` on."""

    document: int
    ids: list[int]
    first: int


def measure(
    model: LanguageModel,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    languages: Sequence[str] | None = None,
    *,
    name: str = "model",
    force: bool = False,
    tokens_at_once: int = TOKENS_AT_ONCE,
) -> Measured:
    """Measure every text as one document; ``languages`` names each one's language (``text`` if left out).

    Raises ``DataError`` for no text at all, ``NotNumbers`` for a model whose scores are none, and ``TokenizerError`` for a
    tokenizer that loses part of a text unless ``force``d: the bits of what it dropped would not be paid for.
    """
    spoken = checked(texts, languages)
    if not force:
        refuse_lossy(tokenizer, texts, name)
    ids = tokenizer.encode_many(texts)
    judged = [Judged.of(tokenizer, *document, begin=model.start) for document in zip(texts, ids, strict=True)]
    rows = [row for i, document in enumerate(judged) for row in _rows(i, document.ids, model.context)]
    begins, ends = not any(document.unjudged_bytes for document in judged), tokenizer.end is not None
    started = time.perf_counter()
    nats = _score(model, rows, len(texts), tokens_at_once)
    return Measured(
        name=name,
        nats=tuple(nats),
        size_bytes=tuple(document.n_bytes for document in judged),
        languages=spoken,
        tokens=sum(map(len, ids)),
        seconds=time.perf_counter() - started,
        judged_tokens=sum(max(0, len(document.ids) - 1) for document in judged),
        notes=_notes(begins, ends, force and loses(tokenizer, texts), model.context if len(rows) > len(texts) else None),
        begins=begins,
        ends=ends,
    )


def measure_logp(
    logp: Callable[[str], float], texts: Sequence[str], languages: Sequence[str] | None = None, *, name: str
) -> Measured:
    """Measure with a function that gives the log-probability of a whole document in nats, such as ``world.logp``."""
    spoken = checked(texts, languages)
    started = time.perf_counter()
    nats = tuple(-logp(text) for text in texts)
    sizes = tuple(len(text.encode()) for text in texts)
    seconds = time.perf_counter() - started
    return Measured(name=name, nats=nats, size_bytes=sizes, languages=spoken, tokens=sum(sizes), seconds=seconds)


def uniform_logp(text: str) -> float:
    """log p of a text whose every byte, and the end, is drawn from 257 equally likely outcomes."""
    return -(len(text.encode()) + 1) * math.log(257)


def checked(texts: Sequence[str], languages: Sequence[str] | None) -> tuple[str, ...]:
    """The language of every text; raises ``DataError`` where there is nothing to measure, or not one language for each."""
    if not any(texts):
        raise DataError(f"there is no text to measure in {len(texts)} documents; give at least one that is not empty")
    spoken = tuple(languages) if languages is not None else ("text",) * len(texts)
    if len(spoken) != len(texts):
        raise DataError(f"{len(texts)} texts come with {len(spoken)} languages; give one for each")
    return spoken


def _rows(document: int, ids: list[int], context: int | None) -> Iterator[_Row]:
    """The windows of a document: one, or overlapping by half where the context is shorter."""
    if context is None or len(ids) <= context:
        yield _Row(document, ids, 0)
        return
    if context < 2:
        raise DataError(f"a model that reads {context} token at a time judges nothing; its context must be 2 or more")
    kept = context // 2
    for start in range(0, len(ids) - kept, context - kept):
        yield _Row(document, ids[start : start + context], kept if start else 0)


def _score(model: LanguageModel, rows: list[_Row], documents: int, tokens_at_once: int) -> list[float]:
    nats = torch.zeros(documents, dtype=torch.float64)
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for group in alike(rows, lambda row: len(row.ids), tokens_at_once):
                # added up on the CPU: MPS has no float64
                logp = check_numbers(token_logprobs(model, _batch(group).to(model.device)).cpu())
                nats.index_add_(0, torch.tensor([row.document for row in group]), -logp.sum(1, dtype=torch.float64))
    finally:
        model.train(training)
    return nats.tolist()


def alike(rows: Iterable[T], length: Callable[[T], int], tokens_at_once: int) -> Iterator[list[T]]:
    """Rows of similar length together, the longest first, so that little of a batch is padding."""
    group: list[T] = []
    for row in sorted(rows, key=length, reverse=True):
        if group and (len(group) + 1) * length(group[0]) > tokens_at_once:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _batch(group: list[_Row]) -> Batch:
    longest = max([1, *(len(row.ids) for row in group)])
    tokens = torch.zeros(len(group), longest, dtype=torch.long)
    mask = torch.zeros(len(group), longest)
    for i, row in enumerate(group):
        tokens[i, : len(row.ids)] = torch.tensor(row.ids, dtype=torch.long)
        mask[i, row.first : len(row.ids)] = 1
    return Batch(tokens, mask, Layout.lengths(torch.tensor([len(row.ids) for row in group]), longest))


def _notes(begins: bool, ends: bool, lossy: bool, window: int | None) -> tuple[str, ...]:
    notes: list[str] = []
    if not begins:
        notes.append("the first token of every document is not judged: the tokenizer has no token to begin with")
    if not ends:
        notes.append("the end of a document is not judged: the tokenizer has no token for it")
    if lossy:
        notes.append("the tokenizer loses part of a text, which then costs nothing")
    if window is not None:
        notes.append(f"documents longer than {window} tokens were read in windows that overlap by half")
    return tuple(notes)
