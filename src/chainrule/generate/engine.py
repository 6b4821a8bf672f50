"""The engine: many requests at once, one step at a time.

    step:  admit what waits → one forward pass over all rows → filter, draw, report → drop what is done

Rows are ragged: prompts of any length are read side by side, then a token of each at a time; who waits is let in when all
rows are done. Each request has its own seed and settings, and gets exactly what it would get alone: where a model reads rows
otherwise that are declared to grow long, only requests of one kind run together. A request that fails ends alone: the others
go on with the next step. A step that fails as a whole (no memory, an interruption) loses none: those that wait go on waiting,
and rows that were being read are read again from their beginnings. The engine is synchronous and sees ids; with a tokenizer it
also reports the text that has become certain.
"""

from collections import deque
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass, field
from itertools import islice
from numbers import Integral, Real
from typing import Literal

import torch
import torch.nn.functional as F

from chainrule.core.cache import Cache
from chainrule.core.datum import PADDING, Given, Layout
from chainrule.core.errors import NotNumbers, RequestError
from chainrule.core.model import LanguageModel
from chainrule.core.shapes import Float, Tensor
from chainrule.core.tokenizer import Tokenizer
from chainrule.generate.text import TextStream
from chainrule.logprobs.filters import Filter, MinP, Temperature, TopK, TopP, repetition_penalty
from chainrule.logprobs.scoring import widen

Done = Literal["stop", "length"]
SMALLEST, LARGEST = 1e-4, 1e4
"""Between these lie temperatures and penalties; beyond them scores run out of numbers."""
ROOM = 1024
"""A model that reads rows of any length gets room for so many new tokens first, and twice the room when that is used."""

WHOLE, ANY = (Integral, "a whole number"), (Real, "a number")
NUMBERS = {
    "max_tokens": WHOLE, "seed": WHOLE, "logprobs": WHOLE, "top_k": WHOLE,
    "temperature": ANY, "repetition_penalty": ANY, "top_p": ANY, "min_p": ANY,
}  # fmt: skip
"""The settings that are numbers, and of which kind; the filters' may be left out."""
SEVERAL = {
    "tokens": (Integral, "a list of ids; a tokenizer's encode makes one of a text"),
    "stop": (str, "a tuple of the strings that end the text, as in ('###',)"),
    "stop_ids": (Integral, "a set of the ids that end the text, as in frozenset({2})"),
}


@dataclass(frozen=True, kw_only=True)
class Request:
    """A prompt (ids) and how to continue it. Temperature 0 is greedy; ``logprobs`` asks for so many alternatives.

    ``also`` are filters of one's own, applied after those of the settings.
    """

    tokens: list[int]
    max_tokens: int = 128
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float = 1.0
    seed: int = 0
    stop_ids: frozenset[int] = frozenset()
    stop: tuple[str, ...] = ()
    logprobs: int = 0
    given: Given | None = None
    also: tuple[Filter, ...] = ()

    def __post_init__(self) -> None:
        self._check_kinds()
        if self.max_tokens < 1:
            raise RequestError(f"max_tokens is {self.max_tokens}; it must be 1 or more")
        if self.temperature != 0 and not SMALLEST <= self.temperature <= LARGEST:
            raise RequestError(
                f"temperature is {self.temperature}; it must be 0 (greedy), or between {SMALLEST:g} and {LARGEST:g}"
            )
        if not -(2**63) <= self.seed < 2**63:
            raise RequestError(f"seed is {self.seed}; it must be a number of 64 bits, from -2^63 to 2^63 - 1")
        if not SMALLEST <= self.repetition_penalty <= LARGEST:
            raise RequestError(
                f"repetition_penalty is {self.repetition_penalty}; it must be between {SMALLEST:g} and {LARGEST:g}, and 1 "
                "changes nothing"
            )
        if self.logprobs < 0:
            raise RequestError(f"logprobs is {self.logprobs}; it is how many alternatives to report, 0 or more")
        if any(not stop for stop in self.stop):
            raise RequestError("a stop string is empty; it would stop every text before it begins")
        if not self.tokens:
            raise RequestError("the prompt is empty and the model has no begin token; give at least one character")
        self.filters()

    def _check_kinds(self) -> None:
        """Raises ``RequestError`` where a setting is no number, or one thing stands where there may be several."""
        for name, (kind, words) in NUMBERS.items():
            value = getattr(self, name)
            if not isinstance(value, kind) and not (value is None and name in ("top_k", "top_p", "min_p")):
                raise RequestError(f"{name} is {value!r}; it must be {words}")
        for name, (kind, words) in SEVERAL.items():
            value = getattr(self, name)
            if isinstance(value, str) or not isinstance(value, Collection) or not all(isinstance(one, kind) for one in value):
                raise RequestError(f"{name} is {value!r}; it must be {words}")

    def filters(self) -> list[Filter]:
        """The filters asked for, in transformers' order, and one's own behind them."""
        asked: list[Filter] = []
        if self.temperature > 0:
            asked.append(Temperature(self.temperature))
        if self.top_k is not None:
            asked.append(TopK(self.top_k))
        if self.top_p is not None:
            asked.append(TopP(self.top_p))
        if self.min_p is not None:
            asked.append(MinP(self.min_p))
        return [*asked, *self.also]


