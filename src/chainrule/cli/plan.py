"""``chainrule plan MODEL``: parameters, FLOPs, memory and time before anything is computed, and whether it fits.

Times are the least that a device can take, reckoned from what it multiplies and reads a second. On this machine every brick of
the work is also timed by itself, and their sum stands beside as what is expected.
"""

from argparse import ArgumentParser, Namespace

from chainrule.cli import options

DEVICES = "this (measured, with expected times: up to 20 s of timing),\nor h100, h200, 4090, laptop, tpu-v5e (best-case times)"


def arguments(parser: ArgumentParser) -> None:
    """What the verb takes."""
    known = "runs/NAME, a config.json or a folder with one, a recipe, org/name in the cache, or an id that ships"
    parser.add_argument("model", metavar="MODEL", help=known)
    parser.add_argument("--device", default="this", help=DEVICES)
    parser.add_argument("--rows", "--batch", type=int, help="rows computed at once (the recipe's, or 1)")
    parser.add_argument(
        "--length", "--context", type=int, help="tokens in a row (the recipe's, or 4096, or what the model reads)"
    )
    parser.add_argument("--optimizer", choices=("adamw", "muon", "sgd"), help="the optimizer (the recipe's, or adamw)")
    parser.add_argument("--rank", type=int, default=16, help="rank of LoRA's adapters (16)")
    parser.add_argument("--targets", metavar="NAMES", help="matrices that LoRA adapts, e.g. q_proj,v_proj (all in the blocks)")
    parser.add_argument("--checkpointing", action="store_true", help="compute activations again on the way back")
    parser.add_argument("--ranks", type=int, default=1, help="how many devices share the batch (1)")
    parser.add_argument("--zero", type=int, default=0, help="ZeRO's stage: 1, 2 or 3 (0, none)")
    parser.add_argument("--tensor", "--tp", type=int, default=1, help="how many devices share each matrix (1)")
    options.as_json(parser)


def run(args: Namespace) -> None:
    """Take apart, reckon, print."""
    from chainrule.core.schema import dump
    from chainrule.eval.counted import Counted, plan_counted
    from chainrule.eval.devices import device
    from chainrule.eval.expected import Timing, expect
    from chainrule.eval.memory import TARGETS, Setting
    from chainrule.eval.plan import plan
    from chainrule.eval.plan_text import plan_text
    from chainrule.eval.stopwatch import measured
    from chainrule.recipes.subject import subject

    about = subject(args.model)
    setting = Setting(
        rows=about.rows if args.rows is None else args.rows,
        length=about.length if args.length is None else args.length,
        optimizer=args.optimizer or about.optimizer,
        rank=args.rank,
        targets=tuple(args.targets.split(",")) if args.targets else TARGETS,
        checkpointing=args.checkpointing,
        micro_batches=about.micro_batches if args.rows is None else 1,
        ranks=args.ranks,
        zero=args.zero,
        tensor=args.tensor,
    )
    place = measured() if args.device == "this" else device(args.device)
    if isinstance(about.anatomy, Counted):
        planned = plan_counted(about.anatomy, setting, place)
    else:
        planned = plan(about.anatomy, setting, place)
        if args.device == "this":
            planned = expect(planned, Timing(about.anatomy, setting, place))
    if args.json:
        options.dump(dump(planned))
    else:
        print(plan_text(planned))
