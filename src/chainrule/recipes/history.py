"""The ladder of history: every kind of model since Shannon, trained and measured on one text, in one run.

    text, tokenizer → steps that fit the time → a rung after the other → ladder.json, report.html

One tokenizer, one text, on the line the same tokens in the same order, about as many parameters (``recipes.eras``): what
differs is the idea. Every neural rung is a run of its own, trained by the one loop. What is done stands in ``done/``; a run
that was killed goes on with the rung it was in.
"""

import json
import math
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from chainrule.core.device import cpu_threads, pick_device
from chainrule.core.errors import ConfigError, NotNumbers
from chainrule.core.files import write_text
from chainrule.core.masked import MaskedModel, Model
from chainrule.core.schema import dump, parse
from chainrule.core.tokenizer import Tokenizer
from chainrule.core.version import __version__
from chainrule.data.masking import MaskedStream
from chainrule.data.packing import pack
from chainrule.data.pairs import PairStream
from chainrule.data.parts import parts
from chainrule.data.streams import PackedStream, Stream
from chainrule.eval.anatomy import take_apart
from chainrule.eval.bpb import Measured, measure, measure_logp
from chainrule.eval.branches import measure_in_order, measure_in_parts
from chainrule.eval.history import BRANCHES, NEURAL, History, Milestone, Training, average, bits, chosen, parsed, write
from chainrule.eval.history_page import page
from chainrule.eval.ladder import Contender, climb, contender, parameters, truth, uniform
from chainrule.eval.results import Rung
from chainrule.hub.encoder import MASKS
from chainrule.models.ngram import NGram
from chainrule.models.ngram_counts import Level
from chainrule.models.word2vec import Word2Vec, learn_vectors
from chainrule.pages.text import fixed
from chainrule.recipes.corpus import check_seed, read_corpus, source, version
from chainrule.recipes.costs import SETUP, machine, noted, read_costs
from chainrule.recipes.eras import Shape, recipes
from chainrule.recipes.ladder import MOST_TOKENS, counted
from chainrule.recipes.staged import DONE, staged, typed
from chainrule.train.material import SPECIALS
from chainrule.train.precision import pick_precision
from chainrule.train.recipe import FreshEncoder, FreshNeuralNGram, FreshSeq2Seq, Published, Recipe, World, read_recipe
from chainrule.train.run import read_metrics, run_recipe, seconds_per_step
from chainrule.world import logp

