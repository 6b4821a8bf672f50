"""``chainrule chat MODEL``: a conversation in the terminal, streaming, with its history.

A reply that calls the calculator is answered by it, and the model goes on. With a question on the command line it answers and
leaves; lines from a pipe are taken one by one, as if they were typed (with --json all of it is one question). Where one of them
is refused, the others are answered still, and the exit code is 2.
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chainrule.cli import options
from chainrule.core.chat import shown
from chainrule.core.errors import ChainruleError, RequestError, closest, perhaps
from chainrule.core.files import unused, write_text

if TYPE_CHECKING:
    from chainrule.hub.lm import LM

HELP = """/help    this list
/new     forget the conversation
/history show it
/undo    take back the last question and its answer
/save FILE  write the conversation as a .jsonl row
/exit    leave (or Ctrl-D)"""
COMMANDS = tuple(line.split()[0] for line in HELP.splitlines())


def arguments(parser: ArgumentParser) -> None:
    """What the verb takes."""
    options.model(parser)
    parser.add_argument(
        "question", metavar="QUESTION", nargs="?", help="ask this and leave; - reads standard input, @FILE a file"
    )
    parser.add_argument("--system", help="a system message to begin with")
    options.sampling(parser, temperature=0.0, max_tokens=256)
    options.where(parser)
    options.as_json(parser)


def run(args: Namespace) -> int:
    """Answer one question, or hold a conversation; returns the exit code."""
    asked = _question(args)
    options.check_settings(args)
    lm = options.load(args)
    start = [{"role": "system", "content": args.system}] if args.system else []
    if asked is not None:
        messages = [*start, {"role": "user", "content": asked}]
        added = list(lm.converse(messages, echo=None if args.json else write, **options.settings(args)))
        if args.json:
            options.dump({"messages": [*messages, *added]})
        else:
            print()
        return 0
    lm.chat_ids([*start, {"role": "user", "content": "hi"}])  # a model that cannot chat says so now
    if sys.stdin.isatty():
        print(f"{lm.name}: type a message, or /help", file=sys.stderr)
    return talk(lm, start, args)


def _question(args: Namespace) -> str | None:
    """What is asked on the command line; None where questions are typed, or come from a pipe line by line.

    For JSON all that comes from a pipe is one question.
    """
    if args.question is None and not args.json:
        return None
    if args.question is None and sys.stdin.isatty():
        raise RequestError('--json prints the answer to one question; give it, as in: chainrule chat MODEL "hello" --json')
    asked = options.prompt("-" if args.question is None else args.question).strip()
    if not asked:
        where = "standard input" if args.question in (None, "-") else "QUESTION"
        raise RequestError(f"there is nothing to answer: {where} is empty; give a question, or leave it out to type some")
    return asked


def write(piece: str) -> None:
    """Show a piece at once."""
    sys.stdout.write(piece)
    sys.stdout.flush()


def talk(lm: "LM", start: list[dict[str, Any]], args: Namespace) -> int:
    """Questions and answers until the end of input; the exit code is 2 where a line of a pipe was refused.

    A question that cannot be answered is taken back.
    """
    history, sign, heard, refused = list(start), "> " if sys.stdin.isatty() else "", False, False
    while True:
        try:
            line = input(sign).strip()
        except EOFError:
            if sign:
                print()
            elif not heard:
                raise RequestError("there is nothing to answer: standard input is empty; give a question") from None
            break
        heard = True
        if line in ("/exit", "/quit"):
            break
        try:
            if line.startswith("/"):
                history = command(line, history, start)
            elif line:
                history = reply(lm, [*history, {"role": "user", "content": line}], args)
        except ChainruleError as error:
            print(f"chainrule: {error}", file=sys.stderr)
            refused = True
    return 2 if refused and not sign else 0


def reply(lm: "LM", messages: list[dict[str, Any]], args: Namespace) -> list[dict[str, Any]]:
    """The conversation with its answer; one that is interrupted is taken back with its question."""
    check_room(lm, messages)
    try:
        added = list(lm.converse(messages, echo=write, **options.settings(args)))
    except KeyboardInterrupt:
        print("\n(interrupted)", file=sys.stderr)
        return messages[:-1]
    print()
    return [*messages, *added]


def check_room(lm: "LM", messages: list[dict[str, Any]]) -> None:
    """Raises ``RequestError`` where the model reads less than the conversation, though it would read its last question."""
    limit, length = lm.model.context, len(lm.chat_ids(messages))
    if limit is None or length < limit:
        return
    system = [message for message in messages[:1] if message["role"] == "system"]
    if len(lm.chat_ids([*system, messages[-1]])) < limit:
        raise RequestError(
            f"the conversation is {length} tokens long, but the model reads {limit} with its answer; "
            "/undo takes back the last question and its answer, /new forgets them all"
        )


def command(line: str, history: list[dict[str, Any]], start: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a line that begins with a slash does to the history."""
    name, _, rest = line.partition(" ")
    if name == "/help":
        print(HELP)
        return history
    if name == "/new":
        return list(start)
    if name == "/undo":
        asked = [i for i, message in enumerate(history) if message["role"] == "user"]
        return history[: asked[-1]] if asked else history
    if name == "/history":
        for message in history:
            print(f"{message['role']}: {shown(message)}")
    elif name != "/save":
        raise RequestError(f"there is no command {name}{perhaps(closest(name, COMMANDS))}; /help lists them")
    elif not rest:
        raise RequestError("/save needs the name of a file; type for example: /save chat.jsonl")
    else:
        save(rest, history)
    return history


def save(path: str, history: list[dict[str, Any]]) -> None:
    """Write the conversation as one row of chat data."""
    write_text(unused(Path(path), mend="give another name"), json.dumps({"messages": history}, ensure_ascii=False) + "\n")
    print(f"saved {path}", file=sys.stderr)
