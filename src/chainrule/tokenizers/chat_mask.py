"""Where the assistant's turns stand in a rendered conversation, for templates that do not say so themselves.

A turn is found by rendering prefixes: it reaches from the conversation before it, as it is when the assistant is asked to
speak, to the conversation after it. Some templates write earlier turns otherwise once later ones follow (a system message
that moves to the last question), or refuse a conversation that ends early; there the whole is rendered with a probe, a
character that no content holds, around the words of the turn. Only where neither shows it is it an error. A turn of which
nothing is rendered has no words to learn.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from chainrule.core.chat import Message
from chainrule.core.errors import TokenizerError
from chainrule.tokenizers.chat_jinja import Span

PROBE = "\ue004"


class Render(Protocol):
    """Renders a conversation: with ``generate`` up to where the assistant is to speak, with probes around message ``probe``."""

    def __call__(self, turns: Sequence[Message], *, generate: bool = False, probe: int | None = None) -> str: ...


def assistant_spans(text: str, turns: Sequence[Message], render: Render, special: re.Pattern[str]) -> list[Span]:
    """Where each turn of the assistant stands in the rendered ``text``, the token that ends it included.

    ``special`` matches a special token. Raises ``TokenizerError`` where the template hides a turn.
    """
    search = _Search(text, turns, render, special)
    spans = [search.span(i) for i, turn in enumerate(turns) if turn.role == "assistant"]
    return [(start, stop) for start, stop in spans if start < stop]


@dataclass(frozen=True)
class _Search:
    """A rendered conversation in which turns are looked for."""

    text: str
    turns: Sequence[Message]
    render: Render
    special: re.Pattern[str]

    def span(self, i: int) -> Span:
        """Where the i-th turn stands in the text; an empty span where nothing of it does."""
        try:
            found = self.span_by_prefixes(i)
        except TokenizerError as refusal:
            found = self.span_by_probe(i)
            if found is None:
                raise TokenizerError(_hidden(i, f"it fails on the conversation up to it ({refusal})")) from refusal
            return found
        found = found or self.span_by_probe(i) or self.nothing(i)
        if found is None:
            before = self.render(self.turns[:i], generate=True)
            raise TokenizerError(_hidden(i, _difference(self.text, before)))
        return found

    def span_by_prefixes(self, i: int) -> Span | None:
        """What the conversation up to the i-th turn's end has more than the one up to where it is to be spoken."""
        before = self.render(self.turns[:i], generate=True)
        after = self.render(self.turns[: i + 1])
        if self.text.startswith(before) and self.text.startswith(after) and len(before) < len(after):
            return len(before), self.turn_end(len(before), len(after))
        return None

    def nothing(self, i: int) -> Span | None:
        """An empty span where the conversation is no longer with the i-th turn than without."""
        without, after = self.render(self.turns[:i]), self.render(self.turns[: i + 1])
        bare = self.text.startswith(after) and after in (without, self.render(self.turns[:i], generate=True))
        return (len(after), len(after)) if bare else None

    def turn_end(self, start: int, stop: int) -> int:
        """The end of the last special token in the span, or of the span: what follows it opens the next turn."""
        ends = [match.end() for match in self.special.finditer(self.text, start, stop)]
        return ends[-1] if ends else stop

    def span_by_probe(self, i: int) -> Span | None:
        """The same by the place of its words: from the prompt to speak before them to the special token after them."""
        words = self.words(i)
        if words is None:
            return None
        prompt, earlier = self.prompt(i), self.words(i - 1) if i else None
        if prompt is None:
            return None
        if prompt:
            at = self.text.rfind(prompt, earlier[1] if earlier else 0, words[0])
            start = at + len(prompt) if at >= 0 else -1
        else:
            closing = self.special.search(self.text, earlier[1], words[0]) if earlier else None
            start = closing.end() if closing else -1
        ending = self.special.search(self.text, words[1])
        return (start, ending.end() if ending else words[1]) if 0 <= start <= words[0] else None

    def prompt(self, i: int) -> str | None:
        """What asks the assistant to speak the i-th turn; None where the template does not say.

        One that refuses the conversation so far may say it after the whole.
        """
        try:
            return self.render(self.turns[:i], generate=True)[len(self.render(self.turns[:i])) :]
        except TokenizerError:
            pass
        try:
            return self.render(self.turns, generate=True)[len(self.render(self.turns)) :] or None
        except TokenizerError:
            return None

    def words(self, i: int) -> Span | None:
        """Where the i-th message's own words stand; None where probes would change the rest of the text."""
        probed = self.render(self.turns, probe=i)
        places = [at for at, character in enumerate(probed) if character == PROBE]
        if probed.replace(PROBE, "") != self.text or not places:
            return None
        return places[0], places[-1] - (len(places) - 1)


def probed(row: Mapping[str, Any]) -> dict[str, Any]:
    """The message with a probe before and after its words, and in those of its tool calls."""
    calls = [call | {"function": _probed_call(call["function"])} for call in row.get("tool_calls", ())]
    content = row["content"] and f"{PROBE}{row['content']}{PROBE}"
    return {**row, "content": content} | ({"tool_calls": calls} if calls else {})


def _probed_call(function: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": f"{PROBE}{function['name']}{PROBE}", "arguments": _probed_texts(function["arguments"])}


def _probed_texts(value: Any) -> Any:
    if isinstance(value, str):
        return f"{value}{PROBE}"
    return {key: _probed_texts(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def _hidden(i: int, because: str) -> str:
    return (
        f"the chat template does not show which words of message {i} are the assistant's: {because}. Put "
        "{% generation %} and {% endgeneration %} around the assistant's words in the template"
    )


def _difference(text: str, prefix: str) -> str:
    differ = (at for at, (a, b) in enumerate(zip(text, prefix, strict=False)) if a != b)
    at = next(differ, min(len(text), len(prefix)))
    return (
        f"the conversation up to it renders as …{prefix[max(0, at - 20) : at + 20]!r}, "
        f"the whole as …{text[max(0, at - 20) : at + 20]!r}"
    )
