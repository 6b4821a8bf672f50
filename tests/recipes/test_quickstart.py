"""The quickstart in its smallest form: every stage runs, the report is whole, nothing is overwritten, no two runs are mixed."""

import gc
import json
import math
import re
import shutil
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice, pairwise
from pathlib import Path
from statistics import mean, stdev

import pytest
import torch
from safetensors.torch import load_file

from chainrule.cli import main
from chainrule.core.errors import ConfigError, DataError, RequestError
from chainrule.core.schema import parse
from chainrule.eval.findings import checks
from chainrule.eval.results import Goals, Results, read
from chainrule.hub.lm import LM
from chainrule.hub.load import load
from chainrule.pages.text import fixed
from chainrule.recipes import ladder
from chainrule.recipes import quickstart as recipe
from chainrule.recipes.costs import read_costs, write_costs
from chainrule.recipes.quickstart import Plan, _Quickstart, quickstart, seeds
from chainrule.tokenizers import load as load_tokenizer
from chainrule.tokenizers.byte import ByteTokenizer
from chainrule.train import run as training
from chainrule.train.material import BEGINNING
from chainrule.train.progress import Progress
from chainrule.train.recipe import Fresh
from chainrule.world import LANGUAGES, VERSION, documents, logp
from chainrule.world.texts import held_out

SMALL = Fresh(n_layers=2, d_model=32, n_heads=4, d_ff=32)
MODELS = ("pretrain/model", "sft/model", "model")


def plan(tmp_path, **more):
    settings = {
        "runs": tmp_path,
        "minutes": 20,
        "steps": 4,
        "sft_steps": 3,
        "vocab_size": 600,
        "held_out": 12,
        "questions": 4,
        "counted": 200,
        "shape": SMALL,
    }
    return Plan(**(settings | more))


@contextmanager
def stopped(label: str, step: int):
    """Stop a training hard after so many steps, before that step is saved."""
    update = Progress.update

    def stops(self, at, loss, tokens):
        update(self, at, loss, tokens)
        if (self.label, at + 1) == (label, step):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "update", stops)
        with pytest.raises(KeyboardInterrupt):
            yield


def same_models(a: Path, b: Path) -> bool:
    pairs = [(load_file(a / part / "model.safetensors"), load_file(b / part / "model.safetensors")) for part in MODELS]
    return all(one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one) for one, two in pairs)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Two threads wait for each other where other tests run beside them."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (recipe, training):
            patch.setattr(module, "cpu_threads", lambda: 1)
        yield


