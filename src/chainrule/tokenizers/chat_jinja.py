"""The Jinja that chat templates are written in: sandboxed, blocks trimmed, with the tags and functions of transformers.

``{% generation %} … {% endgeneration %}`` leaves two characters of private use around what the assistant wrote; ``untag``
takes them out again and says where they stood.
"""

import json
import re
from functools import lru_cache
from typing import Any, ClassVar

from chainrule.core.errors import TokenizerError

TAG_ON, TAG_OFF = "\ue002", "\ue003"
"""What ``{% generation %}`` and ``{% endgeneration %}`` leave in the rendered text."""

Span = tuple[int, int]
"""Where a part of a text begins and ends."""


def run_template(source: str, **variables: Any) -> str:
    """What a template writes; raises ``TokenizerError`` where it is broken, or refuses or fails on what it is given."""
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
def has_generation_tags(source: str) -> bool:
    """Whether the template holds a ``{% generation %}``, in whatever form; no other extension here makes a block."""
    from jinja2 import nodes

    blocks = _environment().parse(source).find_all(nodes.CallBlock)
    return any(isinstance(block.call.node, nodes.ExtensionAttribute) for block in blocks)


def untag(text: str) -> tuple[str, list[Span]]:
    """A rendered text without what the tags left in it, and the spans between them."""
    spans: list[Span] = []
    plain = ""
    for i, part in enumerate(re.split(f"[{TAG_ON}{TAG_OFF}]", text)):
        if i % 2:
            spans.append((len(plain), len(plain) + len(part)))
        plain += part
    return plain, spans


@lru_cache(maxsize=16)
def _compiled(source: str) -> Any:
    return _environment().from_string(source)


def _environment() -> Any:
    """Jinja as chat templates expect it, with ``raise_exception`` and plain JSON."""
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """``{% generation %} … {% endgeneration %}`` stands around what the assistant wrote."""

        tags: ClassVar[set[str]] = {"generation"}

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return nodes.CallBlock(self.call_method("_tagged"), [], [], body).set_lineno(line)

        def _tagged(self, caller: Any) -> str:
            return f"{TAG_ON}{caller()}{TAG_OFF}"

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
        "the chat template asks for the date, and a run does not depend on the clock; say which day to tell it: "
        "data.day=2024-07-26 (in Python: template.dated(date(2024, 7, 26)))"
    )
