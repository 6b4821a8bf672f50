"""Chat templates: a Jinja program writes a conversation as one string, which becomes ids and a mask.

The mask is 1 on what the assistant wrote, the token that ends its turn included. A template may mark that itself with
``{% generation %}``; otherwise its turns are looked for in what is rendered (``chat_mask``).

Special-token strings inside contents are text: while the template runs they are replaced by stand-ins, which are put back
after the special tokens of the template itself have been found. So no content can open a turn. That holds also for tokens
that a publisher forgot to call special, where the template writes them around turns.
"""

import itertools
import re
from bisect import bisect_left
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from chainrule.core.chat import ROLES, Message
from chainrule.core.errors import TokenizerError
from chainrule.core.files import read_json, read_text
from chainrule.core.tokenizer import Tokenizer
from chainrule.tokenizers.chat_jinja import TAG_OFF, TAG_ON, Span, has_generation_tags, run_template, untag
from chainrule.tokenizers.chat_mask import PROBE, assistant_spans, probed
from chainrule.tokenizers.fast import LibraryTokenizer

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
"""Our own template: ChatML, with the assistant's words tagged, the tools on offer and their calls as JSON."""

MORE_TEMPLATES, TOOL_USE = "additional_chat_templates", "tool_use"
"""The folder of the templates that are no default, as transformers keeps them; the one for conversations with tools."""

_OPEN, _CLOSE = "\ue000", "\ue001"
_OURS = (_OPEN, _CLOSE, TAG_ON, TAG_OFF, PROBE)
"""Characters of private use that mean something here, and so are shielded in contents."""


@dataclass(frozen=True)
class Encoded:
    """Ids, and 1 for each that the assistant wrote."""

    ids: list[int]
    mask: list[int]