@pytest.fixture(scope="module", autouse=True)
def light_collections():
    """A run collects garbage between its models; what pytest and the packages hold need not be gone through each time."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return folder, quickstart(plan(folder))


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """The same run, stopped in each of its trainings; until the first stop it is said to have trained for 2000 seconds."""
    folder = tmp_path_factory.mktemp("cut")
    with stopped("pretrain", 3):
        quickstart(plan(folder))
    before = {cost.stage: cost for cost in read_costs(folder / "quickstart")}
    noted = before | {"pretraining": replace(before["pretraining"], seconds=2000.0)}
    write_costs(noted.values(), folder / "quickstart")
    with stopped("sft", 2):
        quickstart(plan(folder), resume=True)
    return folder, before, quickstart(plan(folder), resume=True)


@pytest.fixture(scope="module")
def two(done, tmp_path_factory):
    """Two seeds, the first of which was finished already."""
    folder = tmp_path_factory.mktemp("two")
    shutil.copytree(done[0] / "quickstart", folder / "quickstart")
    return folder, seeds(plan(folder), 2, resume=True)


def test_every_stage_leaves_its_numbers(done):
    _, results = done
    names = [rung.name for rung in results.ladder]
    assert names[0] == "uniform"
    assert names[-2:] == ["Transformer", "truth"]
    assert len(names) == 15
    assert {score.role for score in results.chats} == {"majority", "ngram", "before", "after"}
    assert [cost.stage for cost in results.costs] == [
        "world and n-grams",
        "pretraining",
        "fine-tuning",
        "evaluation and report",
    ]
    assert results.order is not None
    assert results.order.odds[-1].nats == pytest.approx(results.order.expected, abs=1e-3)
    assert {curve.language for curve in results.curves} == {"en", "zh"}
    assert len(results.next) == 2


def test_no_model_is_better_than_the_truth(done):
    _, results = done
    for language in ("en", "zh"):
        floor = results.ladder[-1].bits_per_byte[language]
        assert all((rung.bits_per_byte[language] or 99) >= floor for rung in results.ladder)


def test_the_run_can_be_used(done):
    folder, results = done
    assert read(folder / "quickstart") == results
    html = (folder / "quickstart" / "report.html").read_text(encoding="utf-8")
    assert "<svg" in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    lm = load(folder / "quickstart")
    assert isinstance(lm.chat([{"role": "user", "content": "3 + 4 = ?"}], max_tokens=4), str)


def test_a_finished_run_is_not_replaced_unless_asked(done):
    folder, _ = done
    with pytest.raises(ConfigError, match="exists already"):
        quickstart(plan(folder))
    with pytest.raises(ConfigError, match="steps was 4, is 5"):
        quickstart(plan(folder, steps=5), resume=True)


@pytest.mark.parametrize(("more", "because"), [({"seed": 5}, "seed was 0, is 5"), ({"steps": 5}, "steps was 4, is 5")])
def test_force_puts_no_other_settings_over_what_is_trained(done, more, because):
    folder, _ = done
    before = files(folder / "quickstart")
    mends = "go on with the same settings, choose another --name, or begin anew with --force and without --resume"
    with pytest.raises(ConfigError, match=rf"begun otherwise \({because}\); {mends}"):
        quickstart(plan(folder, **more), resume=True, force=True)
    assert files(folder / "quickstart") == before


@pytest.mark.parametrize("force", [False, True])
def test_a_run_on_another_version_of_the_world_does_not_go_on(done, tmp_path, force):
    folder = tmp_path / "quickstart"
    folder.mkdir()
    begun = json.loads((done[0] / "quickstart" / "plan.json").read_text())
    assert begun["world"] == VERSION
    older = {"world": VERSION - 1}, {}
    told = f"world was {VERSION - 1}, is {VERSION}", f"world is {VERSION}, and was not noted when it began"
    for world, because in zip(older, told, strict=True):
        settings = {key: value for key, value in begun.items() if key != "world"} | world
        (folder / "plan.json").write_text(json.dumps(settings))
        with pytest.raises(ConfigError, match=rf"begun otherwise \({because}\); go on with the chainrule that began it"):
            quickstart(plan(tmp_path), resume=True, force=force)
        assert json.loads((folder / "plan.json").read_text()) == settings


def test_a_run_that_is_gone_on_with_keeps_the_tokenizer_it_was_begun_with(done, tmp_path):
    there = Path("quickstart") / "tokenizer"
    shutil.copytree(done[0] / there, tmp_path / there)
    run = _Quickstart(plan(tmp_path, seed=5, counted=20, vocab_size=300), resume=True, force=False)
    tokenizer = run.learn_tokenizer(["other words"])
    assert files(tmp_path / there) == files(done[0] / there)
    begun = load_tokenizer(done[0] / there)
    assert (tokenizer.bos, tokenizer.eos, tokenizer.specials) == (begun.bos, begun.eos, begun.specials)
    assert tokenizer.encode("Today Tom 今天") == begun.encode("Today Tom 今天")


def test_a_finished_run_is_read_and_not_run_again(done):
    folder, results = done
    (folder / "quickstart" / "report.html").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Quickstart, "run", lambda self: pytest.fail("a finished run was run again"))
        assert quickstart(plan(folder), resume=True) == results
    assert (folder / "quickstart" / "report.html").exists()


def test_a_run_interrupted_in_each_training_goes_on_to_the_same_bits(done, cut):
    assert same_models(done[0] / "quickstart", cut[0] / "quickstart")
    assert [rung.bits_per_byte for rung in cut[2].ladder] == [rung.bits_per_byte for rung in done[1].ladder]
    assert [(score.role, score.kind, score.right) for score in cut[2].chats] == [
        (score.role, score.kind, score.right) for score in done[1].chats
    ]


def test_what_was_spent_before_an_interruption_counts(cut):
    _, before, results = cut
    costs = {cost.stage: cost for cost in results.costs}
    assert list(costs) == ["world and n-grams", "pretraining", "fine-tuning", "evaluation and report"]
    assert costs["world and n-grams"].seconds > 1.5 * before["world and n-grams"].seconds  # done three times
    assert 2000 < costs["pretraining"].seconds < 2060
    assert costs["pretraining"].tokens == 4 * 16 * 256
    assert [check.met for check in checks(results) if check.claim == "time for everything"] == [False]


def test_what_a_killed_process_spent_is_read_from_its_steps(tmp_path):
    run = tmp_path / "quickstart" / "pretrain"
    run.mkdir(parents=True)
    rows = [{"step": 0}, {"step": 1, "seconds": 100.0}, {"step": 2, "seconds": 200.0}]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows) + '{"step": 3, "sec')
    _Quickstart(plan(tmp_path), resume=True, force=False).stage("pretraining", lambda: None, "pretrain")
    assert read_costs(run.parent)[0].seconds == pytest.approx(300, abs=5)


def test_a_forced_run_that_was_interrupted_goes_on_as_itself(done, two, tmp_path):
    folder = tmp_path / "quickstart"
    shutil.copytree(two[0] / "quickstart-seed1", folder)
    with stopped("pretrain", 3):
        quickstart(plan(tmp_path), force=True)
    assert not {"sft", "model", "results.json", "report.html"} & {path.name for path in folder.iterdir()}
    again = quickstart(plan(tmp_path), resume=True)
    assert again.seed == 0
    assert same_models(folder, done[0] / "quickstart")
    assert not same_models(folder, two[0] / "quickstart-seed1")


def test_a_forced_run_that_is_refused_leaves_the_old_one(done, tmp_path):
    shutil.copytree(done[0] / "quickstart", tmp_path / "quickstart")
    before = files(tmp_path / "quickstart")
    short = tmp_path / "short.txt"
    short.write_text("The cat sat on the mat.\nThe dog ran to the park.\n" * 8)
    with pytest.raises(DataError, match="less than one context"):
        quickstart(plan(tmp_path, text=short), force=True)
    assert files(tmp_path / "quickstart") == before


def test_a_run_that_is_refused_before_any_training_leaves_nothing(tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("The cat sat on the mat.\nThe dog ran to the park.\n" * 8)
    with pytest.raises(DataError, match="less than one context"):
        quickstart(plan(tmp_path, text=short))
    assert not (tmp_path / "quickstart").exists()


def test_seeds_report_mean_and_spread(done, two):
    folder, results = two
    assert [one.seed for one in results.seeds] == [0, 1]
    assert results.seeds[0].bits_per_byte == done[1].ladder[-2].bits_per_byte
    assert results.seeds[0].bits_per_byte != results.seeds[1].bits_per_byte
    assert read(folder / "quickstart") == results
    html = (folder / "quickstart" / "report.html").read_text(encoding="utf-8")
    for language in ("en", "zh"):
        bits = [one.bits_per_byte[language] for one in results.seeds]
        assert f"{fixed(mean(bits))} ± {fixed(stdev(bits))}" in html
    assert read(folder / "quickstart-seed1").seeds == ()


def test_a_seed_that_is_finished_is_read(done, two):
    first = "quickstart/pretrain/metrics.jsonl"
    assert (two[0] / first).read_bytes() == (done[0] / first).read_bytes()


def test_a_seed_whose_folder_is_occupied_is_told_before_any_seed_runs(done, tmp_path):
    shutil.copytree(done[0] / "quickstart", tmp_path / "quickstart-seed1")
    before = files(tmp_path / "quickstart-seed1")
    with pytest.raises(ConfigError, match="quickstart-seed1 exists already"):
        seeds(plan(tmp_path), 2)
    assert not (tmp_path / "quickstart").exists()
    assert files(tmp_path / "quickstart-seed1") == before


def test_a_seed_that_cannot_be_is_refused_before_anything_is_done(tmp_path):
    for seed in (-1, 2**63):
        with pytest.raises(ConfigError, match=rf"the seed is {seed}; it must be 0 or more, and a number of 64 bits"):
            plan(tmp_path, seed=seed)
    with pytest.raises(ConfigError, match=rf"the seed is {2**63}; it must be"):
        seeds(plan(tmp_path, seed=2**63 - 2), 3)
    assert list(tmp_path.iterdir()) == []


def test_an_hour_is_judged_by_the_goals_of_an_hour(done):
    _, results = done
    assert Plan().goals == Goals()
    assert results.goals == Goals(seconds=20 * 60)
    hour = {check.claim: check.goal for check in checks(replace(results, goals=Plan(minutes=60).goals))}
    assert hour["time for everything"] == "≤ 1 h 00 min"
    assert hour["Transformer above the truth"] == "≤ 3\u202f%"
    page = (done[0] / "quickstart" / "report.html").read_text(encoding="utf-8")
    assert "≤ 20 min" in page


def test_the_users_own_text_takes_the_same_road(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("The cat sat on the mat.\nThe dog ran to the park and sat there too.\n" * 120)
    results = quickstart(plan(tmp_path, name="mine", text=text))
    assert results.world is None
    assert json.loads((tmp_path / "mine" / "plan.json").read_text())["world"] is None
    assert [rung.family for rung in results.ladder][-1] == "model"
    assert not results.chats
    assert (tmp_path / "mine" / "report.html").exists()
    assert main(["generate", str(tmp_path / "mine"), "The", "--max-tokens", "3"]) == 0


def test_of_a_long_text_a_part_is_counted_and_measured_and_that_is_said(tmp_path, capsys, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("The cat sat on the mat.\nThe dog ran to the park and sat there too.\n" * 1200)
    monkeypatch.setattr(ladder, "MOST_BYTES", 3000)
    monkeypatch.setattr(ladder, "MOST_TOKENS", 4000)
    run = _Quickstart(plan(tmp_path, text=text, held_out=2), resume=False, force=False)
    run.count()
    told = capsys.readouterr().err
    assert "n-grams of bytes count the first 3,000 of the text alone" in told
    assert "n-grams of tokens count the first 4,000 of the text alone" in told
    assert "of 3 pieces of held-out text the first 2 are measured on; --documents says how many" in told
    assert len(run.held) == len(run.languages) == 2


def test_n_grams_count_the_beginning_of_a_text(monkeypatch, capsys):
    monkeypatch.setattr(ladder, "MOST_BYTES", 40)
    monkeypatch.setattr(ladder, "MOST_TOKENS", 60)
    counted = {}
    texts = ["the cat sat on the mat.\n"] * 9  # a begin, 24 bytes and an end
    rungs = ladder.foot(texts, ByteTokenizer(), orders=(1,), heard=lambda name, lm: counted.update({name: lm.model}))
    for rung in rungs:
        rung.measure(["the cat"], ["text"])
    found = {name: int(model.counts_1.sum()) for name, model in counted.items()}  # no begin is counted
    assert found == {"bytes 1-gram": 2 * 25, "tokens 1-gram": 2 * 25 + 7}
    assert len(capsys.readouterr().err.splitlines()) == 2
    ladder.foot(texts[:1], ByteTokenizer(), orders=(1,))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("steps", "documents", "chats", "tuned"),
    [(400, 15031, 359, (8371, 1503, 27_307)), (60_000, 300_000, 7161, (200_000, 35_911, 652_381))],
)
def test_the_shares_of_what_is_read_are_the_same_however_long_a_run_is(tmp_path, steps, documents, chats, tuned):
    run = _Quickstart(plan(tmp_path, steps=steps, sft_steps=steps), resume=False, force=False)
    read, spoken = run.pretraining().data, run.fine_tuning().data
    assert (read.documents, read.chats) == (documents, chats)
    assert (spoken.chats, spoken.documents, spoken.beginnings) == tuned
    assert read.chats * recipe.CHAT_TOKENS / (read.documents * recipe.DOCUMENT_TOKENS) == pytest.approx(0.03, rel=2e-3)
    tokens = spoken.chats * recipe.CHAT_TOKENS, spoken.documents * recipe.DOCUMENT_TOKENS, spoken.beginnings * BEGINNING
    assert [one / sum(tokens) for one in tokens] == pytest.approx([0.7, 0.1, 0.2], rel=2e-3)


def test_results_are_plain_json(done):
    folder, _ = done
    json.loads((folder / "quickstart" / "results.json").read_text(encoding="utf-8"))


def test_the_verb_does_what_it_is_told_and_prints_what_it_found(tmp_path, capsys):
    """How many documents were counted shows in the table of bigrams: ids and counts of all bytes, and of all pairs."""
    told = "--steps 2 --sft-steps 2 --documents 4 --questions 4 --counted 60 --seed 1 --name tiny --json"
    assert main(["quickstart", *told.split(), "--runs", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert parse(Results, found) == read(tmp_path / "tiny")
    assert (found["name"], found["seed"]) == ("tiny", 1)
    assert (tmp_path / "tiny" / "report.html").exists()
    tokens = {cost["stage"]: cost["tokens"] for cost in found["costs"]}
    assert (tokens["pretraining"], tokens["fine-tuning"]) == (2 * 16 * 256, 2 * 16 * 256)
    asked: Counter[tuple[str, str]] = Counter()
    for score in found["chats"]:
        asked[score["role"], score["language"]] += score["asked"]
    assert asked == {(role, language): 4 for role in ("majority", "ngram", "before", "after") for language in LANGUAGES}
    counted = [[256, *one.text.encode(), 256] for one in islice(documents(1), 60)]
    pairs = {pair for ids in counted for pair in pairwise(ids)}
    assert {rung["name"]: rung["parameters"] for rung in found["ladder"]}["bytes 2-gram"] == 2 * (257 + len(pairs))
    held = list(islice(documents(1001, split="heldout"), 4))
    for language in LANGUAGES:
        spoken = [one.text for one in held if one.language == language]
        bits = -sum(map(logp, spoken)) / math.log(2)
        assert found["ladder"][-1]["bits_per_byte"][language] == pytest.approx(bits / sum(len(t.encode()) for t in spoken))


def test_the_verb_runs_several_seeds_and_says_their_mean_and_spread(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("The cat sat on the mat.\nThe dog ran to the park and sat there too.\n" * 120)
    told = "--steps 2 --seed 3 --seeds 2 --name mine"
    assert main(["quickstart", "--text", str(text), *told.split(), "--runs", str(tmp_path)]) == 0
    tables = capsys.readouterr().out.split("\n\n")
    first, second = (read(tmp_path / name).ladder[-1].bits_per_byte["text"] for name in ("mine", "mine-seed4"))
    assert first != second
    head, _, *rows = next(table for table in tables if table.startswith("seed ")).splitlines()
    assert head.split() == ["seed", "bits/byte", "the", "text"]
    middle, half = (first + second) / 2, abs(first - second) / math.sqrt(2)  # of two numbers, the standard deviation
    assert [row.split(maxsplit=1) for row in rows] == [
        ["3", fixed(first)], ["4", fixed(second)], ["mean", f"{fixed(middle)} ± {fixed(half)}"]
    ]  # fmt: skip


def test_the_report_ends_each_conversation_with_a_question_that_no_chat_of_the_training_asks():
    for *before, last in recipe.DIALOGUES:
        assert held_out(f"decline:{last}")
        assert not any(held_out(f"decline:{question}") for question in before)


def test_a_conversation_remembers_itself_and_ends_where_the_model_reads_no_more(done, tmp_path):
    lm = load(done[0] / "quickstart" / "model")
    turns = _Quickstart(plan(tmp_path), resume=True, force=False).dialogue(lm, ["Hello!"] * 40)
    asked = [i for i, turn in enumerate(turns) if turn.role == "user"]
    assert 2 <= len(asked) < 40
    before = [{"role": turn.role, "content": turn.text} for turn in turns[: asked[1] + 1]]
    reply = next(iter(lm.converse(before, max_tokens=48, calls=1)))
    assert turns[asked[1] + 1].text == reply["content"]
    *_, last, end = turns
    assert (last.role, end.role) == ("user", "end")  # the question that was not answered is shown too
    told = re.fullmatch(r"By now (\d+) tokens; the model reads 256, its answer included\.", end.text)
    assert told is not None
    assert int(told[1]) >= 256


def test_a_conversation_that_fits_ends_with_its_last_answer_and_what_else_is_refused_is_told(done, tmp_path):
    lm = load(done[0] / "quickstart" / "model")
    run = _Quickstart(plan(tmp_path), resume=True, force=False)
    first, *_, last = run.dialogue(lm, ["Hello!"])
    assert (first.role, last.role) == ("user", "assistant")
    with pytest.raises(RequestError, match="has no chat template"):
        run.dialogue(LM(lm.model, lm.tokenizer, name="untaught"), ["Hello!"])
