"""``chainrule score MODEL TEXT``: log p of a text, token by token, and bits per byte."""

import math
from argparse import ArgumentParser, Namespace

from chainrule.cli import options


def arguments(parser: ArgumentParser) -> None:
    """What the verb takes."""
    options.model(parser)
    parser.add_argument("text", metavar="TEXT", help="the text; - reads standard input, @FILE a file")
    parser.add_argument("--given", metavar="SOURCE", help="the source that an encoder–decoder translates; - and @FILE too")
    parser.add_argument("--end", action="store_true", help="also judge that the text ends there")
    parser.add_argument("--force", action="store_true", help="judge even with a tokenizer that loses part of the text")
    options.where(parser)
    options.as_json(parser)


def run(args: Namespace) -> None:
    """Score and print."""
    lm = options.load(args)
    given = None if args.given is None else options.prompt(args.given)
    score = lm.score(options.prompt(args.text), given=given, end=args.end, force=args.force)
    if not args.json:
        print(score)
        return
    finite = [logp if math.isfinite(logp) else None for logp in score.logp]
    total, bits = (value if math.isfinite(value) else None for value in (score.total, score.bits_per_byte))
    options.dump({"ids": score.tokens, "pieces": score.pieces, "logp": finite, "total": total, "bits_per_byte": bits,
                  "unjudged_bytes": score.unjudged_bytes})  # fmt: skip