@dataclass(frozen=True)
class Event:
    """One token of one request: its id, its log p under the model itself, the text that became certain by it.

    ``done`` says why the request ended with this token, ``top`` holds the likeliest (id, log p) where they were asked for.
    """

    id: int
    token: int
    logp: float
    text: str
    done: Done | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass
class _Row:
    """A request at work: what the model must read next, and all it has seen."""

    id: int
    request: Request
    unread: list[int]
    seen: list[int]
    generator: torch.Generator
    text: TextStream | None
    written: int = 0


_Weighed = tuple[Float[Tensor, "v"], Float[Tensor, "v"]]


def _weigh(row: _Row, scores: Float[Tensor, "v"]) -> _Weighed:
    """log p under the model, and as the request wants to draw from it; raises ``RequestError`` where these are no numbers."""
    request, one = row.request, scores[None]
    plain = one.log_softmax(-1)
    if bool(plain.isnan().any()):
        raise NotNumbers(len(row.seen))
    logp = plain
    if request.repetition_penalty != 1.0:
        logp = repetition_penalty(one, torch.tensor([row.seen]), request.repetition_penalty).log_softmax(-1)
    for filter in request.filters():
        logp = filter(logp)
    if bool(logp.isnan().any()):
        raise RequestError(
            f"temperature={request.temperature} and repetition_penalty={request.repetition_penalty} leave no numbers to "
            f"draw from after {len(row.seen)} tokens; set both nearer to 1"
        )
    return plain[0], logp[0]


