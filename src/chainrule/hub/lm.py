"""A language model one can use: the model, its tokenizer and its chat template, together."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from chainrule.core.chat import Chat, Message, Scorer
from chainrule.core.datum import Batch, Given
from chainrule.core.errors import RequestError
from chainrule.core.model import LanguageModel
from chainrule.core.tokenizer import Tokenizer, needed
from chainrule.generate.engine import Engine, Request
from chainrule.generate.next import next_pieces
from chainrule.logprobs.measures import bits_per_byte, judged_ids
from chainrule.logprobs.scoring import check_numbers, token_logprobs
from chainrule.tokenizers.chat import IM_END, ChatTemplate
from chainrule.tools import TOOLS
from chainrule.tools.calls import read_calls, run_call

SETTINGS = tuple(name for name in Request.__dataclass_fields__ if name not in ("tokens", "given"))
"""How a prompt may be continued: the fields of a request but what it reads."""


@dataclass(frozen=True)
class Score:
    """A text's tokens as pieces, log p of each in nats, their sum, and bits per byte. ``end`` counts among the tokens."""

    tokens: list[int]
    pieces: list[str]
    logp: list[float]
    total: float
    bits_per_byte: float
    unjudged_bytes: int = 0

    def __str__(self) -> str:
        rows = [
            f"{piece!r:>16} {logp:9.4f}  p = {math.exp(logp):.4g}" for piece, logp in zip(self.pieces, self.logp, strict=True)
        ]
        note = f"  ({self.unjudged_bytes} bytes unjudged: no begin token)" if self.unjudged_bytes else ""
        return "\n".join([*rows, f"{'total':>16} {self.total:9.4f} nats  {self.bits_per_byte:.4f} bits per byte{note}"])


