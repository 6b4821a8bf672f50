"""``chainrule explain --dtype bf16``: what a number format can and cannot represent."""

from argparse import ArgumentParser, Namespace

from chainrule.cli import options
from chainrule.core.errors import ConfigError


def arguments(parser: ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument("--dtype", help="a number format: fp32, fp16, bf16, fp8-e4m3, fp8-e5m2, int8 or int4")
    parser.add_argument("--value", type=float, default=0.1, metavar="X", help="a number to store in it (0.1)")
    options.as_json(parser)


def run(args: Namespace) -> None:
    """Describe and print."""
    from chainrule.eval.formats import sheet, sheet_text

    if args.dtype is None:
        raise ConfigError("there is nothing to explain; name a number format, for example: chainrule explain --dtype bf16")
    if args.json:
        options.dump(sheet(args.dtype, args.value))
    else:
        print(sheet_text(args.dtype, args.value))
