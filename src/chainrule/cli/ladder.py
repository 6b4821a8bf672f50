"""``chainrule ladder [MODEL]``: every way to predict a text on one scale, up to the truth where it is known.

Without MODEL the ladder of history is trained and climbed; with one, or with ``--orders``, n-grams are counted beside it.
``--ablate`` trains a deep decoder with and without its parts instead.
"""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chainrule.cli import options
from chainrule.core.errors import ConfigError, DataError
from chainrule.data.documents import PLAIN, ROWS

if TYPE_CHECKING:
    from chainrule.eval.ablation import Ablation
    from chainrule.eval.history import History

TEXTS = PLAIN | ROWS
"""What the names of texts end in, which are no models."""
TRAINS = {
    **dict.fromkeys(("ablate", "layers", "rungs", "minutes", "steps", "name")),
    **dict.fromkeys(("branches", "resume"), False),
    "runs": "runs",
}
"""The options that speak of training and its runs alone, and what they are where they were not given."""


def arguments(parser: ArgumentParser) -> None:
    """What the verb takes."""
    from chainrule.eval.history import ERAS

    parser.add_argument(
        "model", metavar="MODEL", nargs="?",
        help="count n-grams on bytes and on this model's tokens, and climb with it;\n"
        "without MODEL: the history, every kind of model trained on one text (runs/ladder)",
    )  # fmt: skip
    options.documents(
        parser,
        text="a text file, folder, .jsonl or .parquet to learn from; its last part is held out\n"
        "and measured on; without it: the world",
        seed="seed of the world's documents, and of the weights where models are trained (0)",
        drawn="how many documents of the world, or pieces of a text\nthat models are trained on, to measure on (200)",
    )
    parser.add_argument("--rungs", metavar="NAMES", help=f"history: only these, of {', '.join(ERAS)}")
    parser.add_argument(
        "--branches", action="store_true",
        help="history: also the branches beside the line (gru, encoder-decoder, bert, t5)",
    )  # fmt: skip
    parser.add_argument("--ablate", metavar="PARTS", help="a deep decoder with and without each of: residual,norm,position")
    parser.add_argument("--layers", type=int, help="ablate: how many layers (24)")
    parser.add_argument("--minutes", type=float, help="how long everything may take (history 10, ablate 5)")
    parser.add_argument("--steps", type=int, help="training steps of each neural model, instead of what fits the time")
    parser.add_argument(
        "--orders", type=int, metavar="N",
        help="n-grams up to this order (6 with MODEL); without MODEL: n-grams of bytes alone, nothing is trained",
    )  # fmt: skip
    parser.add_argument(
        "--train-documents", type=int,
        help="how many documents of the world to learn from\n(4000; for the history: as many as the training reads once)",
    )  # fmt: skip
    options.run_folder(
        parser,
        "history: ladder, ablate: ablation",
        force="replace an existing run; with MODEL: measure even with a tokenizer that loses part of the text",
    )
    options.where(parser, dtype="with MODEL, the format to load in; when training: auto, fp32, bf16, fp16 or pure_bf16")
    options.as_json(parser)


def run(args: Namespace) -> None:
    """Train or count, measure, print."""
    options.check_least(args, train_documents=1, documents=1, steps=1, minutes=0.5, layers=2)
    if args.model is None:
        loads = {"adapter": None, "pickle": False} | ({} if args.orders is None else {"device": "auto", "dtype": "auto"})
        options.refuse(args, loads, "goes with a MODEL, and none is named; leave it out")
    if args.text is not None:
        why = f"is about documents of the world, but --text {args.text} is read, all of it but its last part to learn from"
        options.refuse(args, {"train_documents": None}, f"{why}; leave one of them out")
    if args.model is not None or args.orders is not None:
        options.check_drawn(args, "documents")
        other = f"MODEL ({args.model})" if args.model else "--orders"
        options.refuse(args, TRAINS, f"is about training models, but {other} asks for n-grams; leave one of them out")
        _ngrams(args)
    elif args.ablate is None:
        _history(args)
    else:
        _ablation(args)


def _history(args: Namespace) -> None:
    """The ladder of history, in a run's folder."""
    from chainrule.eval.history import chosen

    options.refuse(args, {"layers": None}, "goes with --ablate; leave it out")
    rungs = chosen(args.rungs, branches=args.branches, known=args.text is None)
    asked = _asked(args, "ladder")
    from chainrule.recipes.history import Plan, history

    plan = Plan(**asked, rungs=rungs, minutes=args.minutes or 10.0)
    _show(args, history(plan, resume=args.resume, force=args.force), plan.folder)


def _ablation(args: Namespace) -> None:
    """A deep decoder with and without its parts, in a run's folder."""
    from chainrule.eval.ablation import chosen

    why = "chooses of the history, --ablate trains something else; leave one of them out"
    options.refuse(args, {"rungs": None, "branches": False}, why)
    parts = chosen(args.ablate)
    asked = _asked(args, "ablation")
    from chainrule.recipes.ablation import Plan, ablation

    plan = Plan(**asked, parts=parts, minutes=args.minutes or 5.0, layers=args.layers or 24)
    _show(args, ablation(plan, resume=args.resume, force=args.force), plan.folder)


def _asked(args: Namespace, usual: str) -> dict[str, Any]:
    """The settings that both kinds of run take; what cannot be is refused before torch is even imported."""
    name = options.run_name(usual if args.name is None else args.name, args.runs)
    if args.text is not None:
        from chainrule.data.documents import read_documents

        read_documents(args.text)
    return {
        "name": name,
        "runs": Path(args.runs),
        "text": None if args.text is None else Path(args.text),
        "seed": args.seed,
        "steps": args.steps,
        "held_out": args.documents,
        "documents": args.train_documents,
        "device": args.device,
        "precision": args.dtype,
    }


def _show(args: Namespace, found: "History | Ablation", folder: Path) -> None:
    if args.json:
        from chainrule.core.schema import dump

        options.dump(dump(found))
        return
    print(found.text())
    print(f"\nthe page: {folder / 'report.html'}", file=sys.stderr)


def _ngrams(args: Namespace) -> None:
    """N-grams, the model, the truth."""
    orders = 6 if args.orders is None else args.orders
    if not 1 <= orders <= 8:
        raise DataError(f"--orders is {orders}; n-grams here have orders 1 to 8")
    from chainrule.eval.ladder import climb
    from chainrule.recipes.ladder import foot, head

    if args.model and ":" not in args.model and Path(args.model).suffix in TEXTS:
        raise ConfigError(
            f"{args.model} is a text, not a model; to climb the ladder on it: chainrule ladder --text {args.model}"
        )
    train, texts, languages = _texts(args)
    lm = options.load(args) if args.model else None
    rungs = foot(train, lm.need_tokenizer() if lm else None, orders=range(1, orders + 1))
    rungs += head(lm, name=lm.name if lm else "", world=args.text is None, force=args.force)
    found = climb(rungs, texts, languages, progress=lambda rung: print(f"measured {rung.name}", file=sys.stderr))
    options.say(found.notes)
    print(found.json() if args.json else found.text())


def _texts(args: Namespace) -> tuple[list[str], list[str], list[str]]:
    """(texts to count, texts to measure, their languages)."""
    texts, languages = options.read(args)
    if args.text is not None:
        from chainrule.data.documents import hold_out

        train, held = hold_out(texts)  # the share that a run holds out: what a model was trained on is not measured
        return train, held, ["text"] * len(held)
    from itertools import islice

    from chainrule.world import documents

    return [one.text for one in islice(documents(args.seed), args.train_documents or 4000)], texts, languages