class LM:
    """``model`` is a ``LanguageModel``; ``tokenizer`` and ``template`` are None where the files brought none.

    ``generation`` holds the publisher's ``generation_config.json``: kept and saved again, never applied behind anybody's back.
    """

    def __init__(
        self,
        model: LanguageModel,
        tokenizer: Tokenizer | None = None,
        template: ChatTemplate | None = None,
        *,
        name: str = "",
        generation: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.template, self.name = model, template, name
        self.generation = dict(generation or {})
        self.tokenizer = tokenizer

    def need_tokenizer(self) -> Tokenizer:
        """The tokenizer; raises ``RequestError`` where the model came without one."""
        return needed(self.tokenizer, self.name)

    def score(self, text: str, *, given: str | None = None, end: bool = False, force: bool = False) -> Score:
        """log p of every token of a text given its beginning; with ``end`` also that it ends there.

        ``given`` is the source, for a model that writes a target given one.
        """
        tokenizer, source = self.need_tokenizer(), self._given(given)
        judged = judged_ids(tokenizer, text, end=end, force=force, begin=self.model.start)
        logp = self._logp(judged.ids, source)[1:]
        total = math.fsum(logp)
        ids = judged.ids[1:]
        bits = bits_per_byte(-total, judged.n_bytes) if judged.n_bytes else math.nan
        return Score(ids, [tokenizer.piece(id) for id in ids], logp, total, bits, judged.unjudged_bytes)

    def logp(self, text: str, *, prompt: str = "") -> float:
        """log p(text | prompt) in nats; the two are tokenised apart. The prompt of an encoder–decoder is the source.

        Without a prompt the text is judged as in ``score``, given its beginning.
        """
        given = self._given(prompt) if self.model.needs else None
        head = (self._prompt(prompt) or self._begin()) if given is None else [self._start()]
        ids = [*head, *self.need_tokenizer().encode(text)]
        return math.fsum(self._logp(ids, given)[len(head) :]) if ids else 0.0

    @torch.inference_mode()
    def logp_begins(self, text: str) -> float:
        """log p in nats that a text begins so, whatever follows: its end may be said by any token that says it and more.

        Where a tokenizer writes 。 and the word behind it as one token, a text that ends in 。 is no row of tokens that a model
        ever saw; and where ``time`` is one token, ``ti`` may be two. So behind the first tokens of the text, however many they
        are, all those count that begin with the rest of it. As in ``score``, the text is judged given its beginning.
        """
        tokenizer = self.need_tokenizer()
        ids = [*self._begin(), *tokenizer.encode(text)]
        if len(ids) < 2:
            raise RequestError(f"{text!r} is too short to be judged: nothing comes before its last token; give a longer one")
        specials = set(tokenizer.specials.values())
        said = {id: tokenizer.token_bytes(id) for id in range(tokenizer.vocab_size) if id not in specials}
        longest = max(map(len, said.values()))
        before, states = self._logp(ids[:-1]), self.model.hidden(torch.tensor([ids[:-1]], device=self.model.device))
        ways: list[float] = []
        rest = b""
        for n in range(len(ids) - 1, 0, -1):
            rest = tokenizer.token_bytes(ids[n]) + rest
            if len(rest) > longest:
                break
            if more := [id for id, spelling in said.items() if spelling.startswith(rest)]:
                after = self.model.readout(states[:, n - 1])[0].cpu().double().log_softmax(-1)
                ways.append(math.fsum(before[1:n]) + float(after[more].logsumexp(0)))
        return float(torch.tensor(ways, dtype=torch.float64).logsumexp(0))

    @torch.inference_mode()
    def _logp(self, ids: list[int], given: Given | None = None) -> list[float]:
        """log p of each id given those before it; a row longer than the context is refused."""
        if self.model.context is not None and len(ids) > self.model.context:
            raise RequestError(
                f"the text is {len(ids)} tokens long, but {self.name} reads {self.model.context}; give less at a time, "
                "or use chainrule eval, which reads long texts in windows"
            )
        tokens = torch.tensor([ids], device=self.model.device)
        batch = Batch(tokens, torch.ones(tokens.shape, device=tokens.device), given=given)
        return check_numbers(token_logprobs(self.model, batch))[0].tolist()

    def next(self, text: str, k: int = 5, *, given: str | None = None) -> list[tuple[str, float]]:
        """The ``k`` most probable continuations of a text as (piece, probability); ``given`` as in ``score``."""
        tokenizer, source = self.need_tokenizer(), self._given(given)
        if source is None:
            return next_pieces(self.model, tokenizer, self._prompt(text), k)
        ids = [self._start(), *tokenizer.encode(text)]
        return next_pieces(self.model.given(source), tokenizer, ids, k)

    def generate(self, prompt: str = "", **settings: Any) -> str:
        """The continuation of a prompt; settings are those of ``generate.engine.Request``.

        A model that writes a target given a source reads the prompt as the source, and says the target.
        """
        return "".join(self.stream(prompt, **settings))

    def stream(self, prompt: str = "", **settings: Any) -> Iterator[str]:
        """The continuation in pieces of whole characters."""
        return self._stream(self.asked(prompt, **settings))

    def asked(self, prompt: str, **settings: Any) -> Request:
        """The request to continue a prompt, or to write its target."""
        _check_settings(settings)
        given = self._given(prompt) if self.model.needs else None
        return self.request(self._prompt(prompt) if given is None else [self._start()], given=given, **settings)

    def chat(self, messages: Sequence[Message | Mapping[str, Any]], /, **settings: Any) -> str:
        """The assistant's reply to a conversation; greedy unless a temperature is given.

        Where it calls the calculator, that answers and the model goes on, as in ``converse``; the reply is what it says last.
        """
        *_, last = self.converse(messages, **settings)
        return last["content"]

    def stream_chat(self, messages: Sequence[Message | Mapping[str, Any]], /, **settings: Any) -> Iterator[str]:
        """The next message alone, in pieces of whole characters: a tool call is streamed as it is written and not run.

        ``converse(echo=...)`` runs it.
        """
        return self._stream(self.request(self.chat_ids(messages), **{"temperature": 0.0, **settings}))

    def converse(
        self,
        messages: Sequence[Message | Mapping[str, Any]],
        /,
        *,
        tools: Mapping[str, Callable[..., str]] = TOOLS,
        echo: Callable[[str], None] | None = None,
        calls: int = 4,
        **settings: Any,
    ) -> Iterator[dict[str, Any]]:
        """The reply and all that comes of it: where it calls tools, their answers follow and the model goes on.

        Yields the messages to add; at most ``calls`` rounds of calls are made. ``echo`` hears the words as they come.
        """
        said = [Message.of(message).as_dict() for message in messages]
        for round in range(calls + 1):
            pieces = []
            for piece in self.stream_chat(said, **settings):
                pieces.append(piece)
                if echo is not None:
                    echo(piece)
            content, asked = read_calls("".join(pieces))
            said.append(Message(role="assistant", content=content, tool_calls=asked).as_dict())
            yield said[-1]
            if not asked or round == calls:
                return
            for call in asked:
                result = run_call(call, tools)
                if echo is not None:
                    echo(f" = {result}\n")
                said.append(Message(role="tool", content=result, name=call.name).as_dict())
                yield said[-1]

    def chat_ids(self, messages: Sequence[Message | Mapping[str, Any]]) -> list[int]:
        """The conversation as the model reads it before it answers; a template that asks for the date is told today's, or
        the day it was given."""
        if self.template is None:
            raise RequestError(
                f"{self.name} has no chat template, so it was not taught to chat; use generate, or fine-tune it first: "
                "chainrule train sft model.path=..."
            )
        ids = self.template.dated(date.today()).prompt(messages)
        bos = self.need_tokenizer().bos
        return ids if bos is None or ids[:1] == [bos] else [bos, *ids]

    def save(self, folder: str | Path, *, force: bool = False, **how: Any) -> Path:
        """Write the Hugging Face layout, whole or not at all; ``how`` may say ``shard_bytes``, as in ``hub.save.save``."""
        from chainrule.hub.save import save

        source, tool_use = (None, None) if self.template is None else (self.template.source, self.template.tool_use)
        how |= {"force": force, "generation": self.generation, "tool_use": tool_use}
        return save(folder, self.model, self.tokenizer, source, **how)

    def request(self, tokens: list[int], /, given: Given | None = None, **settings: Any) -> Request:
        """A request that stops where this model's texts end; unknown settings are refused."""
        stops = frozenset(self.tokenizer.eos) if self.tokenizer is not None else frozenset[int]()
        stop = settings.pop("stop", None)
        settings["stop"] = () if stop is None else (stop,) if isinstance(stop, str) else tuple(stop)
        _check_settings(settings)
        asked = frozenset(settings.pop("stop_ids", None) or ())
        return Request(tokens=tokens, given=given, stop_ids=asked | stops | self.turn_ends(), **settings)

    def turn_ends(self) -> frozenset[int]:
        """The token that ends a turn in ChatML, where the template writes it."""
        if self.template is None or IM_END not in self.template.source:
            return frozenset()
        specials = self.need_tokenizer().specials
        return frozenset({specials[IM_END]} if IM_END in specials else ())

    def _prompt(self, text: str) -> list[int]:
        """A prompt as the model reads it; where nothing would be read, what begins a text."""
        tokenizer = self.need_tokenizer()
        ids = [*([] if tokenizer.bos is None else [tokenizer.bos]), *tokenizer.encode(text)]
        return ids or self._begin()

    def _given(self, text: str | None) -> Given | None:
        """A text as the source of a model that needs one, its end token behind it; None where there is no text."""
        if text is None:
            self.model.check_given(None)
            return None
        if self.model.needs != ("source",):
            wants = ", ".join(self.model.needs) or "no condition"
            raise RequestError(f"{self.name} takes {wants}, so it cannot be given a text; leave the source out")
        if not text:
            raise RequestError(f"{self.name} writes a target given a source; give the text to translate")
        tokenizer = self.need_tokenizer()
        return {"source": torch.tensor([tokenizer.framed(tokenizer.encode(text), begin=False)])}

    def _begin(self) -> list[int]:
        """The token that a text's probability is conditioned on; nothing where there is none."""
        begin = self.need_tokenizer().begin if self.model.start is None else self.model.start
        return [] if begin is None else [begin]

    def _start(self) -> int:
        """What every target begins with."""
        begin = self._begin()
        if not begin:
            raise RequestError(
                f"neither {self.name} nor its tokenizer names a token that begins a text; set start in its config"
            )
        return begin[0]

    def _stream(self, request: Request) -> Iterator[str]:
        engine = Engine(self.model, self.need_tokenizer())
        engine.submit(request)
        return self._pieces(engine)

    @staticmethod
    def _pieces(engine: Engine) -> Iterator[str]:
        while engine.busy:
            for event in engine.step():
                if event.text:
                    yield event.text


def _check_settings(settings: Mapping[str, Any]) -> None:
    if unknown := sorted(set(settings) - set(SETTINGS)):
        raise RequestError(f"unknown setting {unknown[0]!r}; known are {', '.join(SETTINGS)}")


if TYPE_CHECKING:  # applications may be given it for either: a type checker holds it to that
    _: tuple[type[Chat], type[Scorer]] = (LM, LM)
