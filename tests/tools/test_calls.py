"""Whatever a model asks of a tool, what comes of it is an answer that the model can read."""

import json

import pytest

from chainrule.core.chat import ToolCall
from chainrule.tools import TOOLS
from chainrule.tools.calculator import calculator
from chainrule.tools.calls import read_calls, run_call

EXPRESSIONS = (
    [],
    {},
    None,
    3,
    True,
    float("nan"),
    [[1]],
    "",
    " ",
    "1/0",
    "a\x00b",
    "9" * 201,
    "(" * 150,
    "'\\ud800'",
    "\ud800",
)


def answered(arguments, name="calculator"):
    answer = run_call(ToolCall(name=name, arguments=arguments), TOOLS)
    answer.encode()  # half a surrogate pair would be refused here, as by a tokenizer
    return answer


@pytest.mark.parametrize("expression", EXPRESSIONS, ids=ascii)
def test_an_expression_of_any_kind_is_answered_with_an_error(expression):
    assert answered({"expression": expression}).startswith("error: ")


def test_an_error_says_what_would_be_right():
    assert answered({"expression": []}) == "error: the expression is [], not text; write it as text, such as '37 * 48'"
    assert "no tool 'calc'; known are calculator" in answered({}, "calc")
    assert "missing 1 required positional argument: 'expression'" in answered({})
    assert "unexpected keyword argument '\\ud800'" in answered({"expression": "1", "\ud800": 1})
    assert answered({"expression": "37 * 48"}) == "1776"
    assert answered({"expression": "(-8) ** 0.5"}) == "error: '(-8) ** 0.5' cannot be worked out: the result is no real number"
    assert answered({"expression": "3 +"}) == "error: '3 +' cannot be worked out: invalid syntax"


def test_a_tool_that_fails_in_its_own_way_answers_with_that():
    def broken(**arguments):
        raise LookupError("no such town")

    assert run_call(ToolCall(name="weather", arguments={}), {"weather": broken}) == "error: LookupError: no such town"


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 100_000, "{"])
def test_a_call_that_is_no_json_stays_text(value):
    reply = f'<tool_call>{{"name": "calculator", "arguments": {{"expression": {value}}}}}</tool_call>'
    assert read_calls(reply) == (reply, ())


def test_half_a_surrogate_pair_in_a_call_becomes_text():
    reply = '<tool_call>{"name": "calculator", "arguments": {"expression": "\\ud800 \\ud83d\\ude00"}}</tool_call>'
    _, (call,) = read_calls(reply)
    assert call.arguments == {"expression": "? 😀"}
    json.dumps(call.as_dict(), ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12345678901 / 2", "6172839450.5"),
        ("10000000000 + 0.5", "10000000000.5"),
        ("999999999999999999 / 9", "111111111111111111"),
        ("0.1 + 0.2", "0.3"),
        ("1 / 3", "0.333333333333333"),
        ("-7 / 2", "-3.5"),
        ("6 / 3", "2"),
    ],
)
def test_the_calculator_says_every_digit_that_it_knows(expression, value):
    assert calculator(expression) == value
