"""Chat templates: a Jinja program writes a conversation as one string, which becomes ids and a mask.

The mask is 1 on what the assistant wrote, the token that ends its turn included. A template may mark that itself with
``{% generation %}``. Otherwise it is found by rendering prefixes: what stands between the conversation before a turn, as it
is when the assistant is asked to speak, and the conversation after it. Some templates write earlier turns otherwise once
later ones follow (a system message that moves to the last question); there the turn is found by rendering the whole with
marks around its words. Only where neither shows it is it an error.

Special-token strings inside contents are text: while the template runs they are replaced by stand-ins, which are put back
after the special tokens of the template itself have been found. So no content can open a turn. That holds also for tokens
that a publisher forgot to call special, where the template writes them around turns.
"""

import itertools
import json
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from chainrule.core.chat import ROLES, Message
from chainrule.core.errors import TokenizerError
from chainrule.core.files import read_json, read_text
from chainrule.core.tokenizer import Tokenizer
from chainrule.tokenizers.library import LibraryTokenizer

IM_START, IM_END = "<|im_start|>", "<|im_end|>"
CHATML = (
    "{%- if tools %}{{- '<|im_start|>system\\n<tools>' + (tools | tojson) + '</tools><|im_end|>\\n' }}{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' }}"
    "{%- if message.role == 'assistant' %}{% generation %}"
    "{%- if message.tool_calls %}{%- for call in message.tool_calls %}"
    "{{- '<tool_call>' + (call.function | tojson) + '</tool_call>' }}{%- endfor %}{%- endif %}"
    "{{- message.content + '<|im_end|>' }}{% endgeneration %}"
    "{%- else %}{{- message.content + '<|im_end|>' }}{%- endif %}"
    "{{- '\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
"""Our own template: ChatML, with the assistant's words marked, the tools on offer and their calls as JSON."""

_OPEN, _CLOSE = "\ue000", "\ue001"
_MARK_ON, _MARK_OFF, _UNDER = "\ue002", "\ue003", "\ue004"
_MARKS = (_OPEN, _CLOSE, _MARK_ON, _MARK_OFF, _UNDER)


@dataclass(frozen=True)
class Encoded:
    """Ids, and 1 for each that the assistant wrote."""

    ids: list[int]
    mask: list[int]


@dataclass
class ChatTemplate:
    """A template with the tokenizer whose special tokens it writes. ``variables`` are seen by the template."""

    source: str
    tokenizer: Tokenizer
    variables: Mapping[str, Any] = field(default_factory=dict)

    def render(
        self,
        messages: Sequence[Message | Mapping[str, Any]],
        *,
        tools: Sequence[Any] | None = None,
        generate: bool = False,
    ) -> str:
        """The conversation as one string; with ``generate`` it ends where the assistant is to speak."""
        text = self._run([Message.of(message) for message in messages], tools, generate)
        return _restore(text.replace(_MARK_ON, "").replace(_MARK_OFF, ""), self._stand_ins)

    def encode(
        self,
        messages: Sequence[Message | Mapping[str, Any]],
        *,
        tools: Sequence[Any] | None = None,
        generate: bool = False,
    ) -> Encoded:
        """The ids of the conversation and the mask of what the assistant wrote.

        Raises ``TokenizerError`` where the template fails, or hides which tokens are the assistant's.
        """
        turns = [Message.of(message) for message in messages]
        text = self._run(turns, tools, generate)
        if _marks_itself(self.source):
            return self._encode_marked(text)
        spans = [self._span(text, turns, tools, i) for i, turn in enumerate(turns) if turn.role == "assistant"]
        return self._encode_spans(text, spans)

    def prompt(self, messages: Sequence[Message | Mapping[str, Any]], *, tools: Sequence[Any] | None = None) -> list[int]:
        """The ids of the conversation up to where the assistant is to speak; no template hides those."""
        text = self._run([Message.of(message) for message in messages], tools, True)
        return self._encode_spans(text.replace(_MARK_ON, "").replace(_MARK_OFF, ""), []).ids

    def dated(self, day: date) -> "ChatTemplate":
        """The same template, told this day where it asks for the date."""
        return replace(self, variables={"strftime_now": day.strftime, **self.variables})

    @cached_property
    def _strict(self) -> Tokenizer:
        """The tokenizer with every token special that opens or closes a turn, whatever its file calls it."""
        if not isinstance(self.tokenizer, LibraryTokenizer):
            return self.tokenizer
        added = self.tokenizer.added
        forgotten = [name for name in added if name not in self.tokenizer.specials and _opens_turns(name, added, self.source)]
        return self.tokenizer.with_specials(frozenset(forgotten)) if forgotten else self.tokenizer

    @cached_property
    def _stand_ins(self) -> dict[str, str]:
        """What stands for each special-token string, and for each of our own marks, in contents; longer names first."""
        names = sorted(_all_specials(self._strict), key=len, reverse=True)
        return {name: f"{_OPEN}{i}{_CLOSE}" for i, name in enumerate([*names, *_MARKS])}

    def _run(self, turns: list[Message], tools: Sequence[Any] | None, generate: bool, under: int | None = None) -> str:
        """The template's text, contents shielded; marks stand around the words of message ``under``."""
        rows = [_shield(turn.as_dict(), self._stand_ins) for turn in turns]
        rows = [_underline(row) if i == under else row for i, row in enumerate(rows)]
        known = {**self._names, **self.variables}
        return _render(
            self.source, messages=rows, tools=_shield(tools, self._stand_ins), add_generation_prompt=generate, **known
        )

    @cached_property
    def _names(self) -> dict[str, str]:
        """``bos_token``, ``eos_token`` and their like, for the template to write; empty where the tokenizer has none."""
        of: dict[int | None, str] = {id: name for name, id in _all_specials(self.tokenizer).items()}
        own = {f"{name}_token": of.get(id, "") for name, id in (("bos", self.tokenizer.bos), ("eos", self.tokenizer.end))}
        return own | (self.tokenizer.published_names if isinstance(self.tokenizer, LibraryTokenizer) else {})

    def _span(self, text: str, turns: list[Message], tools: Sequence[Any] | None, i: int) -> tuple[int, int]:
        """Where the i-th message's own words stand in the rendered text."""
        before = self._run(turns[:i], tools, True)
        after = self._run(turns[: i + 1], tools, False)
        if text.startswith(before) and text.startswith(after) and len(before) < len(after):
            return len(before), self._turn_end(text, len(before), len(after))
        span = self._marked_span(text, turns, tools, i)
        if span is None:
            raise TokenizerError(_not_a_prefix(i, text, before))
        return span

    def _marked_span(self, text: str, turns: list[Message], tools: Sequence[Any] | None, i: int) -> tuple[int, int] | None:
        """The same for templates that write earlier messages otherwise once later ones follow.

        The message is rendered with marks around its words, within the whole conversation: its turn reaches from the
        prompt to speak that stands before the marks to the special token after them. None where marks do not show it.
        """
        own = self._marks(text, turns, tools, i)
        prompt = self._run(turns[:i], tools, True)[len(self._run(turns[:i], tools, False)) :]
        if own is None:
            return None
        if prompt:
            at = text.rfind(prompt, 0, own[0])
            start = at + len(prompt) if at >= 0 else -1
        else:
            earlier = self._marks(text, turns, tools, i - 1) if i else None
            closing = self._special.search(text, earlier[1], own[0]) if earlier else None
            start = closing.end() if closing else -1
        ending = self._special.search(text, own[1])
        return (start, ending.end() if ending else own[1]) if 0 <= start <= own[0] else None

    def _marks(self, text: str, turns: list[Message], tools: Sequence[Any] | None, i: int) -> tuple[int, int] | None:
        """First and last place of the i-th message's words in the text; None where marks would change the rest."""
        marked = self._run(turns, tools, False, under=i)
        places = [at for at, character in enumerate(marked) if character == _UNDER]
        if marked.replace(_UNDER, "") != text or not places:
            return None
        return places[0], places[-1] - (len(places) - 1)

    def _turn_end(self, text: str, start: int, stop: int) -> int:
        """The end of the last special token in the span, or of the span: what follows it opens the next turn."""
        ends = [m.end() for m in self._special.finditer(text, start, stop)]
        return ends[-1] if ends else stop

    @cached_property
    def _special(self) -> re.Pattern[str]:
        names = sorted(_all_specials(self._strict), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, names)) or r"(?!)")

    def _encode_marked(self, text: str) -> Encoded:
        spans: list[tuple[int, int]] = []
        plain = ""
        for i, part in enumerate(re.split(f"[{_MARK_ON}{_MARK_OFF}]", text)):
            if i % 2:
                spans.append((len(plain), len(plain) + len(part)))
            plain += part
        return self._encode_spans(plain, spans)

    def _encode_spans(self, text: str, spans: list[tuple[int, int]]) -> Encoded:
        """Encode what stands between special tokens; a token counts that holds a character of a span."""
        whole = self._by_library(text)
        if whole is not None:
            ids, places = whole
            return Encoded(ids, [int(any(a < stop and start < b for a, b in spans)) for start, stop in places])
        specials = _all_specials(self._strict)
        ids, mask = [], []
        for start, stop in _between(text, self._special):
            piece = text[start:stop]
            inside = [(max(a, start) - start, min(b, stop) - start) for a, b in spans if a < stop and start < b]
            new, counts = ([specials[piece]], [bool(inside)]) if piece in specials else self._words(piece, inside)
            ids += new
            mask += map(int, counts)
        return Encoded(ids, mask)

    def _by_library(self, text: str) -> tuple[list[int], list[tuple[int, int]]] | None:
        """Ids and places by the `tokenizers` library, which knows all the ways of its special tokens.

        None for other tokenizers, and where a content spells a special token, which the library would take for one.
        """
        if isinstance(self._strict, LibraryTokenizer) and _OPEN not in text:
            return self._strict.encode_rendered(text)
        return None

    def _words(self, piece: str, inside: list[tuple[int, int]]) -> tuple[list[int], list[bool]]:
        """The ids of a text without special tokens, and which of them hold a character of the spans ``inside``."""
        ids = self._strict.encode(_restore(piece, self._stand_ins))
        whole = _restore(piece, self._stand_ins).encode()
        spans = [tuple(len(_restore(piece[:at], self._stand_ins).encode()) for at in span) for span in inside]
        data = [self._strict.token_bytes(id) for id in ids]
        ends = list(itertools.accumulate(map(len, data)))
        lead = len(b"".join(data)) - len(whole)  # the space that some tokenizers put in front
        if lead < 0 or not b"".join(data).endswith(whole):
            return self._cut_at(piece, inside)
        places = [(end - len(said) - lead, end - lead) for said, end in zip(data, ends, strict=True)]
        return ids, [any(a < stop and start < b for a, b in spans) for start, stop in places]

    def _cut_at(self, piece: str, inside: list[tuple[int, int]]) -> tuple[list[int], list[bool]]:
        """The same where ids do not tell their bytes (a tokenizer that normalises): encoded apart where spans begin and end."""
        cuts = sorted({0, len(piece), *itertools.chain(*inside)})
        ids, counts = [], []
        for start, stop in itertools.pairwise(cuts):
            new = self._strict.encode(_restore(piece[start:stop], self._stand_ins))
            ids += new
            counts += [any(a <= start and stop <= b for a, b in inside)] * len(new)
        return ids, counts


