"""Messages in OpenAI's form, checked when they are made."""

import pytest

from chainrule.core.chat import Message, ToolCall
from chainrule.core.errors import DataError


def test_arguments_may_be_json_text_or_an_object() -> None:
    for arguments in ('{"expression": "37 * 48"}', {"expression": "37 * 48"}):
        row = {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"function": {"name": "calculator", "arguments": arguments}}],
        }
        assert Message.of(row).tool_calls == (ToolCall(name="calculator", arguments={"expression": "37 * 48"}),)


def test_a_message_and_its_dictionary_are_the_same() -> None:
    message = Message(role="assistant", tool_calls=(ToolCall(name="f", arguments={}, id="1"),))
    assert Message.of(message.as_dict()) == message


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"role": "robot", "content": "hi"}, "role 'robot'"),
        ({"from": "human", "value": "hi"}, "it needs role and content"),
        ({"role": "user", "content": 3}, "content is int"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}, "are not JSON"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "9" * 5000}}]}, "are not JSON"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[" * 100_000}}]}, "are not JSON"),
        ({"role": "assistant", "tool_calls": [{"function": {}}]}, "it needs name and arguments"),
    ],
)
def test_a_malformed_message_says_what_is_wrong(row: dict[str, object], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        Message.of(row)


@pytest.mark.parametrize(
    ("calls", "complaint"),
    [
        ("x", 'tool_calls are "x"; they must be a list'),
        ([1], "a tool call is 1; it must be an object"),
        ([{"function": None}], 'a tool call is {"function": null}; it must be an object'),
        ([{"function": {"name": 3, "arguments": {}}}], "the name being text"),
        ([{"function": {"name": "f", "arguments": "null"}}], "arguments of the tool call 'f' are null; they must be an object"),
        ([{"function": {"name": "f", "arguments": [1]}}], r"are \[1\]; they must be an object"),
        ([{"function": {"name": "f", "arguments": None}}], "are null"),
    ],
)
def test_a_malformed_call_of_a_tool_says_what_is_wrong(calls: object, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        Message.of({"role": "assistant", "tool_calls": calls})
