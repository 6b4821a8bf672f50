"""``chainrule next MODEL PROMPT``: the likeliest continuations, up to the next word boundary, with probabilities."""

from argparse import ArgumentParser, Namespace

from chainrule.cli import options


def arguments(parser: ArgumentParser) -> None:
    """What the verb takes."""
    options.model(parser)
    parser.add_argument("prompt", metavar="PROMPT", help="the text so far; - reads standard input, @FILE a file")
    parser.add_argument("--given", metavar="SOURCE", help="the source that an encoder–decoder translates; - and @FILE too")
    parser.add_argument("-k", type=int, default=5, help="how many continuations to show (5)")
    options.where(parser)
    options.as_json(parser)


def run(args: Namespace) -> None:
    """Ask and print."""
    options.check_least(args, k=1)
    prompt, given = options.prompt(args.prompt), None if args.given is None else options.prompt(args.given)
    found = options.load(args).next(prompt, args.k, given=given)
    if args.json:
        options.dump([{"text": text, "probability": p} for text, p in found])
        return
    for text, p in found:
        print(options.candidate(text, p))