TRAINING = 0.78
"""The share of the time that goes to training; text, counting and measuring take the rest."""
FEWEST = 20
LOOKS = 8
"""So often a model is measured while it trains, on ``FEW`` documents."""
FEW = 40
ORDERS = {"unigram": (1,), "bigram": (2,), "kneser-ney": (3, 4, 5, 6)}
"""The orders of the rungs that are counted; of several the best is taken."""
STEPS = "steps.json"
NAMES = {
    "rnn": "RNN", "lstm": "LSTM", "gru": "GRU", "transformer": "Transformer", "encoder-decoder": "Encoder–decoder",
    "bert": "BERT", "t5": "T5", "llama": "LLaMA", "moe": "MoE",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run: which rungs, on which text (None: the world), for how long, how big."""

    kind: Literal["history"] = "history"
    name: str = "ladder"
    runs: Path = Path("runs")
    text: Path | None = None
    seed: int = 0
    minutes: float = 10.0
    steps: int | None = None
    rungs: tuple[str, ...] = chosen(None)
    held_out: int = 200
    documents: int | None = None
    """So many documents of the world to learn from; None: as many as are read once."""
    vocab_size: int = 2048
    shape: Shape = field(default_factory=Shape)
    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.text is not None and "truth" in self.rungs:
            raise ConfigError(f"the truth of {self.text} is not known; leave it out of the rungs")

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        return self.runs / self.name

    @property
    def source(self) -> str:
        """What the text is."""
        return source(self.text)

    @property
    def step_tokens(self) -> int:
        """The tokens of a training step, padding counted."""
        return self.shape.batch_rows * self.shape.context


def history(plan: Plan, *, resume: bool = False, force: bool = False) -> History:
    """Climb the rungs of the plan in ``runs/NAME``; what was found is also written there."""
    pick_precision(plan.precision, pick_device(plan.device))  # what is not here is refused before any work
    with staged(plan.folder, plan, resume=resume, force=force, world=version(plan.text)):
        torch.set_num_threads(plan.threads or cpu_threads())
        found = _Ladder(plan, force=force).climb()
        write(found, plan.folder)
        write_text(plan.folder / "report.html", page(found).html())
        return found


class _Ladder:
    """The text, the recipes on it, and what they come to."""

    def __init__(self, plan: Plan, *, force: bool = False) -> None:
        self.plan, self.force = plan, force
        self.counts: tuple[list[Level], float] | None = None
        with noted(plan.folder, SETUP):
            _say(f"— {SETUP}: {plan.source}")
            self.corpus = read_corpus(
                plan.folder, plan.text, seed=plan.seed, held_out=plan.held_out, vocab_size=plan.vocab_size,
                row=plan.shape.context, n=plan.documents,
                specials=(*SPECIALS, MASKS[0]) if "bert" in plan.rungs else SPECIALS,
            )  # fmt: skip
            known = recipes(plan.shape, self.corpus.tokenizer.vocab_size)
            self.recipes = {key: recipe for key, recipe in known.items() if key in plan.rungs}
            self.steps = self.fitting_steps() if self.recipes else 0
            if plan.documents is None and self.recipes:
                self.corpus = self.corpus.for_tokens(self.steps * plan.step_tokens)

    # the time

    def fitting_steps(self) -> int:
        """The steps of every neural rung alike: as asked, as the run was begun, or as many as fit the time here."""
        known = self.plan.folder / STEPS
        if self.plan.steps is not None:
            return self.plan.steps
        if not known.exists():
            write_text(known, json.dumps({"steps": self.measured_steps()}))
        return int(str(parsed(known)["steps"]))

    def measured_steps(self) -> int:
        """How many steps fit the time if all neural rungs take equally many; a few steps of each are timed."""
        _say("— how long a step takes here")
        shape, corpus = self.plan.shape, self.corpus
        rows = pack(((ids, None) for ids in corpus.ids), shape.context, split=True)
        packed = PackedStream(rows, shape.batch_rows, shape.batch_rows)
        each = once = 0.0
        for recipe in self.recipes.values():
            stream = self.fed(recipe, packed)
            each += seconds_per_step(self.fitted(recipe, 1), vocab_size=corpus.tokenizer.vocab_size, stream=stream)
            if isinstance(recipe.model, FreshNeuralNGram) and recipe.model.word2vec:
                vectors = recipe.model.epochs * self.vector_seconds(recipe.model)
                if isinstance(corpus.data, World):  # as long as it is read
                    each += vectors * self.plan.step_tokens
                else:
                    once += vectors * corpus.tokens
        return max(FEWEST, round((self.plan.minutes * 60 * TRAINING - once) / each))

    def fed(self, recipe: Recipe, packed: PackedStream) -> Stream:
        """The text as the recipe's model reads it: packed, with words hidden, or in parts."""
        tokenizer = self.corpus.tokenizer
        if isinstance(recipe.model, FreshEncoder):
            return MaskedStream(packed, tokenizer.specials[MASKS[0]], range(len(tokenizer.specials), tokenizer.vocab_size))
        if isinstance(recipe.model, FreshSeq2Seq):
            assert tokenizer.begin is not None
            assert tokenizer.end is not None
            frame = {"start": tokenizer.begin, "end": tokenizer.end, "context": recipe.context}
            pairs = [part for ids in self.corpus.ids[:2000] for part in parts(ids[1:].tolist(), **frame)]
            return PairStream(pairs, recipe.batch_rows, recipe.batch_rows)
        return packed

    def vector_seconds(self, model: FreshNeuralNGram) -> float:
        """How long word2vec takes for a token, once."""
        some = self.corpus.ids[:300]
        settings = Word2Vec(method=model.word2vec or "skip_gram", by="block", d_model=model.d_model, epochs=1, min_count=1)
        began = time.monotonic()
        learn_vectors(some, self.corpus.tokenizer.vocab_size, settings)
        return (time.monotonic() - began) / sum(map(len, some))

    def fitted(self, recipe: Recipe, steps: int) -> Recipe:
        """A rung's recipe, told its text, its steps and where to compute."""
        plan, every = self.plan, max(1, steps // LOOKS)
        return replace(
            recipe, data=self.corpus.data, tokenizer=Published(path=str(plan.folder / "tokenizer")), steps=steps,
            eval_every=every, save_every=2 * every, threads=plan.threads, device=plan.device, precision=plan.precision,
            seed=plan.seed,
        )  # type: ignore[arg-type]  # fmt: skip

    # the rungs

    def climb(self) -> History:
        """All rungs in their order."""
        plan, corpus = self.plan, self.corpus
        milestones = tuple(self.milestone(key) for key in plan.rungs)
        return History(
            name=plan.name,
            source=plan.source,
            seed=plan.seed,
            chainrule=__version__,
            machine=machine(plan.device, plan.precision, plan.threads),
            vocab_size=corpus.tokenizer.vocab_size,
            documents=len(corpus.ids),
            held_out=len(corpus.held),
            seconds=round(self.cost(SETUP) + sum(one.seconds for one in milestones), 2),
            milestones=milestones,
            floor=measure_logp(logp, corpus.held[:FEW], name="truth").bits_per_byte if "truth" in plan.rungs else None,
            commands=commands(plan),
        )

    def milestone(self, key: str) -> Milestone:
        """One rung: read where it is done, else made, measured and written down."""
        there = self.plan.folder / DONE / f"{key}.json"
        if not there.exists():
            trained = sum(row.get("seconds", 0.0) for row in read_metrics(self.plan.folder / key))
            with noted(self.plan.folder, key, spent=trained):
                made = self.made(key)
            made = replace(made, seconds=self.cost(key))
            write_text(there, json.dumps(dump(made), ensure_ascii=False, indent=1))
        found = parse(Milestone, parsed(there))
        paid = ", ".join(f"{language} {fixed(bits(found.rung, language))}" for language in found.rung.bits_per_byte)
        _say(f"  {found.rung.name:<18} {paid} bits per byte")
        return found

    def cost(self, stage: str) -> float:
        """What a stage took, in seconds, all that was spent on it before it was interrupted with it."""
        return next(cost.seconds for cost in read_costs(self.plan.folder) if cost.stage == stage)

    def made(self, key: str) -> Milestone:
        """A rung that is not done yet."""
        if key in NEURAL:
            return self.trained(key)
        if key in ORDERS:
            return min((self.counted(key, order) for order in ORDERS[key]), key=lambda one: average(one.rung))
        return Milestone(key=key, rung=self.measured(uniform() if key == "uniform" else truth(logp)))

    def measured(self, one: Contender) -> Rung:
        """What a contender pays on the held-out documents."""
        return climb([one], self.corpus.held, self.corpus.languages).rungs[0]

    def counted(self, key: str, order: int) -> Milestone:
        """A table of counts of the training tokens, its time that of the one count of all lengths."""
        if self.counts is None:
            self.counts = self.count()
        (levels, counting), tokenizer, began = self.counts, self.corpus.tokenizer, time.monotonic()
        model = NGram.of_levels(levels[:order], vocab_size=tokenizer.vocab_size)
        seconds = round(counting + time.monotonic() - began, 4)
        training = Training(tokens=min(self.corpus.tokens, MOST_TOKENS), seconds=seconds)
        name = f"Kneser–Ney {order}-gram" if key == "kneser-ney" else key
        rung = self.measured(contender(name, "tokens", lambda: (model, tokenizer), order=order))
        return Milestone(key=key, rung=rung, training=training)

    def count(self) -> tuple[list[Level], float]:
        """The n-grams of the training tokens up to the longest that a rung asks for, and how long it took to count them."""
        longest, began = max(max(ORDERS[key]) for key in self.plan.rungs if key in ORDERS), time.monotonic()
        levels = counted(self.corpus.ids, longest, self.corpus.tokenizer.vocab_size)
        return levels, time.monotonic() - began

    def trained(self, key: str) -> Milestone:
        """A neural rung: its recipe run into a folder of its own, or gone on with."""
        self.counts = None  # of a long text a gigabyte, and what is counted stands before what is trained
        folder = self.plan.folder / key
        begun = (folder / "recipe.yaml").exists()
        recipe = read_recipe(str(folder / "recipe.yaml")) if begun else self.fitted(self.recipes[key], self.steps)
        run = run_recipe(recipe, key, runs=self.plan.folder, label=key, watch=self.watch, resume=begun, force=self.force)
        model = run.model
        rung = self.measured(entered(named(key, recipe), model, run.tokenizer))
        training, curve = learned(folder)
        return Milestone(key=key, rung=rung, active=active(model), training=training, curve=curve)

    def watch(self, model: Model, tokenizer: Tokenizer) -> dict[str, Any]:
        """Bits per byte on a few held-out documents; an encoder, whom every token costs a pass, is measured at the end."""
        if isinstance(model, MaskedModel):
            return {}
        few = self.corpus.held[:FEW]
        try:
            found = measure_in_parts(model, tokenizer, few, name="") if model.needs else measure(model, tokenizer, few)
        except NotNumbers:  # the loop says it better, with the step
            return {"bits_per_byte": math.nan}
        return {"bits_per_byte": found.bits_per_byte}


def named(key: str, recipe: Recipe) -> str:
    """A neural rung's name in tables."""
    if isinstance(recipe.model, FreshNeuralNGram):
        return f"neural {recipe.model.order}-gram"
    return NAMES[key]


def entered(name: str, model: Model, tokenizer: Tokenizer) -> Contender:
    """A trained model as a contender, asked for the probability of a text in the way that it has one."""

    def run(texts: Sequence[str], languages: Sequence[str] | None) -> tuple[Measured, int | None]:
        if isinstance(model, MaskedModel):
            found = measure_in_order(model, tokenizer, tokenizer.specials[MASKS[0]], texts, languages, name=name)
        elif model.needs:
            found = measure_in_parts(model, tokenizer, texts, languages, name=name)
        else:
            found = measure(model, tokenizer, texts, languages, name=name)
        return found, parameters(model)

    return Contender(name=name, family="model", measure=run)


def active(model: Model) -> int:
    """The parameters that a token meets: all but the experts that were not chosen."""
    config: Any = getattr(model, "config", None)
    return take_apart(model, "model").active if config.kind == "decoder" else parameters(model)


def learned(run: Path) -> tuple[Training, tuple[tuple[int, float], ...]]:
    """What a run read and how long it took, word vectors included; and (tokens, bits per byte) on the way."""
    rows = read_metrics(run)
    steps = [row for row in rows if "seconds" in row]
    seconds = sum(row["seconds"] for row in steps) + float(str(parsed(run / "data.json")["making_seconds"]))
    looks = [(row["step"], row["bits_per_byte"]) for row in rows if row.get("bits_per_byte") is not None]
    curve = [(sum(row["tokens"] for row in steps if row["step"] <= at), paid) for at, paid in looks]
    tokens = sum(row["tokens"] for row in steps)
    return Training(tokens=tokens, seconds=round(seconds, 2), steps=len(steps)), tuple(curve)


def commands(plan: Plan) -> tuple[str, ...]:
    """What to type next."""
    runs = [shlex.quote(str(plan.folder / key)) for key in plan.rungs if key in NEURAL and key not in BRANCHES]
    # of a user's text both have read most, and would be compared by what they remember
    asks = [f"chainrule compare {runs[-2]} {runs[-1]}"] if len(runs) > 1 and plan.text is None else []
    asks += [f"chainrule generate {runs[-1]} --temperature 0.8"] if runs else []
    usual = Plan(text=plan.text, rungs=chosen(None, known=plan.text is None))
    options = {
        "--text": (plan.text, None), "--rungs": (",".join(plan.rungs), ",".join(usual.rungs)),
        "--seed": (plan.seed, usual.seed), "--steps": (plan.steps, None), "--minutes": (plan.minutes, usual.minutes),
        "--documents": (plan.held_out, usual.held_out), "--train-documents": (plan.documents, None),
        "--device": (plan.device, usual.device), "--dtype": (plan.precision, usual.precision),
        "--runs": (plan.runs, usual.runs),
    }  # fmt: skip
    return (f"{typed('ladder', options)} --name {shlex.quote(plan.name)} --force", *asks)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
