"""A reply to the tool calls in it, in the form of Qwen and Hermes.

<tool_call>{"name": ..., "arguments": {...}}</tool_call>
"""

import json
import re
from collections.abc import Callable, Mapping

from chainrule.core.chat import ToolCall
from chainrule.core.errors import ChainruleError

_CALL = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)


def read_calls(reply: str) -> tuple[str, tuple[ToolCall, ...]]:
    """What a reply says beside its calls, and the calls; what only looks like a call stays text.

    >>> read_calls('<tool_call>{"name": "calculator", "arguments": {"expression": "2 * 3"}}</tool_call>')[1][0].name
    'calculator'
    """
    calls: list[ToolCall] = []
    rest = reply
    for match in _CALL.finditer(reply):
        call = _call(match[1])
        if call is not None:
            calls.append(call)
            rest = rest.replace(match[0], "")
    return rest.strip() if calls else reply, tuple(calls)


def _call(text: str) -> ToolCall | None:
    """The call that a text is, or None; half a surrogate pair in it, which no tokenizer reads, becomes a question mark."""
    try:
        data = json.loads(json.dumps(json.loads(text), ensure_ascii=False).encode(errors="replace"))
    except (ValueError, RecursionError):  # a number of 5000 digits is a ValueError, no JSONDecodeError
        return None
    if not isinstance(data, dict) or not isinstance(data.get("name"), str) or not isinstance(data.get("arguments"), dict):
        return None
    return ToolCall(name=data["name"], arguments=data["arguments"])


def run_call(call: ToolCall, tools: Mapping[str, Callable[..., str]]) -> str:
    """What the tool answers; a mistake in the call is an answer too, so that the model can mend it: none is raised."""
    if call.name not in tools:
        return f"error: there is no tool {call.name!r}; known are {', '.join(sorted(tools))}"
    try:
        return tools[call.name](**call.arguments)
    except (ChainruleError, TypeError) as error:
        return _text(f"error: {error}")
    except Exception as error:  # what a model may put into the arguments has no end, nor what a tool may do about it
        return _text(f"error: {type(error).__name__}: {error}")


def _text(words: str) -> str:
    """Words that quote a model, with half a surrogate pair, which is no text, written as its escape."""
    return words.encode(errors="backslashreplace").decode()
