"""``chainrule quickstart``: a language model from nothing, taught to chat, measured against the truth, with a report."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from chainrule.cli import options
from chainrule.core.errors import ConfigError

FEWEST_MINUTES = 4.0
"""With fewer, n-grams, questions and the report would leave next to nothing of them to the training."""
WORLD = {"questions": 400, "counted": 40_000, "sft_steps": None}
"""The options that speak of the world and its chats alone, and what they are where they were not given."""


def arguments(parser: ArgumentParser) -> None:
    """What the verb takes."""
    parser.add_argument(
        "--text", metavar="FILE", help="your own text, a file or folder, instead of the world;\nno chats are learned then"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long it may take, 4 or more (10)")
    parser.add_argument("--steps", type=int, help="pretraining steps, instead of what fits the time")
    parser.add_argument("--sft-steps", type=int, help="fine-tuning steps, instead of what fits the time")
    parser.add_argument("--seed", type=int, default=0, help="random seed (0)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="run N seeds and report mean and spread")
    parser.add_argument(
        "--documents", type=int, default=400, help="held-out documents, or pieces of your own text, to measure on (400)"
    )
    parser.add_argument("--questions", type=int, default=WORLD["questions"], help="held-out chat questions per language (400)")
    parser.add_argument(
        "--counted", type=int, default=WORLD["counted"], help="documents of the world that the n-grams read (40000)"
    )
    options.run_folder(parser, "quickstart", default="quickstart")
    options.as_json(parser)


def run(args: Namespace) -> None:
    """Plan, run, print the report in short."""
    if args.steps is None and args.minutes < FEWEST_MINUTES:
        raise ConfigError(
            f"--minutes is {args.minutes:g}; n-grams, questions and the report take more than two of them, whatever is "
            f"learned: give {FEWEST_MINUTES:g} or more, or say how much to train, for example --steps 50"
        )
    options.check_least(args, minutes=0.5, documents=4, questions=4, counted=10, seeds=1, steps=1, sft_steps=1)
    name = options.run_name(args.name, args.runs)
    if args.text is not None:
        why = f"is about the world and its chats, but --text {args.text} is learned from; leave one of them out"
        options.refuse(args, WORLD, why)
        from chainrule.data.documents import read_documents

        read_documents(args.text)  # a text that cannot be read is refused before torch is even imported
    from chainrule.core.schema import dump
    from chainrule.eval.summary import summary
    from chainrule.recipes.quickstart import Plan, quickstart, seeds

    plan = Plan(
        name=name, runs=Path(args.runs), text=None if args.text is None else Path(args.text), seed=args.seed,
        minutes=args.minutes, steps=args.steps, sft_steps=args.sft_steps, held_out=args.documents, questions=args.questions,
        counted=args.counted,
    )  # fmt: skip
    if args.seeds > 1:
        results = seeds(plan, args.seeds, resume=args.resume, force=args.force)
    else:
        results = quickstart(plan, resume=args.resume, force=args.force)
    if args.json:
        options.dump(dump(results))
        return
    print(summary(results))
    print(f"\nthe report: {plan.folder / 'report.html'}", file=sys.stderr)
