"""``chainrule fill MODEL TEXT``: what stood behind every [MASK] of a text, with probabilities."""

from argparse import ArgumentParser, Namespace

from chainrule.cli import options
from chainrule.core.errors import RequestError


def arguments(parser: ArgumentParser) -> None:
    """What the verb takes."""
    options.model(parser, known=options.ENCODERS)
    parser.add_argument("text", metavar="TEXT", help="a text with [MASK] in it; - reads standard input, @FILE a file")
    parser.add_argument("-k", type=int, default=5, help="how many candidates to show for each mask (5)")
    options.where(parser)
    options.as_json(parser)


def run(args: Namespace) -> None:
    """Ask and print."""
    from chainrule.hub.encoder import MaskedLM
    from chainrule.hub.load import load

    options.check_least(args, k=1)
    text = options.prompt(args.text)
    lm = load(args.model, **options.loading(args))
    if not isinstance(lm, MaskedLM):
        raise RequestError(
            f"{args.model} reads from left to right and cannot look behind a mask; give an encoder (a BERT, or a run of "
            "pretrain_bert_world), or ask for what comes next: chainrule next"
        )
    masks = lm.fill(text, args.k)
    if args.json:
        options.dump({"text": text, "masks": [[{"text": word, "probability": p} for word, p in mask] for mask in masks]})
        return
    for number, mask in enumerate(masks, 1):
        if len(masks) > 1:
            print(f"mask {number}")
        for word, p in mask:
            print(options.candidate(word, p))
