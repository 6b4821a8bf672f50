"""``chainrule train RECIPE [key=value ...]``: pretrain or fine-tune; what was interrupted goes on with --resume."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from chainrule.cli import options


def arguments(parser: ArgumentParser) -> None:
    """What the verb takes."""
    from chainrule.train.recipe import SHIPPED

    shipped = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.yaml")))
    parser.add_argument("recipe", metavar="RECIPE", help=f"a YAML file, or one that ships: {shipped}")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="change the recipe, e.g. steps=500 data.path=my.txt")
    options.run_folder(
        parser,
        "the recipe's name",
        resume="go on from the newest checkpoint",
        force="replace an existing run, or resume in changed circumstances",
    )
    parser.add_argument("--show", action="store_true", help="print the resolved recipe and leave")


def run(args: Namespace) -> None:
    """Read the recipe, train, say where the model is."""
    from chainrule.train.recipe import read_recipe, write_recipe

    recipe = read_recipe(args.recipe, args.overrides)
    if args.show:
        print(write_recipe(recipe), end="")
        return
    name = options.run_name(args.name or Path(args.recipe).stem, args.runs)
    from chainrule.train.run import run_recipe

    done = run_recipe(recipe, name, resume=args.resume, force=args.force, runs=Path(args.runs))
    from chainrule.core.masked import MaskedModel

    ask = "fill {} '... [MASK] ...'" if isinstance(done.model, MaskedModel) else "generate {}"
    print(f"{done.folder / 'model'} is ready; try: chainrule {ask.format(done.folder)}", file=sys.stderr)
