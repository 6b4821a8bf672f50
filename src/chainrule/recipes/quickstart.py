"""Quickstart: the whole road in one run, from nothing to a model that chats, measured against the truth.

    world, tokenizer, n-grams → pretraining → SFT → evaluation → report.html

On a user's own text there is no truth and there are no chats: those parts are left out. The time that training takes is
decided before it starts: the machine's speed is measured, and the steps that fit stand in the run's recipe.
"""

import gc
import math
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from chainrule.core.chat import shown
from chainrule.core.device import cpu_threads
from chainrule.core.errors import ConfigError, RequestError
from chainrule.core.files import write_text
from chainrule.core.model import LanguageModel
from chainrule.core.tokenizer import Tokenizer
from chainrule.core.version import __version__
from chainrule.data.documents import beginning, hold_out, read_documents
from chainrule.eval import chats as chat_eval
from chainrule.eval.bpb import measure
from chainrule.eval.compare import compare
from chainrule.eval.findings import best_ngram, trained
from chainrule.eval.ladder import Climbed, climb, parameters
from chainrule.eval.probes import next_probes, order_odds, order_probe
from chainrule.eval.report import page
from chainrule.eval.results import (
    FILE,
    ChatScore,
    Curve,
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
from chainrule.hub.load import left_to_right, load
from chainrule.models.ngram import NGram
from chainrule.models.ngram_counts import count_ngrams
from chainrule.recipes.corpus import in_pieces, learned_tokenizer, version
from chainrule.recipes.costs import machine, noted, read_costs
from chainrule.recipes.ladder import foot, head
from chainrule.recipes.quickstart_plan import END_SECONDS, Plan
from chainrule.recipes.staged import staged
from chainrule.tokenizers.chat import CHATML, ChatTemplate
from chainrule.train.material import BEGINNING, SPECIALS, world_texts
from chainrule.train.recipe import Optimizing, Published, Recipe, Start, Text, World, WorldChats, read_recipe
from chainrule.train.run import read_metrics, remove, run_recipe, seconds_per_step
from chainrule.train.schedule import Schedule
from chainrule.world import LANGUAGES, VERSION, documents
from chainrule.world.chats import chats as world_chats
from chainrule.world.story import FRONTED
from chainrule.world.words import cut_nouns

MEASURED = 0.02
"""The share of the pretraining's time for which its steps are timed before: a machine may slow down by a fifth in a minute."""
PRETRAIN, SFT = "pretrain", "sft"
DOCUMENT_TOKENS, CHAT_TOKENS = 109, 137
"""About so many tokens a document and a chat of the world have."""
CHATS_READ = 0.03
"""The share of chats in the text of the pretraining, so that none of their words is a stranger later."""
DOCUMENTS_IN_SFT, BEGINNINGS_IN_SFT = 0.1, 0.2
"""The shares of documents, and of documents' beginnings, in the text of the fine-tuning: with fewer, what was learned of
their odds drifts away."""
MOST_DOCUMENTS, MOST_CHATS = 300_000, 200_000
"""So many are drawn at most; a longer training reads them again, with what else it reads in the same shares."""
CHAT_ORDERS = (6, 20)
"""The n-grams that are asked the questions of the chats: between a question and its answer stand ten tokens of the template, so
that only the longest sees any of it."""
PROMPTS = (("en", "Today "), ("zh", "今天"))
DIALOGUES = (
    ("Hello!", "Who are you?", "3 + 4 = ?", 'Write a program that prints "kite" 3 times.', "Who wrote Faust?"),
    ("你好！", "37 * 48 = 几？", "你是谁？", "3加4等于几？", "黑洞是什么？"),
)
"""What is asked in the report, all of a line in one conversation; no chat of the training asks the last question of either."""


def quickstart(plan: Plan, *, resume: bool = False, force: bool = False) -> Results:
    """Run all stages into ``runs/NAME``; returns what was found, which is also written there."""
    with _held(plan, resume=resume, force=force):
        return _found(plan, resume=resume, force=force)


def _held(plan: Plan, *, resume: bool, force: bool) -> AbstractContextManager[None]:
    """The plan's folder, held; a quickstart has begun when its pretraining has."""
    return staged(plan.folder, plan, resume=resume, force=force, begun=PRETRAIN, world=version(plan.text))


def _found(plan: Plan, *, resume: bool, force: bool) -> Results:
    """What a quickstart finds in the folder it holds; on ``resume`` a finished one is read and not run again."""
    if resume and not force and (plan.folder / FILE).exists():
        results = read(plan.folder)
    else:
        results = _Quickstart(plan, resume=resume, force=force).run()
    return _written(results, plan.folder)


def _written(results: Results, folder: Path) -> Results:
    """The same results, with their page in the run's folder."""
    write(results, folder)
    write_text(folder / "report.html", page(results).html())
    return results


class _Quickstart:
    """The stages, and what each leaves for the next."""

    def __init__(self, plan: Plan, *, resume: bool, force: bool) -> None:
        self.plan, self.resume, self.force = plan, resume, force
        self.odds: list[Odds] = []
        self.chat_scores: list[ChatScore] = []
        self.world = plan.text is None

    def run(self) -> Results:
        torch.set_num_threads(cpu_threads())
        low = self.stage("text and n-grams" if not self.world else "world and n-grams", self.count)
        remove(self.plan.folder / FILE)  # it says that a run is finished, which one that is forced on is no more
        pretrained = self.stage("pretraining", self.pretrain, PRETRAIN)
        tuned = self.stage("fine-tuning", lambda: self.fine_tune(pretrained), SFT) if self.world else pretrained
        results = self.stage("evaluation and report", lambda: self.evaluate(low, pretrained, tuned))
        return replace(results, costs=tuple(read_costs(self.plan.folder)))

    def stage(self, name: str, work: Callable[[], Any], run: str | None = None) -> Any:
        """Do one stage, and note what it cost, with all that was spent on it before it was interrupted.

        Of a process that was killed nobody noted the time; where it trained, ``run`` is the folder whose steps still say it.
        """
        print(f"— {name}", file=sys.stderr, flush=True)
        self.tokens: int | None = None
        spent = sum(self.step_seconds(run)) if run else 0.0
        with noted(self.plan.folder, name, spent=spent, tokens=lambda: self.tokens):
            try:
                return work()
            finally:
                gc.collect()

    # text and n-grams

    def count(self) -> Climbed:
        """Draw or read the text, train the tokenizer, climb the ladder's lower rungs."""
        if self.plan.text is None:
            train = world_texts(self.plan.seed, self.plan.counted)
            held = list(islice(documents(self.plan.seed + 1000, split="heldout"), self.plan.held_out))
            self.held, self.languages = [one.text for one in held], [one.language for one in held]
        else:
            train, held = (in_pieces(texts) for texts in hold_out(read_documents(self.plan.text)))
            self.held = held[: self.plan.held_out]
            self.languages = ["text"] * len(self.held)
            if len(self.held) < len(held):
                left_out = f"of {len(held):,} pieces of held-out text the first {len(self.held):,} are measured on"
                print(f"  {left_out}; --documents says how many", file=sys.stderr, flush=True)
        self.train = train
        self.tokenizer = self.learn_tokenizer(train)

        def heard(name: str, lm: LM) -> None:
            if self.world:
                self.odds.append(order_odds(name, "bytes" if name.startswith("bytes") else "tokens", lm))

        low = climb(foot(train, self.tokenizer, heard=heard), self.held, self.languages, progress=_print_rung)
        if self.world:
            self.count_chats()
        return low

    def learn_tokenizer(self, train: list[str]) -> Tokenizer:
        """BPE on the text, and of the world on chats too, cut into words and nouns; kept in the run's folder, and read there.

        Programs get more than their share, so that a word between quotation marks is one token and can be copied as one.
        """
        texts: Iterable[str] = beginning(train, 1_000_000 if self.world else 3_000_000)
        if self.world:
            seed, most = self.plan.seed, self.plan.counted
            shown = chain(
                islice(world_chats(seed), min(3000, most)), islice(world_chats(seed, kind="programs"), min(4000, most))
            )
            contents = (message["content"] for chat in shown for message in chat.messages)
            texts = (noun for text in chain(texts, contents) for noun in cut_nouns(text))
        return learned_tokenizer(self.plan.folder, texts, self.plan.vocab_size, "world" if self.world else "cl100k", SPECIALS)

    def count_chats(self) -> None:
        """The baselines of the chats: the majority answer, and the best of the n-grams that read them."""
        known = list(islice(world_chats(self.plan.seed), min(8000, self.plan.counted)))
        self.asked = chat_eval.questions(self.plan.questions, LANGUAGES, seed=self.plan.seed + 1000)
        self.chat_scores += chat_eval.score("majority answer", "majority", chat_eval.majority(known), self.asked)
        template = ChatTemplate(CHATML, self.tokenizer)
        ids = [template.encode(chat.messages).ids for chat in known]
        ngrams = {f"{ngram.config.order}-gram of the chats": ngram for ngram in counted_ids(ids, self.tokenizer)}
        answers = {name: chat_eval.answering(LM(ngram, self.tokenizer, template)) for name, ngram in ngrams.items()}
        scores = [chat_eval.score(name, "ngram", answer, self.asked) for name, answer in answers.items()]
        self.chat_scores += chat_eval.best(scores)

    # training

    def pretrain(self) -> LM:
        """The Transformer from nothing."""
        recipe = self.pretraining()
        self.tokens = recipe.steps * recipe.batch_rows * recipe.context
        return self.trained(recipe, PRETRAIN, self.watch)

    def pretraining(self) -> Recipe:
        """The recipe of the pretraining, its steps fitted to the time."""
        plan = self.plan
        known = plan.folder / PRETRAIN / "recipe.yaml"
        if self.resume and known.exists():
            return read_recipe(str(known))
        recipe = Recipe(
            model=plan.model,
            tokenizer=Published(path=str(plan.folder / "tokenizer")),
            data=World() if plan.text is None else Text(path=str(plan.text)),
            optimizer=Optimizing(lr=plan.rates[0], adam_lr=0.005),
            schedule=Schedule(warmup=20, decay=0.6),
            seed=plan.seed,
        )
        steps = plan.steps or self.fitting_steps(recipe)
        every = max(1, steps // 5)
        tokens = min(steps * recipe.batch_rows * recipe.context, MOST_DOCUMENTS * DOCUMENT_TOKENS)
        drawn, chats = round(tokens / DOCUMENT_TOKENS), round(CHATS_READ * tokens / CHAT_TOKENS)
        data = World(documents=drawn, chats=chats) if self.world else recipe.data
        return replace(recipe, steps=steps, eval_every=every, save_every=max(every, steps // 4), data=data, keep=1)

    def fitting_steps(self, recipe: Recipe) -> int:
        """How many steps of the pretraining fit its time on this machine, at the speed that it keeps."""
        seconds, vocab_size = self.plan.seconds[0], self.tokenizer.vocab_size
        fresh = seconds_per_step(recipe, vocab_size=vocab_size)
        timed = round(MEASURED * seconds / fresh)
        kept = seconds_per_step(recipe, vocab_size=vocab_size, steps=timed) if timed > 12 else fresh
        return max(20, round(seconds / kept))

    def fine_tune(self, pretrained: LM) -> LM:
        """The same model, taught to chat."""
        plan = self.plan
        before = chat_eval.questions(max(4, plan.questions // 4), LANGUAGES, seed=plan.seed + 1000)
        chatty = LM(pretrained.model, pretrained.tokenizer, ChatTemplate(CHATML, pretrained.need_tokenizer()), name="before")
        self.chat_scores += chat_eval.score("Transformer before SFT", "before", chat_eval.answering(chatty), before)
        recipe = self.fine_tuning()
        self.tokens = recipe.steps * recipe.batch_rows * recipe.context
        return self.trained(recipe, SFT, None)

    def fine_tuning(self) -> Recipe:
        """The recipe of the fine-tuning, its steps fitted to the time."""
        plan = self.plan
        known = plan.folder / SFT / "recipe.yaml"
        if self.resume and known.exists():
            return read_recipe(str(known))
        steps = plan.sft_steps or max(20, round(self.seconds_left() / self.seconds_of_a_step()))
        share = 1 - DOCUMENTS_IN_SFT - BEGINNINGS_IN_SFT
        tokens = min(steps * 16 * 256, MOST_CHATS * CHAT_TOKENS / share)
        chats = round(share * tokens / CHAT_TOKENS)
        whole, begun = round(DOCUMENTS_IN_SFT * tokens / DOCUMENT_TOKENS), round(BEGINNINGS_IN_SFT * tokens / BEGINNING)
        return Recipe(
            model=Start(path=str(plan.folder / PRETRAIN)),
            data=WorldChats(chats=chats, documents=whole, beginnings=begun),
            # Adam takes small steady gradients as far as large ones: faster, and tokens that no chat says grow unlikely
            optimizer=Optimizing(lr=plan.rates[1], adam_lr=0.0001),
            schedule=Schedule(warmup=10, decay=0.9), average=0.5,
            steps=steps, eval_every=max(1, steps // 4), save_every=max(1, steps // 2), keep=1, seed=plan.seed,
        )  # fmt: skip

    def seconds_left(self) -> float:
        """The time of the fine-tuning: its own, or what all before it has left of the whole, but at least half of its own."""
        _, planned = self.plan.seconds
        left = 60 * self.plan.minutes - sum(cost.seconds for cost in read_costs(self.plan.folder)) - END_SECONDS
        return planned if self.plan.steps else min(planned, max(planned / 2, left))

    def seconds_of_a_step(self) -> float:
        """As the pretraining went: a machine that was measured fresh may slow down."""
        seconds = self.step_seconds(PRETRAIN)
        return sum(seconds) / len(seconds)

    def step_seconds(self, run: str) -> list[float]:
        """What each step of a training took."""
        return [row["seconds"] for row in read_metrics(self.plan.folder / run) if "seconds" in row]

    def trained(self, recipe: Recipe, name: str, watch: Any) -> LM:
        """Run a recipe inside the quickstart's folder, or go on with what is there."""
        begun = (self.plan.folder / name / "recipe.yaml").exists()
        run_recipe(recipe, name, runs=self.plan.folder, label=name, watch=watch, resume=begun, force=self.force)
        return left_to_right(load(self.plan.folder / name, device=recipe.device))

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
        high = climb(head(pretrained, world=self.world), self.held, self.languages, progress=_print_rung)
        tuned.save(self.plan.folder / "model", force=True)
        ladder = low.rungs + high.rungs
        probes: dict[str, Any] = {}
        if self.world:
            truth = left_to_right(load("world"))
            odds = [*self.odds, order_odds("Transformer", "model", tuned), order_odds("truth", "truth", truth)]
            probes["order"] = order_probe(odds, math.log(1 / FRONTED))
            probes["next"] = next_probes(truth, tuned)
            self.chat_scores += chat_eval.score("Transformer after SFT", "after", chat_eval.answering(tuned), self.asked)
            probes["dialogues"] = tuple(self.dialogue(tuned, questions) for questions in DIALOGUES)
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
            goals=self.plan.goals,
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

    def dialogue(self, lm: LM, questions: Sequence[str]) -> tuple[Turn, ...]:
        """A conversation: each question with what came before it; where the model reads no more, that is its last turn."""
        said: list[dict[str, Any]] = []
        end: tuple[Turn, ...] = ()
        for question in questions:
            said.append({"role": "user", "content": question})
            try:
                for message in lm.converse(said, max_tokens=48, calls=1):
                    said.append(message)
            except RequestError:
                length, context = len(lm.chat_ids(said)), lm.model.context
                if context is None or length < context:
                    raise
                # a model that learned little talks until its context is full
                end = (Turn(role="end", text=f"By now {length} tokens; the model reads {context}, its answer included."),)
                break
        return tuple(Turn(role=message["role"], text=shown(message)) for message in said) + end

    def history(self) -> dict[str, Any]:
        """The curves and samples that the pretraining's metrics hold."""
        rows = read_metrics(self.plan.folder / PRETRAIN)
        per_step = next(row["tokens"] for row in rows if "tokens" in row)
        looks = [row for row in rows if any(key.startswith("sample_") for key in row)]
        curves: list[Curve] = []
        for language in dict.fromkeys(self.languages):
            paid = [(row["step"], row[f"held_out_{language}"]) for row in looks]
            points = tuple((step * per_step, bits) for step, bits in paid if bits is not None)
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
            text = shlex.quote(str(self.plan.text))
            return (f"chainrule generate {run} --temperature 0.8", f"chainrule ladder {run} --text {text}")
        return (f"chainrule chat {run}", f'chainrule next {run} "今天我来到了"', f"chainrule ladder {run}")


def counted_ids(ids: list[list[int]], tokenizer: Tokenizer) -> list[NGram]:
    """The n-grams of chats that are ids already; each begins as every row does, with the begin token."""
    rows = [tokenizer.framed(chat, end=False) for chat in ids]
    levels = count_ngrams(rows, max(CHAT_ORDERS), tokenizer.vocab_size)
    return [NGram.of_levels(levels[:order], vocab_size=tokenizer.vocab_size) for order in CHAT_ORDERS]


def seeds(plan: Plan, n: int, *, resume: bool = False, force: bool = False) -> Results:
    """The same run with ``n`` seeds; the first one's results, with every seed's outcome in them.

    All folders are entered before the first seed runs: one that is in use or occupied is told at once. On ``resume`` the seeds
    that are finished are read, and the others gone on with.
    """
    if n < 1:
        raise ConfigError(f"--seeds is {n}; it must be 1 or more")
    plans = [
        replace(plan, seed=seed, name=plan.name if seed == plan.seed else f"{plan.name}-seed{seed}")
        for seed in range(plan.seed, plan.seed + n)
    ]
    with ExitStack() as held:
        for one in plans:
            held.enter_context(_held(one, resume=resume, force=force))
        found = [_found(one, resume=resume, force=force) for one in plans]
        return _written(replace(found[0], seeds=tuple(map(outcome, found))), plan.folder)


def outcome(results: Results) -> SeedResult:
    """What one seed came to."""
    from chainrule.eval.findings import accuracy, chat_scores

    model = trained(results.ladder)
    bits = {key: value for key, value in (model.bits_per_byte if model else {}).items() if value is not None}
    right = {language: accuracy(chat_scores(results, "after", language)) for language in bits}
    return SeedResult(seed=results.seed, bits_per_byte=bits, chat_accuracy={k: v for k, v in right.items() if v is not None})


def _print_rung(rung: Rung) -> None:
    bits = ", ".join(f"{key} {value:.3f}" if value is not None else f"{key} ∞" for key, value in rung.bits_per_byte.items())
    print(f"  {rung.name:<14} {bits} bits per byte", file=sys.stderr, flush=True)