@dataclass
class ChatTemplate:
    """A template with the tokenizer whose special tokens it writes. ``variables`` are seen by the template.

    ``tool_use`` is the one to take instead where tools are offered, for models that were published with two.
    """

    source: str
    tokenizer: Tokenizer
    variables: Mapping[str, Any] = field(default_factory=dict)
    tool_use: str | None = None

    def render(
        self,
        messages: Sequence[Message | Mapping[str, Any]],
        *,
        tools: Sequence[Any] | None = None,
        generate: bool = False,
    ) -> str:
        """The conversation as one string; with ``generate`` it ends where the assistant is to speak."""
        if tools is not None and self.tool_use is not None:
            return self._for_tools.render(messages, tools=tools, generate=generate)
        text, _ = untag(self._run(tools, [Message.of(message) for message in messages], generate=generate))
        return _restore(text, self._stand_ins)

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
        if tools is not None and self.tool_use is not None:
            return self._for_tools.encode(messages, tools=tools, generate=generate)
        turns = [Message.of(message) for message in messages]
        text = self._run(tools, turns, generate=generate)
        if has_generation_tags(self.source):
            return self._encode_spans(*untag(text))
        return self._encode_spans(text, assistant_spans(text, turns, partial(self._run, tools), self._special))

    def prompt(self, messages: Sequence[Message | Mapping[str, Any]], *, tools: Sequence[Any] | None = None) -> list[int]:
        """The ids of the conversation up to where the assistant is to speak; no template hides those."""
        if tools is not None and self.tool_use is not None:
            return self._for_tools.prompt(messages, tools=tools)
        text, _ = untag(self._run(tools, [Message.of(message) for message in messages], generate=True))
        return self._encode_spans(text, []).ids

    def dated(self, day: date) -> "ChatTemplate":
        """The same template, told this day where it asks for the date."""
        return replace(self, variables={"strftime_now": day.strftime, **self.variables})

    @cached_property
    def _for_tools(self) -> "ChatTemplate":
        """The template for conversations in which tools are offered."""
        return replace(self, source=self.tool_use or self.source, tool_use=None)

    @cached_property
    def _strict(self) -> Tokenizer:
        """The tokenizer with every token special that opens or closes a turn, whatever its file calls it."""
        added = self.tokenizer.added
        forgotten = [name for name in added if name not in self.tokenizer.specials and _opens_turns(name, added, self.source)]
        return self.tokenizer.with_specials(frozenset(forgotten)) if forgotten else self.tokenizer

    @cached_property
    def _inside(self) -> Tokenizer:
        """The same for what stands behind a special token."""
        return self._strict.inside()

    @cached_property
    def _stand_ins(self) -> dict[str, str]:
        """What stands for each special-token string, and for each of our own characters, in contents; longer names first."""
        names = sorted(_all_specials(self._strict), key=len, reverse=True)
        return {name: f"{_OPEN}{i}{_CLOSE}" for i, name in enumerate([*names, *_OURS])}

    @cached_property
    def _to_shield(self) -> re.Pattern[str]:
        """Matches what must not stand in contents as it is: of two strings that begin alike, the longer."""
        return re.compile("|".join(map(re.escape, self._stand_ins)))

    def _shielded(self, data: Any) -> Any:
        """The same data with a stand-in for every special-token string in it."""
        return _replaced(data, lambda text: self._to_shield.sub(lambda found: self._stand_ins[found[0]], text))

    def _run(
        self, tools: Sequence[Any] | None, turns: Sequence[Message], *, generate: bool = False, probe: int | None = None
    ) -> str:
        """The template's text, contents shielded; probes stand around the words of message ``probe``."""
        rows = [self._shielded(turn.as_dict()) for turn in turns]
        rows = [probed(row) if i == probe else row for i, row in enumerate(rows)]
        variables = {**self._names, **self.variables}
        return run_template(
            self.source, messages=rows, tools=self._shielded(tools), add_generation_prompt=generate, **variables
        )

    @cached_property
    def _names(self) -> dict[str, str]:
        """``bos_token``, ``eos_token`` and their like, for the template to write; empty where the tokenizer has none."""
        of: dict[int | None, str] = {id: name for name, id in _all_specials(self.tokenizer).items()}
        own = {f"{name}_token": of.get(id, "") for name, id in (("bos", self.tokenizer.bos), ("eos", self.tokenizer.end))}
        return own | dict(self.tokenizer.published_names)

    @cached_property
    def _special(self) -> re.Pattern[str]:
        """Matches a special token; of two that begin alike, the longer."""
        return _finding(_all_specials(self._strict), {})

    def _encode_spans(self, text: str, spans: list[Span]) -> Encoded:
        """Encode what stands between special tokens; a token counts that holds a character of a span."""
        whole = self._by_library(text)
        if whole is not None:
            ids, places = whole
            return Encoded(ids, _touched(places, spans))
        specials = dict(self._strict.added) | _all_specials(self._strict)
        ids, mask = [], []
        for start, stop in _between(text, _finding(specials, self._strict.strips)):
            piece = text[start:stop]
            name = piece if piece in specials else piece.strip()
            inside = [(max(a, start) - start, min(b, stop) - start) for a, b in spans if a < stop and start < b]
            new, counts = ([specials[name]], [bool(inside)]) if name in specials else self._words(piece, inside, start)
            ids += new
            mask += map(int, counts)
        return Encoded(ids, mask)

    def _by_library(self, text: str) -> tuple[list[int], list[Span]] | None:
        """Ids and places by the `tokenizers` library, which knows all the ways of its special tokens.

        None for other tokenizers, and where a content spells a special token, which the library would take for one.
        """
        if isinstance(self._strict, LibraryTokenizer) and _OPEN not in text:
            return self._strict.encode_rendered(text)
        return None

    def _words(self, piece: str, inside: list[Span], start: int) -> tuple[list[int], list[bool]]:
        """The ids of a text without special tokens, and which of them hold a character of the spans ``inside``.

        It begins at ``start`` in the conversation.
        """
        ids = (self._inside if start else self._strict).encode(_restore(piece, self._stand_ins))
        whole = _restore(piece, self._stand_ins).encode()
        spans = [tuple(len(_restore(piece[:at], self._stand_ins).encode()) for at in span) for span in inside]
        data = [self._strict.token_bytes(id) for id in ids]
        ends = list(itertools.accumulate(map(len, data)))
        lead = len(b"".join(data)) - len(whole)  # the space that some tokenizers put in front
        if lead < 0 or not b"".join(data).endswith(whole):
            return self._cut_at(piece, inside, start)
        places = [(end - len(part) - lead, end - lead) for part, end in zip(data, ends, strict=True)]
        return ids, [any(a < stop and start < b for a, b in spans) for start, stop in places]

    def _cut_at(self, piece: str, inside: list[Span], at: int) -> tuple[list[int], list[bool]]:
        """The same where ids do not tell their bytes (a tokenizer that normalises): encoded apart where spans begin and end."""
        cuts = sorted({0, len(piece), *itertools.chain(*inside)})
        ids, counts = [], []
        for start, stop in itertools.pairwise(cuts):
            tokenizer = self._inside if at + start else self._strict
            new = tokenizer.encode(_restore(piece[start:stop], self._stand_ins))
            ids += new
            counts += [any(a <= start and stop <= b for a, b in inside)] * len(new)
        return ids, counts


