"""Messages, and the three things an application may ask of a model: chat, score, embed. Imports no torch."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

from chainrule.core.errors import DataError

ROLES = ("system", "developer", "user", "assistant", "tool")


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """One call of a tool by name; ``arguments`` are JSON values."""

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The call in OpenAI's form, with the arguments as an object, as chat templates want it."""
        call: dict[str, Any] = {"type": "function", "function": {"name": self.name, "arguments": dict(self.arguments)}}
        return call if self.id is None else {"id": self.id, **call}


@dataclass(frozen=True, kw_only=True)
class Message:
    """One turn of a conversation. A tool call is a message of the assistant; its result one of the role ``tool``."""

    role: str
    content: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    name: str | None = None
    tool_call_id: str | None = None

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise DataError(f"a message has role {self.role!r}; it must be one of {', '.join(ROLES)}")

    @classmethod
    def of(cls, message: "Message | Mapping[str, Any]") -> "Message":
        """A message from OpenAI's dictionary form; ``tool_calls[].function.arguments`` may be JSON text."""
        if isinstance(message, Message):
            return message
        known = {"role", "content", "tool_calls", "name", "tool_call_id"}
        if "role" not in message or not set(message) <= known:
            raise DataError(f"a message has keys {sorted(message)}; it needs role and content and may have {sorted(known)}")
        content = message.get("content")
        if content is not None and not isinstance(content, str):
            raise DataError(f"a message's content is {type(content).__name__}; it must be text")
        calls = _tool_calls(message.get("tool_calls"))
        return cls(
            role=message["role"],
            content=content or "",
            tool_calls=calls,
            name=message.get("name"),
            tool_call_id=message.get("tool_call_id"),
        )

    def as_dict(self) -> dict[str, Any]:
        """The message as chat templates and JSON files want it; absent parts are left out."""
        row: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            row["tool_calls"] = [call.as_dict() for call in self.tool_calls]
        if self.name is not None:
            row["name"] = self.name
        if self.tool_call_id is not None:
            row["tool_call_id"] = self.tool_call_id
        return row


def shown(message: Mapping[str, Any]) -> str:
    """What a message says, and what it calls, for people to read.

    >>> call = ToolCall(name="add", arguments={"a": 1}).as_dict()
    >>> shown({"role": "assistant", "content": "", "tool_calls": [call]})
    'add({"a": 1})'
    """
    called = [call["function"] for call in message.get("tool_calls") or ()]
    calls = [f"{call['name']}({json.dumps(call['arguments'], ensure_ascii=False)})" for call in called]
    return " ".join([message["content"]] * bool(message["content"]) + calls)


def _tool_calls(calls: Any) -> tuple[ToolCall, ...]:
    if calls is None:
        return ()
    if not isinstance(calls, list | tuple):
        raise DataError(f"a message's tool_calls are {_short(calls)}; they must be a list of calls")
    return tuple(call if isinstance(call, ToolCall) else _tool_call(call) for call in cast("Sequence[Any]", calls))


def _tool_call(call: Any) -> ToolCall:
    whole = _object(call)
    function = None if whole is None else _object(whole.get("function", whole))
    if whole is None or function is None:
        raise DataError(f"a tool call is {_short(call)}; it must be an object with a function, which has name and arguments")
    name, arguments = function.get("name"), function.get("arguments", {})
    if not isinstance(name, str):
        raise DataError(f"a tool call has keys {sorted(function)}; it needs name and arguments, the name being text")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError) as error:  # a number of 5000 digits is a ValueError, no JSONDecodeError
            raise DataError(f"the arguments of the tool call {name!r} are not JSON: {error}") from error
    values = _object(arguments)
    if values is None:
        raise DataError(f"the arguments of the tool call {name!r} are {_short(arguments)}; they must be an object")
    return ToolCall(name=name, arguments=values, id=whole.get("id"))


def _object(value: Any) -> Mapping[str, Any] | None:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else None


def _short(value: Any) -> str:
    """A value of the wrong kind, as JSON, cut."""
    return json.dumps(value, ensure_ascii=False, default=repr)[:60]


@runtime_checkable
class Chat(Protocol):
    """Anything that answers a conversation."""

    def chat(self, messages: Sequence[Message | Mapping[str, Any]], /, **settings: Any) -> str:
        """The assistant's reply."""
        ...

    def stream_chat(self, messages: Sequence[Message | Mapping[str, Any]], /, **settings: Any) -> Iterator[str]:
        """The reply in pieces of whole characters."""
        ...


@runtime_checkable
class Scorer(Protocol):
    """Anything that gives a text its log-probability, in nats."""

    def logp(self, text: str, /, *, prompt: str = "") -> float:
        """log p(text | prompt)."""
        ...


@runtime_checkable
class Embedder(Protocol):
    """Anything that turns texts into vectors of one length."""

    def embed(self, texts: Sequence[str], /) -> Sequence[Sequence[float]]:
        """One vector a text."""
        ...