@dataclass
class Engine:
    """Serves requests with a model. ``rows`` is how many run at once; the others wait their turn.

    ``make_cache`` takes the place of ``model.cache``: rows, capacity and condition to a cache that the model reads with.
    """

    model: LanguageModel
    tokenizer: Tokenizer | None = None
    rows: int = 64
    make_cache: Callable[[int, int, Given | None], Cache] | None = None
    _waiting: deque[_Row] = field(default_factory=deque)
    _running: list[_Row] = field(default_factory=list)
    _cache: Cache | None = None
    _scores: Float[Tensor, "b v"] | None = None
    _next_id: int = 0

    def submit(self, request: Request) -> int:
        """Take a request in; its id stands in its events. Refuses, before any work, what cannot be served."""
        unknown = next((id for id in request.tokens if not 0 <= id < self.model.vocab_size), None)
        if unknown is not None:
            raise RequestError(f"the prompt holds the id {unknown}; this model knows ids 0 to {self.model.vocab_size - 1}")
        limit = self.model.context
        if limit is not None and len(request.tokens) >= limit:
            raise RequestError(
                f"the prompt is {len(request.tokens)} tokens long, but the model reads {limit} with its answer; "
                f"shorten it to {limit - 1} or fewer"
            )
        self.model.check_given(request.given)
        if request.stop and self.tokenizer is None:
            raise RequestError("stop strings need a tokenizer; this model came without one, so use stop_ids")
        generator = torch.Generator().manual_seed(request.seed)
        text = None if self.tokenizer is None else self._text(self.tokenizer, request)
        row = _Row(self._next_id, request, list(request.tokens), list(request.tokens), generator, text)
        self._waiting.append(row)
        self._next_id += 1
        return row.id

    @staticmethod
    def _text(tokenizer: Tokenizer, request: Request) -> TextStream:
        """What the request will say; it begins a text where its prompt says nothing."""
        return TextStream(tokenizer, request.stop, begins=not any(map(tokenizer.token_bytes, request.tokens)))

    def cancel(self, id: int) -> None:
        """Forget a request, wherever it is."""
        self._waiting = deque(row for row in self._waiting if row.id != id)
        self._drop([row for row in self._running if row.id == id])

    @property
    def busy(self) -> bool:
        """Whether any request is waiting or running."""
        return bool(self._waiting or self._running)

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """One token for every running request; raises ``RequestError`` for one that has no next token, and forgets that one."""
        self._admit()
        if not self._running:
            return []
        scores = self._scores if self._scores is not None else self._read()
        self._scores = scores  # kept while a request may fail: the others draw from them in the next step
        weighed: list[_Weighed] = []
        for row, scored in zip(self._running, scores, strict=True):
            try:
                weighed.append(_weigh(row, scored))
            except RequestError:
                self._drop([row])
                raise
        self._scores = None
        events = [self._draw(row, *both) for row, both in zip(self._running, weighed, strict=True)]
        self._drop([row for row, event in zip(self._running, events, strict=True) if event.done])
        return events

    def _admit(self) -> None:
        """A full house reads on; when every row is done, the next requests of one kind get a fresh cache."""
        if self._running or not self._waiting:
            return
        kind = self._kind(self._waiting[0])
        rows = list(islice((row for row in self._waiting if self._kind(row) == kind), self.rows))
        self._begin(rows, ROOM)
        ids = {row.id for row in rows}
        self._waiting = deque(row for row in self._waiting if row.id not in ids)  # only now: what has no cache still waits

    def _need(self, row: _Row) -> int:
        """How many tokens a row may come to hold."""
        need = len(row.request.tokens) + row.request.max_tokens
        return need if self.model.context is None else min(need, self.model.context)

    def _kind(self, row: _Row) -> Hashable:
        """Rows of one kind may share a cache: they are read alike, and all bring a condition or none does."""
        return self.model.length_kind(self._need(row)), row.request.given is None

    def _begin(self, rows: list[_Row], room: int) -> None:
        """Run rows with a new cache, which has room for all they may need or, without a limit, for ``room`` more tokens."""
        capacity = max(map(self._need, rows))
        if self.model.context is None:
            capacity = min(capacity, max(len(row.seen) for row in rows) + room)
        make = self.make_cache or self.model.cache
        self._cache = make(len(rows), capacity, _stack([row.request.given for row in rows]))
        self._running = rows  # only now: what has no cache does not run
        for row in rows:
            row.unread = list(row.seen)

    def _read(self) -> Float[Tensor, "b v"]:
        """Let the model read what is unread; the scores after each row's last token."""
        if self._cache is None or max(len(row.seen) for row in self._running) > self._cache.capacity:
            self._begin(self._running, room=ROOM if self._cache is None else self._cache.capacity)
        cache, self._cache = self._cache, None  # a pass that breaks off leaves it half written: the rows then begin again
        assert cache is not None
        device = self.model.device
        lengths = torch.tensor([len(row.unread) for row in self._running], device=device)
        t = int(lengths.max())
        tokens = torch.tensor([row.unread + [0] * (t - len(row.unread)) for row in self._running], device=device)
        place = Layout.lengths(lengths, t)
        place = Layout(place.position + cache.lengths.to(device)[:, None] * place.real, place.document)
        hidden = self.model.hidden(tokens, cache, layout=place)
        scores = widen(self.model.readout(hidden[torch.arange(len(tokens), device=device), lengths - 1])).cpu()
        for row in self._running:
            row.unread = []
        self._cache = cache
        return scores

    def _draw(self, row: _Row, logp: Float[Tensor, "v"], filtered: Float[Tensor, "v"]) -> Event:
        if row.request.temperature == 0:
            token = int(filtered.argmax())
        else:
            token = int(torch.multinomial(filtered.exp(), 1, generator=row.generator))
        row.seen.append(token)
        row.unread = [token]
        row.written += 1
        best = logp.topk(min(row.request.logprobs, len(logp)))
        top = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        done, text = self._ending(row, token)
        return Event(row.id, token, float(logp[token]), text, done, top)

    def _ending(self, row: _Row, token: int) -> tuple[Done | None, str]:
        """Whether the request ends with this token, and the text that became certain."""
        full = self.model.context is not None and len(row.seen) >= self.model.context
        if token in row.request.stop_ids:
            return "stop", row.text.flush() if row.text else ""
        text = row.text.feed(token) if row.text else ""
        if row.text and row.text.stopped:
            return "stop", text
        if row.written >= row.request.max_tokens or full:
            return "length", text + (row.text.flush() if row.text else "")
        return None, text

    def _drop(self, gone: list[_Row]) -> None:
        if not gone:
            return
        ids = {row.id for row in gone}
        stay = [i for i, row in enumerate(self._running) if row.id not in ids]
        self._running = [self._running[i] for i in stay]
        if not stay:
            self._cache = self._scores = None
        if self._cache is not None:
            self._cache.keep(stay)
        if self._scores is not None:
            self._scores = self._scores[stay]


def _stack(conditions: list[Given | None]) -> Given | None:
    """The conditions of several rows as one; all rows have one, or none has."""
    given = [condition for condition in conditions if condition is not None]
    return {name: _cat([condition[name] for condition in given]) for name in given[0]} if given else None


def _cat(tensors: list[Tensor]) -> Tensor:
    """Rows one below the other; ids of different lengths are padded on the right."""
    if tensors[0].is_floating_point() or tensors[0].ndim != 2:
        return torch.cat(tensors)
    longest = max(tensor.shape[1] for tensor in tensors)
    return torch.cat([F.pad(tensor, (0, longest - tensor.shape[1]), value=PADDING) for tensor in tensors])


def run(engine: Engine, requests: list[Request]) -> list[list[Event]]:
    """Serve these requests to their ends; the events of each, in the order of the requests.

    Where one of them is refused or fails, that error is raised and all are forgotten. Raises ``RequestError`` for an engine
    that serves others already, whose events would be lost here.
    """
    if engine.busy:
        raise RequestError("the engine is serving other requests; finish or cancel those first, or use an engine of its own")
    events: dict[int, list[Event]] = {}
    try:
        for request in requests:
            events[engine.submit(request)] = []
        while engine.busy:
            for event in engine.step():
                events[event.id].append(event)
    finally:
        for id in events:
            engine.cancel(id)
    return list(events.values())
