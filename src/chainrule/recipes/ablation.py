"""Why the Transformer has its parts: a deep, narrow decoder, trained with and without each of them.

    whole   x ← x + attention(norm(x)),   x ← x + mlp(norm(x)),   rope in attention          (``eval.ablation.PARTS``)

Same text, same steps, same seed: the matrices begin with the same numbers. Each model goes through the one loop; one whose loss
or gradients stop being finite is reported as diverged, at its step.
"""

import json
import math
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from chainrule.core.device import cpu_threads, pick_device
from chainrule.core.errors import ConfigError, NotNumbers
from chainrule.core.files import write_text
from chainrule.core.schema import dump, parse
from chainrule.core.version import __version__
from chainrule.data.packing import pack
from chainrule.data.streams import PackedStream
from chainrule.eval.ablation import PARTS, Ablated, Ablation, write
from chainrule.eval.ablation_page import page
from chainrule.eval.bpb import measure
from chainrule.eval.gradients import layer_gradients
from chainrule.eval.history import parsed
from chainrule.eval.ladder import parameters
from chainrule.layers.attention import GroupedQuery
from chainrule.layers.init import Normal
from chainrule.layers.mlp import Gated
from chainrule.layers.norm import NoNorm, RMSNorm
from chainrule.layers.position import NoPosition
from chainrule.layers.rope import Rope
from chainrule.logprobs.losses import cross_entropy
from chainrule.models.blocks import BareBlock, Block
from chainrule.models.decoder import Decoder, DecoderConfig
from chainrule.pages.text import fixed
from chainrule.recipes.corpus import check_seed, read_corpus, source, version
from chainrule.recipes.costs import SETUP, machine, noted, read_costs
from chainrule.recipes.staged import DONE, staged, typed
from chainrule.train.loop import Diverged, Hooks, Settings, train
from chainrule.train.objective import Objective
from chainrule.train.optim import AdamW
from chainrule.train.precision import pick_precision
from chainrule.train.schedule import Schedule