def find_template(folder: Path) -> str | None:
    """The chat template published in a folder, or None; raises ``ChainruleError`` where it is damaged."""
    file, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if file.exists():
        return read_text(file)
    settings = read_json(config, error=TokenizerError) if config.exists() else {}
    template = settings.get("chat_template") if isinstance(settings, dict) else None
    if isinstance(template, list):
        named = {str(entry.get("name")): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default", next(iter(named.values()), template))
    if not isinstance(template, str | None):
        raise TokenizerError(
            f"{config}: chat_template is a {type(template).__name__}, not the text of a template; copy it again"
        )
    return template


def _between(text: str, special: re.Pattern[str]) -> list[tuple[int, int]]:
    """Where special tokens, and the texts between them, begin and end."""
    cuts = {0, len(text)} | {at for match in special.finditer(text) for at in match.span()}
    return list(itertools.pairwise(sorted(cuts)))


def _all_specials(tokenizer: Tokenizer) -> dict[str, int]:
    return {name: id for name, id in tokenizer.specials.items() if name}


def _opens_turns(name: str, added: Container[str], source: str) -> bool:
    """Whether an added token that is not called special is one that the template writes around turns, as DeepSeek's <｜User｜>.

    What comes in pairs, <think> and </think>, is for messages to say: templates look for it there. Words and spaces that
    were added are no marks.
    """
    letters = "".join(filter(str.isalnum, name)).lower()
    if not letters or not any(bracket in name for bracket in "<>[]{}|"):
        return False
    partner = name[0] + name[2:] if name[1:2] == "/" else f"{name[0]}/{name[1:]}"
    return partner not in added and (name in source or letters in ROLES)


def _shield(value: Any, stand_ins: Mapping[str, str]) -> Any:
    """The same data with every special-token string in it, keys too, replaced by its stand-in."""
    if isinstance(value, str):
        return re.sub("|".join(map(re.escape, stand_ins)), lambda found: stand_ins[found[0]], value)
    if isinstance(value, Mapping):
        return {_shield(key, stand_ins): _shield(item, stand_ins) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_shield(item, stand_ins) for item in value]
    return value


def _restore(text: str, stand_ins: Mapping[str, str]) -> str:
    names = list(stand_ins)
    return re.sub(f"{_OPEN}(\\d+){_CLOSE}", lambda found: names[int(found[1])], text)


def _agree(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _underline(row: Mapping[str, Any]) -> dict[str, Any]:
    """The message with a mark before and after its words and those of its tool calls."""
    said = [
        call
        | {
            "function": {
                "name": f"{_UNDER}{call['function']['name']}{_UNDER}",
                "arguments": _marked(call["function"]["arguments"]),
            }
        }
        for call in row.get("tool_calls", ())
    ]
    content = row["content"] and f"{_UNDER}{row['content']}{_UNDER}"
    return {**row, "content": content} | ({"tool_calls": said} if said else {})


def _marked(value: Any) -> Any:
    if isinstance(value, str):
        return f"{value}{_UNDER}"
    return {key: _marked(item) for key, item in value.items()} if isinstance(value, Mapping) else value


def _not_a_prefix(i: int, text: str, prefix: str) -> str:
    at = _agree(text, prefix)
    return (
        f"the chat template does not show which words of message {i} are the assistant's: the conversation up to it renders "
        f"as …{prefix[max(0, at - 20) : at + 20]!r}, the whole as …{text[max(0, at - 20) : at + 20]!r}. Put "
        "{% generation %} and {% endgeneration %} around the assistant's words in the template"
    )


def _render(source: str, **variables: Any) -> str:
    from jinja2 import TemplateError, TemplateSyntaxError

    try:
        return _compiled(source).render(**variables)
    except TemplateSyntaxError as error:
        raise TokenizerError(f"the chat template is broken in line {error.lineno}: {error.message}; copy it again") from error
    except TemplateError as error:
        raise TokenizerError(f"the chat template refuses this conversation: {error}") from error
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # what its own expressions may raise
        if isinstance(error, TokenizerError):
            raise
        raise TokenizerError(f"the chat template fails on this conversation: {type(error).__name__}: {error}") from error


@lru_cache(maxsize=16)
def _compiled(source: str) -> Any:
    return _environment().from_string(source)


@lru_cache(maxsize=16)
def _marks_itself(source: str) -> bool:
    """Whether the template holds a ``{% generation %}``, in whatever form; no other extension here makes a block."""
    from jinja2 import nodes

    blocks = _environment().parse(source).find_all(nodes.CallBlock)
    return any(isinstance(block.call.node, nodes.ExtensionAttribute) for block in blocks)


def _environment() -> Any:
    """Jinja as chat templates expect it: sandboxed, blocks trimmed, with ``raise_exception`` and plain JSON."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %} … {% endgeneration %}`` marks what the assistant wrote."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

        def _mark(self, caller: Any) -> str:
            return f"{_MARK_ON}{caller()}{_MARK_OFF}"

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **rest: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **rest)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = _no_clock
    return environment


def _no_clock(format: str) -> str:
    raise TokenizerError(
        "the chat template asks for the date, and a run does not hang on the clock; say which day to tell it: "
        "data.day=2024-07-26 (in Python: template.dated(date(2024, 7, 26)))"
    )
