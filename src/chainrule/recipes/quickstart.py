"""Quickstart: the whole road in one run, from nothing to a model that chats, measured against the truth.

    world, tokenizer, n-grams → pretraining → SFT → evaluation → report.html

On a user's own text there is no truth and there are no chats: those parts are left out. The time that training takes is
decided before it starts: the machine's speed is measured, and the steps that fit stand in the run's recipe.
"""

import gc
import json
import math
import platform
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from chainrule import __version__
from chainrule.core.device import cpu_threads, pick_device, pick_dtype
from chainrule.core.errors import ChainruleError, ConfigError, DataError
from chainrule.core.files import write_text
from chainrule.core.model import LanguageModel
from chainrule.core.schema import dump
from chainrule.core.tokenizer import Tokenizer
from chainrule.data.documents import hold_out, read_documents
from chainrule.eval import chats as chat_eval
from chainrule.eval.bpb import measure
from chainrule.eval.compare import compare
from chainrule.eval.findings import best_ngram, trained
from chainrule.eval.ladder import Climbed, climb, parameters
from chainrule.eval.probes import next_probes, order_odds, order_probe
from chainrule.eval.report import page
from chainrule.eval.results import (
    ChatScore,
    Cost,
    Curve,
    Machine,
    ModelFacts,
    Odds,
    Results,
    Rung,
    Sample,
    SeedResult,
    Turn,
    read,
    write,
)
from chainrule.hub.lm import LM
from chainrule.hub.load import load
from chainrule.models.ngram import NGram
from chainrule.models.ngram_counts import count_ngrams
from chainrule.recipes.ladder import foot, head
from chainrule.recipes.staged import PLAN, read_plan
from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.chat import CHATML, ChatTemplate
from chainrule.train.material import BEGINNING, SPECIALS
from chainrule.train.recipe import Fresh, Optimizing, Published, Recipe, Start, Text, World, WorldChats, read_recipe
from chainrule.train.run import locked, run_recipe, seconds_per_step
from chainrule.train.schedule import Schedule
from chainrule.world import LANGUAGES, VERSION, documents
from chainrule.world.chats import chats as world_chats
from chainrule.world.story import FRONTED
from chainrule.world.words import cut_nouns