def chatml(tokenizer: Tokenizer) -> ChatTemplate:
    """Our own template for a tokenizer, after its BOS if it has one: every row that a model learns from begins with that."""
    return ChatTemplate(CHATML if tokenizer.bos is None else "{{- bos_token }}" + CHATML, tokenizer)


def find_templates(folder: Path) -> dict[str, str]:
    """The chat templates published in a folder by their names; one alone is the ``default``."""
    files = {file.stem: read_text(file) for file in sorted((folder / MORE_TEMPLATES).glob("*.jinja"))}
    file, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if file.exists():
        return {"default": read_text(file)} | files
    settings = read_json(config, error=TokenizerError) if config.exists() else {}
    template = settings.get("chat_template") if isinstance(settings, dict) else None
    named: Any = {} if template is None else {"default": template}
    if isinstance(template, list) and template:
        named = {str(entry.get("name")): entry.get("template") for entry in template if isinstance(entry, dict)}
    if wrong := next((one for one in (named or {"": template}).values() if not isinstance(one, str | None)), None):
        raise TokenizerError(f"{config}: chat_template is a {type(wrong).__name__}, not the text of a template; copy it again")
    return {name: one for name, one in named.items() if one is not None} | files


def _between(text: str, special: re.Pattern[str]) -> list[Span]:
    """Where special tokens, and the texts between them, begin and end."""
    cuts = {0, len(text)} | {at for match in special.finditer(text) for at in match.span()}
    return list(itertools.pairwise(sorted(cuts)))


def _touched(places: Iterable[Span], spans: Sequence[Span]) -> list[int]:
    """1 for each place that shares a character with one of the spans, which follow each other and do not overlap."""
    begins = [begin for begin, _ in spans]
    ends = [0, *(end for _, end in spans)]
    # of the spans that begin before a place stops, the last one ends last
    return [int(start < ends[bisect_left(begins, stop)]) for start, stop in places]


def _finding(names: Iterable[str], strips: Mapping[str, tuple[bool, bool]]) -> re.Pattern[str]:
    """Matches the names, the longer first, each with the white space that it takes with it."""
    space = {True: r"\s*", False: ""}
    each = ((strips.get(name, (False, False)), name) for name in sorted(names, key=len, reverse=True))
    return re.compile("|".join(space[left] + re.escape(name) + space[right] for (left, right), name in each) or r"(?!)")


def _all_specials(tokenizer: Tokenizer) -> dict[str, int]:
    return {name: id for name, id in tokenizer.specials.items() if name}


def _opens_turns(name: str, added: Container[str], source: str) -> bool:
    """Whether an added token that is not called special is one that the template writes around turns, as DeepSeek's <｜User｜>.

    What comes in pairs, <think> and </think>, is for messages to say: templates look for it there. Words and spaces that
    were added are none.
    """
    letters = "".join(filter(str.isalnum, name)).lower()
    if not letters or not any(bracket in name for bracket in "<>[]{}|"):
        return False
    partner = name[0] + name[2:] if name[1:2] == "/" else f"{name[0]}/{name[1:]}"
    return partner not in added and (name in source or letters in ROLES)


def _replaced(value: Any, change: Callable[[str], str]) -> Any:
    """The same data with every string in it changed, keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_replaced(key, change): _replaced(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item, change) for item in value]
    return value


def _restore(text: str, stand_ins: Mapping[str, str]) -> str:
    names = list(stand_ins)
    return re.sub(f"{_OPEN}(\\d+){_CLOSE}", lambda found: names[int(found[1])], text)
