"""``chainrule explain MODEL``: how a name becomes a model that answers; ``--dtype bf16`` alone: what a number format is."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from chainrule.cli import options
from chainrule.core.errors import ConfigError
from chainrule.core.files import unused

if TYPE_CHECKING:
    from chainrule.eval.explain.facts import Explanation

OF_MODELS = {
    **dict.fromkeys(("prompt", "length", "html")), "engine": "chainrule", "download": False, "force": False, "device": "auto",
    "pickle": False,
}  # fmt: skip
"""The options that speak of a model alone, and what they are where they were not given."""


def arguments(parser: ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument(
        "model", metavar="MODEL", nargs="?",
        help=f"{options.MODELS};\n"
        "looked for here, then in the cache, then among the configs that ship",
    )  # fmt: skip
    parser.add_argument("--prompt", metavar="TEXT", help="what the forward pass reads; - reads standard input, @FILE a file")
    parser.add_argument("--length", type=int, metavar="N", help="pass over N made-up ids instead of a prompt")
    parser.add_argument("--html", metavar="FILE", help="also write a page with figures")
    parser.add_argument("--force", action="store_true", help="replace what is at --html's FILE")
    parser.add_argument("--download", action="store_true", help="fetch what is not here; without it the network is not asked")
    parser.add_argument(
        "--engine", choices=("chainrule", "transformers"), default="chainrule",
        help="transformers: also watch that library load the same folder, its stages beside ours",
    )  # fmt: skip
    parser.add_argument("--value", type=float, metavar="X", help="without MODEL: a number to store in --dtype (0.1)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument(
        "--dtype",
        help="with MODEL: the format to load in: auto (as stored), fp32, bf16, fp16 or int4;\n"
        "without: the format to explain: fp32, fp16, bf16, fp8-e4m3, fp8-e5m2, int8 or int4",
    )
    parser.add_argument("--pickle", action="store_true", help="allow weights that are pickles, which may run code")
    options.as_json(parser)


def run(args: Namespace) -> None:
    """Describe and print."""
    if args.model is None:
        return _number_format(args)
    options.refuse(args, {"value": None}, "goes with --dtype and no MODEL; leave one of them out")
    if args.html is not None:
        unused(Path(args.html), force=args.force)  # known to fail before anything is loaded
    from chainrule.eval.explain.model import explain

    explanation = explain(
        args.model,
        prompt=None if args.prompt is None else options.prompt(args.prompt),
        length=args.length,
        device=args.device,
        dtype=args.dtype or "auto",
        pickle=args.pickle,
        download=args.download,
        engine=args.engine,
    )
    _print(args, explanation)


def _print(args: Namespace, explanation: "Explanation") -> None:
    from chainrule.core.schema import dump
    from chainrule.eval.explain.text import explanation_text

    if args.html:
        from chainrule.core.files import write_text
        from chainrule.core.version import __version__
        from chainrule.eval.explain.page import explanation_page

        write_text(Path(args.html), explanation_page(explanation, __version__).html())
        print(f"{args.html} is written", file=sys.stderr)

    if args.json:
        options.dump(dump(explanation))
    else:
        print(explanation_text(explanation))


def _number_format(args: Namespace) -> None:
    from chainrule.eval.formats import sheet, sheet_text

    options.refuse(args, OF_MODELS, "goes with a MODEL, as in: chainrule explain runs/quickstart; name one, or leave it out")
    if args.dtype is None:
        raise ConfigError(
            "there is nothing to explain; name a model, for example: chainrule explain runs/quickstart, "
            "or a number format: chainrule explain --dtype bf16"
        )
    value = 0.1 if args.value is None else args.value
    if args.json:
        options.dump(sheet(args.dtype, value))
    else:
        print(sheet_text(args.dtype, value))