PRETRAIN_SECONDS, SFT_SECONDS, REST_SECONDS = 285.0, 180.0, 85.0
DOCUMENT_TOKENS, CHAT_TOKENS = 109, 114
"""About so many tokens a document and a chat of the world have."""
CHATS_READ = 0.03
"""The share of chats in the text of the pretraining, so that none of their words is a stranger later."""
DOCUMENTS_IN_SFT, BEGINNINGS_IN_SFT = 0.1, 0.3
"""The shares of documents, and of documents' beginnings, in the text of the fine-tuning: with fewer, what was learned of
their odds drifts away."""
CHAT_ORDERS = (2, 4, 6, 20)
"""The n-grams that are asked the questions of the chats: between a question and its answer stand ten tokens of the template, so
that only the longest sees any of it."""
PROMPTS = (("en", "Today "), ("zh", "今天"))
DIALOGUE = ("你是谁？", "3 + 4 = ?", "Write a program that prints kite 3 times.", "37 * 48 = ?", "Who wrote Hamlet?")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run: on which text (None: the world), for how long, how big."""

    name: str = "quickstart"
    runs: Path = Path("runs")
    text: Path | None = None
    seed: int = 0
    minutes: float = 10.0
    steps: int | None = None
    sft_steps: int | None = None
    vocab_size: int = 2048
    held_out: int = 400
    questions: int = 400
    counted: int = 40_000
    shape: Fresh = field(default_factory=Fresh)

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        return self.runs / self.name

    def seconds(self, share: float) -> float:
        """How long a training may take; beyond the usual ten minutes, more goes to training alone."""
        usual = PRETRAIN_SECONDS + SFT_SECONDS + REST_SECONDS
        return share * max(0.02, (self.minutes * 60 * usual / 600 - REST_SECONDS) / (PRETRAIN_SECONDS + SFT_SECONDS))


def quickstart(plan: Plan, *, resume: bool = False, force: bool = False) -> Results:
    """Run all stages into ``runs/NAME``; returns what was found, which is also written there."""
    found = [path for path in plan.folder.glob("*") if path.name != ".lock"] if plan.folder.exists() else []
    if found and not (resume or force):
        there = plan.folder / "report.html"
        seen = f"see {there}" if there.exists() else "go on with --resume"
        raise ConfigError(f"{plan.folder} exists already; {seen}, replace it with --force, or choose another --name")
    with locked(plan.folder):
        asked = _settings(plan)
        _check(plan.folder, asked, resume=resume, force=force)
        try:
            write_text(plan.folder / PLAN, json.dumps(asked, ensure_ascii=False, indent=1))
            return _Quickstart(plan, resume=resume, force=force).run()
        except ChainruleError:
            if not (plan.folder / "pretrain").exists():  # refused before any training: nothing is left half-written
                for path in (plan.folder / PLAN, plan.folder / "tokenizer"):
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            raise


def _settings(plan: Plan) -> dict[str, Any]:
    """What decides a quickstart, as plain data."""
    return {key: str(value) if isinstance(value, Path) else value for key, value in dump(plan).items() if key != "runs"}


def _check(folder: Path, asked: dict[str, Any], *, resume: bool, force: bool) -> None:
    """Refuse to go on with a run under other settings: half of its numbers would be another run's."""
    if not (resume and (folder / PLAN).exists()) or force:
        return
    begun = read_plan(folder / PLAN)
    changed = [f"{key} was {begun.get(key)!r}, is {value!r}" for key, value in asked.items() if begun.get(key) != value]
    if changed:
        raise ConfigError(f"{folder} was begun otherwise ({'; '.join(changed)}); restore that, or choose another --name")


