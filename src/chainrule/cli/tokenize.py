"""``chainrule tokenize TOKENIZER TEXT``: the pieces of a text, coloured, with their ids."""

import sys
from argparse import ArgumentParser, Namespace

from chainrule.cli import options

COLOURS = (44, 42, 45, 46, 43)


def arguments(parser: ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument(
        "tokenizer",
        metavar="TOKENIZER",
        help="runs/NAME, a folder, a tokenizer file, a .gguf, org/name, modelscope:org/name or bytes",
    )
    parser.add_argument("text", metavar="TEXT", help="the text; - reads standard input, @FILE a file")
    parser.add_argument("--pattern", metavar="NAME", help="how a .tiktoken file cuts texts (cl100k, o200k, ...)")
    parser.add_argument("--color", choices=("auto", "always", "never"), default="auto")
    options.as_json(parser)


def run(args: Namespace) -> None:
    """Encode and show."""
    from chainrule.hub.tokenizer import find_tokenizer

    tokenizer = find_tokenizer(args.tokenizer, pattern=args.pattern)
    text = options.prompt(args.text)
    ids = tokenizer.encode(text)
    pieces = [tokenizer.piece(id) for id in ids]
    if args.json:
        options.dump({"ids": ids, "pieces": pieces, "bytes": len(text.encode())})
        return
    coloured = args.color == "always" or (args.color == "auto" and sys.stdout.isatty())
    print("".join(f"\x1b[30;{COLOURS[i % 5]}m{p}\x1b[0m" for i, p in enumerate(pieces)) if coloured else "|".join(pieces))
    print(" ".join(map(str, ids)))
    size = len(text.encode())
    print(f"{len(ids)} tokens, {len(text)} characters, {size} bytes, {size / max(1, len(ids)):.2f} bytes per token")
