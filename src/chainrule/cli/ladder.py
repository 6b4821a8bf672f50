"""``chainrule ladder [MODEL]``: every way to predict a text on one scale, up to the truth where it is known."""

import sys
from argparse import ArgumentParser, Namespace

from chainrule.cli import options
from chainrule.core.errors import DataError


def arguments(parser: ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("model", metavar="MODEL", nargs="?", help="also climb with this model and count its tokens")
    options.documents(parser)
    parser.add_argument("--train-documents", type=int, default=4000, help="n-grams of the world count so many documents (4000)")
    parser.add_argument("--orders", type=int, default=6, metavar="N", help="n-grams up to this order (6)")
    parser.add_argument("--force", action="store_true", help="measure even with a tokenizer that loses part of the text")
    options.where(parser)
    options.as_json(parser)


def run(args: Namespace) -> None:
    """Count, measure, print."""
    if not 1 <= args.orders <= 8:
        raise DataError(f"--orders is {args.orders}; n-grams here have orders 1 to 8")
    from chainrule.eval.ladder import climb
    from chainrule.recipes.ladder import foot, head

    train, texts, languages = _texts(args)
    lm = options.load(args) if args.model else None
    rungs = foot(train, lm.tokenizer if lm else None, orders=range(1, args.orders + 1))
    rungs += head(lm, name=lm.name if lm else "", world=args.text is None, force=args.force)
    found = climb(rungs, texts, languages, progress=lambda rung: print(f"measured {rung.name}", file=sys.stderr))
    print(found.json() if args.json else found.text())


def _texts(args: Namespace) -> tuple[list[str], list[str], list[str]]:
    """(texts to count, texts to measure, their languages)."""
    texts, languages = options.read(args)
    if args.text is not None:
        from chainrule.data.documents import hold_out

        train, held = hold_out(texts, share=0.1)
        return train, held, ["text"] * len(held)
    from itertools import islice

    from chainrule.world import documents

    if args.train_documents < 1:
        raise DataError(f"--train-documents is {args.train_documents}; it must be 1 or more")
    return [one.text for one in islice(documents(args.seed), args.train_documents)], texts, languages