class _Quickstart:
    """The stages, and what each leaves for the next."""

    def __init__(self, plan: Plan, *, resume: bool, force: bool) -> None:
        self.plan, self.resume, self.force = plan, resume, force
        self.costs: list[Cost] = []
        self.odds: list[Odds] = []
        self.chat_scores: list[ChatScore] = []
        self.world = plan.text is None

    def run(self) -> Results:
        torch.set_num_threads(cpu_threads())
        low = self.stage("text and n-grams" if not self.world else "world and n-grams", self.count)
        pretrained = self.stage("pretraining", self.pretrain)
        tuned = self.stage("fine-tuning", lambda: self.fine_tune(pretrained)) if self.world else pretrained
        results = self.stage("evaluation and report", lambda: self.evaluate(low, pretrained, tuned))
        results = replace(results, costs=tuple(self.costs))
        write(results, self.plan.folder)
        write_text(self.plan.folder / "report.html", page(results).html())
        return results

    def stage(self, name: str, work: Callable[[], Any]) -> Any:
        """Do one stage, and note what it cost."""
        print(f"— {name}", file=sys.stderr, flush=True)
        began = time.monotonic()
        self.tokens: int | None = None
        done = work()
        gc.collect()
        seconds = round(time.monotonic() - began, 2)
        self.costs.append(Cost(stage=name, seconds=seconds, tokens=self.tokens, memory_bytes=memory_bytes()))
        return done

    # text and n-grams

    def count(self) -> Climbed:
        """Draw or read the text, train the tokenizer, climb the ladder's lower rungs."""
        if self.plan.text is None:
            drawn = list(islice(documents(self.plan.seed), self.plan.counted))
            train = [one.text for one in drawn]
            held = list(islice(documents(self.plan.seed + 1000, split="heldout"), self.plan.held_out))
            self.held, self.languages = [one.text for one in held], [one.language for one in held]
        else:
            train, self.held = hold_out(read_documents(self.plan.text))
            self.languages = ["text"] * len(self.held)
            train, self.held, self.languages = _lines(train), _lines(self.held), ["text"] * len(_lines(self.held))
        self.train = train
        self.tokenizer = self.train_tokenizer(train)

        def heard(name: str, lm: LM) -> None:
            if self.world:
                self.odds.append(order_odds(name, "bytes" if name.startswith("bytes") else "tokens", lm))

        low = climb(foot(train, self.tokenizer, heard=heard), self.held, self.languages, progress=_tell)
        if self.world:
            self.count_chats()
        return low

    def train_tokenizer(self, train: list[str]) -> Tokenizer:
        """BPE on the text, and of the world on chats too, cut into words and nouns; kept in the run's folder.

        Programs get more than their share, so that a word between quotation marks is one token and can be copied as one.
        """
        from chainrule.recipes.ladder import beginning

        texts: Iterable[str] = beginning(train, 1_000_000 if self.world else 3_000_000)
        if self.world:
            seed = self.plan.seed
            shown = chain(islice(world_chats(seed), 3000), islice(world_chats(seed, kind="programs"), 4000))
            said = (message["content"] for chat in shown for message in chat.messages)
            texts = (noun for text in chain(texts, said) for noun in cut_nouns(text))
        pattern = "world" if self.world else "cl100k"
        tokenizer = BPE.train(texts, self.plan.vocab_size, pattern=pattern, specials=SPECIALS).fast()
        tokenizer.save(self.plan.folder / "tokenizer")
        return tokenizer

    def count_chats(self) -> None:
        """The baselines of the chats: the majority answer, and the best of the n-grams that read them."""
        known = list(islice(world_chats(self.plan.seed), 8000))
        self.asked = chat_eval.questions(self.plan.questions, LANGUAGES, seed=self.plan.seed + 1000)
        self.chat_scores += chat_eval.score("majority answer", "majority", chat_eval.majority(known), self.asked)
        template = ChatTemplate(CHATML, self.tokenizer)
        few = chat_eval.questions(max(4, self.plan.questions // 4), LANGUAGES, seed=self.plan.seed + 1000)
        ids = [template.encode(chat.messages).ids for chat in known]
        ngrams = {f"{ngram.config.order}-gram of the chats": ngram for ngram in counted_ids(ids, self.tokenizer)}
        answers = {name: chat_eval.answering(LM(ngram, self.tokenizer, template)) for name, ngram in ngrams.items()}
        self.chat_scores += chat_eval.best([chat_eval.score(name, "ngram", answer, few) for name, answer in answers.items()])

    # training

    def pretrain(self) -> LM:
        """The Transformer from nothing."""
        recipe = self.pretraining()
        self.tokens = recipe.steps * recipe.batch_rows * recipe.context
        return self.trained(recipe, "pretrain", self.watch)

    def pretraining(self) -> Recipe:
        """The recipe of the pretraining, its steps fitted to the time."""
        plan = self.plan
        known = self.plan.folder / "pretrain" / "recipe.yaml"
        if self.resume and known.exists():
            return read_recipe(str(known))
        recipe = Recipe(
            model=plan.shape,
            tokenizer=Published(path=str(plan.folder / "tokenizer")),
            data=World() if plan.text is None else Text(path=str(plan.text)),
            optimizer=Optimizing(lr=0.013, adam_lr=0.005),
            schedule=Schedule(warmup=20, decay=0.6),
            seed=plan.seed,
        )
        per_step = seconds_per_step(recipe, vocab_size=self.tokenizer.vocab_size)
        steps = plan.steps or max(20, round(plan.seconds(PRETRAIN_SECONDS) / per_step))
        every = max(1, steps // 8)
        tokens = steps * recipe.batch_rows * recipe.context
        drawn, chats = min(300_000, round(tokens / DOCUMENT_TOKENS)), round(CHATS_READ * tokens / CHAT_TOKENS)
        data = World(documents=drawn, chats=chats) if self.world else recipe.data
        return replace(recipe, steps=steps, eval_every=every, save_every=max(every, steps // 4), data=data, keep=1)

    def fine_tune(self, pretrained: LM) -> LM:
        """The same model, taught to chat."""
        plan = self.plan
        before = chat_eval.questions(max(4, plan.questions // 4), LANGUAGES, seed=plan.seed + 1000)
        chatty = LM(pretrained.model, pretrained.tokenizer, ChatTemplate(CHATML, pretrained.tokenizer), name="before")
        self.chat_scores += chat_eval.score("Transformer before SFT", "before", chat_eval.answering(chatty), before)
        recipe = self.fine_tuning()
        self.tokens = recipe.steps * recipe.batch_rows * recipe.context
        return self.trained(recipe, "sft", None)

    def fine_tuning(self) -> Recipe:
        """The recipe of the fine-tuning, its steps fitted to the time."""
        plan = self.plan
        known = plan.folder / "sft" / "recipe.yaml"
        if self.resume and known.exists():
            return read_recipe(str(known))
        steps = plan.sft_steps or max(20, round(self.seconds_left() / self.seconds_of_a_step()))
        tokens = steps * 16 * 256
        chats = min(200_000, round((1 - DOCUMENTS_IN_SFT - BEGINNINGS_IN_SFT) * tokens / CHAT_TOKENS))
        whole, begun = round(DOCUMENTS_IN_SFT * tokens / DOCUMENT_TOKENS), round(BEGINNINGS_IN_SFT * tokens / BEGINNING)
        return Recipe(
            model=Start(path=str(plan.folder / "pretrain")),
            data=WorldChats(chats=chats, documents=whole, beginnings=begun),
            # Adam takes small steady gradients as far as large ones: faster, and tokens that no chat says grow unlikely
            optimizer=Optimizing(lr=0.007, adam_lr=0.0001),
            schedule=Schedule(warmup=10, decay=0.9), average=0.5,
            steps=steps, eval_every=max(1, steps // 4), save_every=max(1, steps // 2), keep=1, seed=plan.seed,
        )  # fmt: skip

    def seconds_left(self) -> float:
        """The time of the fine-tuning: what the pretraining took beyond its own is taken away, but not half of it."""
        planned = self.plan.seconds(SFT_SECONDS)
        over = sum(self.step_seconds()) - self.plan.seconds(PRETRAIN_SECONDS)
        return planned if self.plan.steps else min(planned, max(planned / 2, planned - over))

    def seconds_of_a_step(self) -> float:
        """As the pretraining went: a machine that was measured fresh may slow down."""
        seconds = self.step_seconds()
        return sum(seconds) / len(seconds)

    def step_seconds(self) -> list[float]:
        """What each step of the pretraining took."""
        rows = (self.plan.folder / "pretrain" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [row["seconds"] for row in map(json.loads, rows) if "seconds" in row]

    def trained(self, recipe: Recipe, name: str, watch: Any) -> LM:
        """Run a recipe inside the quickstart's folder; on resume, go on with what is there."""
        there = (self.plan.folder / name / "recipe.yaml").exists()
        run_recipe(
            recipe, name, runs=self.plan.folder, label=name, watch=watch,
            resume=self.resume and there, force=self.force or (self.resume and not there),
        )  # fmt: skip
        return load(self.plan.folder / name, device=recipe.device)

    def watch(self, model: LanguageModel, tokenizer: Tokenizer) -> dict[str, Any]:
        """Bits per byte of a few held-out documents of each language, and a sample of each."""
        seen: dict[str, Any] = {}
        lm = LM(model, tokenizer)
        for language in dict.fromkeys(self.languages):
            texts = [text for text, spoken in zip(self.held, self.languages, strict=True) if spoken == language][:40]
            seen[f"held_out_{language}"] = measure(model, tokenizer, texts, [language] * len(texts)).bits_per_byte
            prompt = dict(PROMPTS).get(language, "")
            seen[f"sample_{language}"] = lm.generate(prompt, max_tokens=48, temperature=0.7, seed=self.plan.seed)
        return seen

    # evaluation

    def evaluate(self, low: Climbed, pretrained: LM, tuned: LM) -> Results:
        """Everything the report shows, but the cost."""
        high = climb(head(pretrained, world=self.world), self.held, self.languages, progress=_tell)
        tuned.save(self.plan.folder / "model", force=True)
        ladder = low.rungs + high.rungs
        probes: dict[str, Any] = {}
        if self.world:
            truth = load("world")
            odds = [*self.odds, order_odds("Transformer", "model", tuned), order_odds("truth", "truth", truth)]
            probes["order"] = order_probe(odds, math.log(1 / FRONTED))
            probes["next"] = next_probes(truth, tuned)
            self.chat_scores += chat_eval.score("Transformer after SFT", "after", chat_eval.answering(tuned), self.asked)
            probes["dialogues"] = (self.dialogue(tuned),)
        config: Any = pretrained.model.config  # type: ignore[attr-defined]
        return Results(
            name=self.plan.name,
            source=f"world {VERSION}" if self.world else str(self.plan.text),
            world=str(VERSION) if self.world else None,
            seed=self.plan.seed,
            chainrule=__version__,
            machine=machine(),
            model=ModelFacts(
                parameters=parameters(pretrained.model),
                vocab_size=pretrained.model.vocab_size,
                shape=f"{len(config.blocks)} layers, {config.d_model} wide, {config.blocks[0].attention.n_heads} heads",
            ),
            ladder=ladder,
            costs=(),
            comparisons=tuple(self.compared(ladder, low, high)),
            chats=tuple(self.chat_scores),
            commands=self.commands(),
            **self.history(),
            **probes,
        )

    def compared(self, ladder: tuple[Rung, ...], low: Climbed, high: Climbed) -> list[Any]:
        """The model against the best n-gram of each language, with intervals."""
        model = trained(ladder)
        pairs = [(language, best_ngram(ladder, language)) for language in dict.fromkeys(self.languages)]
        return [
            compare(high.measured[model.name], low.measured[ngram.name], language=language)
            for language, ngram in pairs
            if model is not None and ngram is not None and sum(one == language for one in self.languages) > 1
        ]

    def dialogue(self, lm: LM) -> tuple[Turn, ...]:
        """A few questions, each answered on its own."""
        turns: list[Turn] = []
        for question in DIALOGUE:
            turns.append(Turn(role="user", text=question))
            added = list(lm.converse([{"role": "user", "content": question}], max_tokens=64))
            shown = [message["content"] or _called(message) for message in added]
            turns += [Turn(role=message["role"], text=text) for message, text in zip(added, shown, strict=True)]
        return tuple(turns)

    def history(self) -> dict[str, Any]:
        """The curves and samples that the pretraining's metrics hold."""
        text = (self.plan.folder / "pretrain" / "metrics.jsonl").read_text(encoding="utf-8")
        rows = [json.loads(line) for line in text.splitlines()]
        per_step = next(row["tokens"] for row in rows if "tokens" in row)
        looks = [row for row in rows if any(key.startswith("sample_") for key in row)]
        curves: list[Curve] = []
        for language in dict.fromkeys(self.languages):
            points = tuple((row["step"] * per_step, row[f"held_out_{language}"]) for row in looks)
            name = (
                f"held-out, {language}" if language == "text" else {"en": "held-out, English", "zh": "held-out, 中文"}[language]
            )
            curves.append(Curve(name=name, language=language, points=points))
        shown = [looks[i] for i in sorted({0, len(looks) // 4, len(looks) // 2, len(looks) - 1})]
        samples = [
            Sample(stage=f"step {row['step']}", language=language, text=row[f"sample_{language}"],
                   prompt=dict(PROMPTS).get(language, ""))
            for language in dict.fromkeys(self.languages)
            for row in shown
        ]  # fmt: skip
        return {"curves": tuple(curves), "samples": tuple(samples)}

    def commands(self) -> tuple[str, ...]:
        """What to type next."""
        run = self.plan.folder
        if not self.world:
            return (f"chainrule generate {run} --temperature 0.8", f"chainrule ladder {run} --text {self.plan.text}")
        return (f"chainrule chat {run}", f'chainrule next {run} "今天我来到了"', f"chainrule ladder {run}")


def counted_ids(ids: list[list[int]], tokenizer: Tokenizer) -> list[NGram]:
    """The n-grams of chats that are ids already; each begins as every row does, with the begin token."""
    begin = [] if tokenizer.begin is None else [tokenizer.begin]
    levels = count_ngrams([[*begin, *one] for one in ids], max(CHAT_ORDERS), tokenizer.vocab_size)
    return [NGram.of_levels(levels[:order], vocab_size=tokenizer.vocab_size) for order in CHAT_ORDERS]


def seeds(plan: Plan, n: int, *, resume: bool = False, force: bool = False) -> Results:
    """The same run with ``n`` seeds; the first one's results, with every seed's outcome in them.

    On ``resume`` the seeds that are finished are read, and the others gone on with.
    """
    if n < 1:
        raise ConfigError(f"--seeds is {n}; it must be 1 or more")
    outcomes: list[SeedResult] = []
    first: Results | None = None
    for seed in range(plan.seed, plan.seed + n):
        one = replace(plan, seed=seed, name=plan.name if seed == plan.seed else f"{plan.name}-seed{seed}")
        _check(one.folder, _settings(one), resume=resume, force=force)
        done = resume and (one.folder / "results.json").exists()
        results = read(one.folder) if done else quickstart(one, resume=resume, force=force)
        first = first or results
        outcomes.append(outcome(results))
    assert first is not None
    whole = replace(first, seeds=tuple(outcomes))
    write(whole, plan.folder)
    write_text(plan.folder / "report.html", page(whole).html())
    return whole


def outcome(results: Results) -> SeedResult:
    """What one seed came to."""
    from chainrule.eval.findings import accuracy, chat_scores

    model = trained(results.ladder)
    bits = {key: value for key, value in (model.bits_per_byte if model else {}).items() if value is not None}
    right = {language: accuracy(chat_scores(results, "after", language)) for language in bits}
    return SeedResult(seed=results.seed, bits_per_byte=bits, chat_accuracy={k: v for k, v in right.items() if v is not None})


def report(folder: Path) -> Path:
    """Write the report of a finished quickstart anew from its numbers."""
    if not (folder / "results.json").exists():
        raise DataError(f"{folder} holds no results.json; run chainrule quickstart first")
    write_text(folder / "report.html", page(read(folder)).html())
    return folder / "report.html"


def machine() -> Machine:
    """Where this runs."""
    device = pick_device()
    dtype = str(pick_dtype("auto", device)).removeprefix("torch.")
    return Machine(
        device=str(device), threads=cpu_threads(), dtype=dtype, python=platform.python_version(), torch=torch.__version__
    )


def memory_bytes() -> int:
    """The most memory this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _called(message: dict[str, Any]) -> str:
    calls = message.get("tool_calls") or []
    return " ".join(f"{call['function']['name']}({json.dumps(call['function']['arguments'])})" for call in calls)


def _tell(rung: Rung) -> None:
    bits = ", ".join(f"{key} {value:.3f}" if value is not None else f"{key} ∞" for key, value in rung.bits_per_byte.items())
    print(f"  {rung.name:<14} {bits} bits per byte", file=sys.stderr, flush=True)


def _lines(texts: list[str], size: int = 2000) -> list[str]:
    """Long texts as pieces of about so many characters, cut at line ends, so that each fits a model's memory."""
    pieces: list[str] = []
    for text in texts:
        piece = ""
        for line in text.splitlines(keepends=True):
            if piece and len(piece) + len(line) > size:
                pieces.append(piece)
                piece = ""
            piece += line
        pieces += [piece] if piece.strip() else []
    return pieces
