"""``chainrule generate MODEL [PROMPT]``: continue a prompt, streaming; an encoder–decoder says the target of a source."""

import sys
from argparse import ArgumentParser, Namespace

from chainrule.cli import options


def arguments(parser: ArgumentParser) -> None:
    """What the verb takes."""
    options.model(parser)
    parser.add_argument(
        "prompt",
        metavar="PROMPT",
        nargs="?",
        default="",
        help="the text so far, or the source; - reads standard input, @FILE a file",
    )
    options.sampling(parser, temperature=1.0, max_tokens=128)
    options.where(parser)
    options.as_json(parser)


def run(args: Namespace) -> None:
    """Stream the continuation, or print it whole as JSON."""
    prompt = options.prompt(args.prompt)
    options.check_settings(args)
    lm = options.load(args)
    if args.json:
        options.dump({"prompt": prompt, "text": lm.generate(prompt, **options.settings(args))})
        return
    stream = lm.stream(prompt, **options.settings(args))  # refused requests fail before anything is printed
    sys.stdout.write("" if lm.model.needs else prompt)
    for piece in stream:
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")