TRAINING = 0.85
"""The share of the time that goes to training; text and measuring take the rest."""
FEWEST = 20


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run: without which parts, how deep, on which text (None: the world), for how long."""

    kind: Literal["ablation"] = "ablation"
    name: str = "ablation"
    runs: Path = Path("runs")
    text: Path | None = None
    seed: int = 0
    minutes: float = 5.0
    steps: int | None = None
    parts: tuple[str, ...] = tuple(PARTS)
    layers: int = 24
    d_model: int = 64
    n_heads: int = 4
    context: int = 128
    batch_rows: int = 16
    held_out: int = 200
    documents: int | None = None
    vocab_size: int = 2048
    lr: float = 0.002
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.layers < 2:
            raise ConfigError(f"layers is {self.layers}; a gradient's way through the layers needs 2 or more")

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        return self.runs / self.name

    @property
    def source(self) -> str:
        """What the text is."""
        return source(self.text)


def ablation(plan: Plan, *, resume: bool = False, force: bool = False) -> Ablation:
    """Train the whole model and one without each part in ``runs/NAME``; what was found is also written there."""
    pick_precision(plan.precision, pick_device(plan.device))  # what is not here is refused before any work
    with staged(plan.folder, plan, resume=resume, force=force, world=version(plan.text)):
        torch.set_num_threads(plan.threads or cpu_threads())
        found = _Ablations(plan).run()
        write(found, plan.folder)
        write_text(plan.folder / "report.html", page(found).html())
        return found


def decoder(plan: Plan, vocab_size: int, without: str | None) -> Decoder:
    """The deep decoder, or what is left of it without a part; its matrices are drawn from the seed."""
    norm = NoNorm() if without == "norm" else RMSNorm()
    heads = GroupedQuery(n_heads=plan.n_heads, n_kv_heads=plan.n_heads, d_head=plan.d_model // plan.n_heads)
    block = (BareBlock if without == "residual" else Block)(attention=heads, mlp=Gated(d_ff=3 * plan.d_model), norm=norm)
    config = DecoderConfig(
        vocab_size=vocab_size,
        context=plan.context,
        d_model=plan.d_model,
        blocks=(block,) * plan.layers,
        norm=norm,
        position=NoPosition() if without == "position" else Rope(),
    )
    model = Decoder(config)
    # every matrix keeps the scale of what it reads: no model is dead from birth because its signal dies on the way
    model.init(torch.Generator().manual_seed(plan.seed), Normal(std=plan.d_model**-0.5))
    return model


class _Ablations:
    """The text, and every model on it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.device = pick_device(plan.device)
        self.precision = pick_precision(plan.precision, self.device)
        with noted(plan.folder, SETUP):
            _say(f"— {SETUP}: {plan.source}")
            self.corpus = read_corpus(
                plan.folder, plan.text, seed=plan.seed, held_out=plan.held_out, vocab_size=plan.vocab_size, row=plan.context,
                n=plan.documents,
            )  # fmt: skip
            self.stream = self.packed()
            self.steps = plan.steps or self.fitting_steps()
            if plan.documents is None:
                self.corpus = self.corpus.for_tokens(self.steps * plan.batch_rows * plan.context)
                self.stream = self.packed()

    def packed(self) -> PackedStream:
        """The training documents in rows."""
        rows = pack(((ids, None) for ids in self.corpus.ids), self.plan.context, split=True)
        return PackedStream(rows, self.plan.batch_rows, self.plan.batch_rows, self.plan.seed)

    def fitting_steps(self) -> int:
        """As many steps as fit the time if all models take equally many; a few are timed."""
        known = self.plan.folder / "steps.json"
        if not known.exists():
            rows, _ = self.loop(self.model(None), 6)
            each = sorted(row["seconds"] for row in rows[2:])[2] * (len(self.plan.parts) + 1)
            write_text(known, json.dumps({"steps": max(FEWEST, round(self.plan.minutes * 60 * TRAINING / each))}))
        return int(str(parsed(known)["steps"]))

    def model(self, without: str | None) -> Decoder:
        """A new model where it is to be trained."""
        made = decoder(self.plan, self.corpus.tokenizer.vocab_size, without)
        return made.to(self.device, self.precision.weights)

    def loop(self, model: Decoder, steps: int, label: str = "measure") -> tuple[list[dict[str, Any]], int | None]:
        """Train; the rows of metrics, and the step from which on nothing was finite."""
        rows: list[dict[str, Any]] = []
        hooks = Hooks(log=lambda row: rows.append(row) if "seconds" in row else None, save=None, evaluate=dict)
        settings = Settings(
            steps=steps, schedule=Schedule(kind="cosine", warmup=20, floor=0.1), dtype=self.precision.products,
            device=self.device, eval_every=steps + 1, save_every=steps + 1, label=label,
        )  # fmt: skip
        optimizer = AdamW(model, lr=self.plan.lr, weight_decay=0.01)
        try:
            train(
                Objective(model.train(), cross_entropy), self.stream, optimizer, settings, hooks, scaling=self.precision.scale()
            )
        except Diverged as error:
            return rows, error.step
        finally:
            model.eval()
        return rows, None

    def run(self) -> Ablation:
        """All models, the whole one first."""
        plan = self.plan
        models = tuple(self.done(without) for without in (None, *plan.parts))
        costs = {cost.stage: cost.seconds for cost in read_costs(plan.folder)}
        return Ablation(
            name=plan.name,
            source=plan.source,
            seed=plan.seed,
            chainrule=__version__,
            machine=machine(plan.device, plan.precision, plan.threads),
            layers=plan.layers,
            d_model=plan.d_model,
            tokens=self.steps * plan.batch_rows * plan.context,
            seconds=round(costs[SETUP] + sum(costs.get(one.without or "whole", one.seconds) for one in models), 2),
            models=models,
            commands=(command(plan),),
        )

    def done(self, without: str | None) -> Ablated:
        """One model: read where it is done, else trained, measured and written down."""
        there = self.plan.folder / DONE / f"{without or 'whole'}.json"
        if not there.exists():
            with noted(self.plan.folder, without or "whole"):
                made = self.ablated(without)
            write_text(there, json.dumps(dump(made), ensure_ascii=False, indent=1, allow_nan=False))
        found = parse(Ablated, parsed(there))
        paid = ", ".join(f"{language} {fixed(bits)}" for language, bits in found.bits_per_byte.items())
        _say(
            f"  {found.name:<18} " + (f"diverged at step {found.diverged_at}" if found.diverged_at else f"{paid} bits per byte")
        )
        return found

    def ablated(self, without: str | None) -> Ablated:
        """A model that is not done yet."""
        model, batch = self.model(without), self.stream.batches(0)[0]
        start = layer_gradients(model, batch)
        rows, diverged = self.loop(model, self.steps, label=without or "whole")
        end = layer_gradients(model, batch)
        paid = self.paid(model)
        if diverged is None and not all(math.isfinite(bits) for bits in paid.values()):
            diverged = next((row["step"] for row in rows if row["skipped"]), self.steps)
        every = max(1, self.steps // 60)
        return Ablated(
            without=without,
            parameters=parameters(model),
            steps=self.steps,
            skipped=sum(row["skipped"] for row in rows),
            seconds=round(sum(row["seconds"] for row in rows), 2),
            bits_per_byte={language: None if diverged else bits for language, bits in paid.items()},
            start=start,
            end=end,
            curve=tuple((row["step"], row["loss"]) for row in rows[::every] if row["loss"] is not None),
            diverged_at=diverged,
        )

    def paid(self, model: Decoder) -> dict[str, float]:
        """Bits per byte on the held-out documents, by language; NaN where the model is no more."""
        try:
            return measure(model, self.corpus.tokenizer, self.corpus.held, self.corpus.languages).by_language
        except NotNumbers:
            return dict.fromkeys(self.corpus.languages, math.nan)


def command(plan: Plan) -> str:
    """What to type to see it again."""
    options = {
        "--text": (plan.text, None), "--layers": (plan.layers, Plan.layers), "--seed": (plan.seed, Plan.seed),
        "--steps": (plan.steps, None), "--minutes": (plan.minutes, Plan.minutes),
        "--documents": (plan.held_out, Plan.held_out), "--train-documents": (plan.documents, None),
        "--device": (plan.device, Plan.device), "--dtype": (plan.precision, Plan.precision), "--runs": (plan.runs, Plan.runs),
    }  # fmt: skip
    return f"{typed('ladder --ablate ' + ','.join(plan.parts), options)} --name {shlex.quote(plan.name)} --force"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
