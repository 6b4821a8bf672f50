"""``chainrule score MODEL TEXT``: log p of a text, token by token, and bits per byte."""

import math
from argparse import ArgumentParser, Namespace

from chainrule.cli import options
from chainrule.core.errors import RequestError


def arguments(parser: ArgumentParser) -> None:
    """What the verb takes."""
    options.model(parser)
    parser.add_argument("text", metavar="TEXT", help="the text; - reads standard input, @FILE a file")
    parser.add_argument("--given", metavar="SOURCE", help="the source that an encoder–decoder translates; - and @FILE too")
    parser.add_argument(
        "--begins", action="store_true", help="judge it also as the beginning of a longer text, whatever its last token is"
    )
    parser.add_argument("--end", action="store_true", help="also judge that the text ends there")
    parser.add_argument("--force", action="store_true", help="judge even with a tokenizer that loses part of the text")
    options.where(parser)
    options.as_json(parser)


def run(args: Namespace) -> None:
    """Score and print."""
    if args.begins and (args.end or args.given is not None):
        other = "--end one that stops" if args.end else "--given one that translates"
        raise RequestError(f"--begins judges a text that goes on, {other}; leave one of them out")
    text, given = options.prompt(args.text), None if args.given is None else options.prompt(args.given)
    lm = options.load(args)
    score = lm.score(text, given=given, end=args.end, force=args.force)
    begins = lm.logp_begins(text) if args.begins else None
    if not args.json:
        print(score)
        if begins is not None:
            print(f"{'it begins so':>16} {begins:9.4f} nats, whatever follows")
        return
    finite = [logp if math.isfinite(logp) else None for logp in score.logp]
    total, bits = (value if math.isfinite(value) else None for value in (score.total, score.bits_per_byte))
    options.dump({"ids": score.tokens, "pieces": score.pieces, "logp": finite, "total": total, "bits_per_byte": bits,
                  "unjudged_bytes": score.unjudged_bytes,
                  **({} if begins is None else {"begins": begins if math.isfinite(begins) else None})})  # fmt: skip
