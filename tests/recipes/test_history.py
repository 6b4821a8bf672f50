"""The ladder of history in its smallest form: every rung stands in its place, and what is done is not done again."""

import json
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from chainrule.core.device import pick_device
from chainrule.core.errors import CheckpointError, ConfigError
from chainrule.eval.bpb import measure
from chainrule.eval.history import BRANCHES, ERAS, NEURAL, average, chosen, notes, read, slips, verdict
from chainrule.hub.load import load
from chainrule.models.ngram import NGram
from chainrule.pages.text import percent
from chainrule.recipes import history as recipe
from chainrule.recipes import ladder
from chainrule.recipes.costs import machine, read_costs
from chainrule.recipes.eras import Shape, recipes, size
from chainrule.recipes.history import Plan, commands, history
from chainrule.tokenizers import load as load_tokenizer
from chainrule.world import VERSION, documents

SMALL = Shape(d_model=32, n_layers=2, n_heads=2, context=64, batch_rows=4)


def plan(folder, **more):
    settings = {"runs": folder, "steps": 2, "held_out": 4, "documents": 120, "vocab_size": 600, "shape": SMALL, "threads": 1}
    return Plan(**(settings | more))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return folder, history(plan(folder))


def test_every_rung_stands_where_history_has_it(done):
    _, found = done
    assert [one.key for one in found.milestones] == list(chosen(None)) == [key for key in ERAS if key not in BRANCHES]
    names = [one.rung.name for one in found.milestones]
    assert names[:3] == ["uniform", "unigram", "bigram"]
    assert names[3].startswith("Kneser–Ney ")
    assert names[4:] == ["neural 8-gram", "RNN", "LSTM", "Transformer", "LLaMA", "MoE", "truth"]
    years = [era.year for era in ERAS.values() if era.year]
    assert years == sorted(years)


def test_every_model_says_its_size_its_time_and_its_speed(done):
    _, found = done
    for one in found.milestones:
        if one.key in ("uniform", "truth"):
            assert one.training is None
            continue
        assert one.rung.parameters
        assert one.training.seconds > 0
        assert one.training.tokens_per_s == pytest.approx(one.training.tokens / one.training.seconds)
    tokens = {one.training.tokens for one in found.milestones if one.key in NEURAL}
    assert tokens == {2 * 4 * 64}
    counted = {one.training.tokens for one in found.milestones if one.key in ("unigram", "bigram", "kneser-ney")}
    assert len(counted) == 1
    assert {one.training.steps for one in found.milestones if one.key in NEURAL} == {2}
    assert found.seconds >= sum(one.seconds for one in found.milestones)


def test_n_grams_are_counted_once_and_are_those_of_each_order(tmp_path, monkeypatch):
    real, calls = recipe.counted, []
    monkeypatch.setattr(recipe, "counted", lambda *args: calls.append(args) or real(*args))
    found = history(plan(tmp_path, rungs=("unigram", "bigram", "kneser-ney")))
    ((ids, order, vocab_size),) = calls
    assert order == 6
    held = list(islice(documents(1000, split="heldout"), 4))
    texts, languages = [one.text for one in held], [one.language for one in held]
    tokenizer = load_tokenizer(tmp_path / "ladder" / "tokenizer")
    for one in found.milestones:
        alone = NGram.fit([row.astype("int64") for row in ids], order=one.rung.order, vocab_size=vocab_size)
        assert one.rung.bits_per_byte == pytest.approx(measure(alone, tokenizer, texts, languages).by_language, rel=1e-6)


def test_no_rung_pays_less_than_the_truth(done):
    _, found = done
    *rungs, floor = found.rungs
    assert all(rung.bits_per_byte[language] > floor.bits_per_byte[language] for rung in rungs for language in ("en", "zh"))
    assert found.floor is not None
    assert all(bits > found.floor for one in found.milestones for _, bits in one.curve)


def test_the_run_can_be_read_used_and_looked_at(done):
    folder, found = done
    assert read(folder / "ladder") == found
    html = (folder / "ladder" / "report.html").read_text(encoding="utf-8")
    assert html.count("<svg") >= 3
    assert all(rung.name in html for rung in found.rungs)
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert isinstance(load(folder / "ladder" / "lstm").generate("Tom", max_tokens=2), str)
    table, *_ = found.text().split("\n\n")
    assert len(table.splitlines()) == 2 + len(chosen(None))


@pytest.mark.parametrize("vocab_size", [1000, 2048])
@pytest.mark.parametrize("shape", [SMALL, Shape()])
def test_all_neural_rungs_are_of_one_size(shape, vocab_size):
    sizes = {key: size(one, vocab_size) for key, one in recipes(shape, vocab_size).items()}
    wanted = sizes["transformer"]
    assert all(sizes[key] == pytest.approx(wanted, rel=0.05) for key in ("neural-ngram", "rnn", "lstm", "llama", *BRANCHES))
    assert sizes["moe"] > 1.1 * wanted


def test_a_mixture_meets_as_many_parameters_as_the_others_have(done):
    _, found = done
    mixture, llama = found.milestone("moe"), found.milestone("llama")
    assert mixture.active == pytest.approx(llama.rung.parameters, rel=0.05)
    assert mixture.rung.parameters > 1.3 * mixture.active
    assert llama.active == llama.rung.parameters


def test_a_finished_rung_is_read_and_not_trained_again(done, monkeypatch):
    folder, found = done
    monkeypatch.setattr(recipe, "run_recipe", lambda *args, **more: pytest.fail("a finished rung was trained again"))
    monkeypatch.setattr(recipe, "counted", lambda *args, **more: pytest.fail("a finished rung was counted again"))
    again = history(plan(folder), resume=True)
    assert again.milestones == found.milestones


def test_a_run_killed_midway_goes_on_with_the_rung_it_was_in(tmp_path, monkeypatch):
    some = ("unigram", "rnn", "lstm")
    whole = history(plan(tmp_path, name="whole", rungs=some, steps=4))
    look = recipe._Ladder.watch

    def killed(self, model, tokenizer):
        if (tmp_path / "cut" / "lstm" / "checkpoints").exists():
            raise KeyboardInterrupt
        return look(self, model, tokenizer)

    with monkeypatch.context() as patch:
        patch.setattr(recipe._Ladder, "watch", killed)
        with pytest.raises(KeyboardInterrupt):
            history(plan(tmp_path, name="cut", rungs=some, steps=4))
    before = (tmp_path / "cut" / "rnn" / "metrics.jsonl").stat().st_mtime_ns
    assert not (tmp_path / "cut" / "done" / "lstm.json").exists()
    cut = history(plan(tmp_path, name="cut", rungs=some, steps=4), resume=True)
    assert (tmp_path / "cut" / "rnn" / "metrics.jsonl").stat().st_mtime_ns == before
    assert [rung.bits_per_byte for rung in cut.rungs] == [rung.bits_per_byte for rung in whole.rungs]
    assert cut.milestone("lstm").training.tokens == whole.milestone("lstm").training.tokens


def test_a_finished_run_is_not_replaced_unless_asked(done):
    folder, _ = done
    with pytest.raises(ConfigError, match="exists already"):
        history(plan(folder))
    with pytest.raises(ConfigError, match="steps was 2, is 5"):
        history(plan(folder, steps=5), resume=True)


@pytest.mark.parametrize("written", ['{"kin', "[1]"])
def test_a_damaged_plan_is_told(tmp_path, written):
    (tmp_path / "ladder").mkdir()
    (tmp_path / "ladder" / "plan.json").write_text(written)
    with pytest.raises(CheckpointError, match="is damaged"):
        history(plan(tmp_path), resume=True)


def test_a_run_of_another_kind_is_never_replaced(tmp_path):
    (tmp_path / "quickstart").mkdir()
    (tmp_path / "quickstart" / "plan.json").write_text("{}")
    with pytest.raises(ConfigError, match="another kind of run than history"):
        history(plan(tmp_path, name="quickstart"), force=True)
    assert (tmp_path / "quickstart" / "plan.json").exists()


def test_a_users_own_text_has_no_truth(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("The cat sat on the mat.\nThe dog ran to the park and sat there too.\n" * 150)
    found = history(plan(tmp_path, text=text, rungs=("bigram", "transformer"), steps=2))
    assert [one.key for one in found.milestones] == ["bigram", "transformer"]
    assert found.floor is None
    assert list(found.rungs[0].bits_per_byte) == ["text"]
    assert "nobody knows the truth" in (tmp_path / "ladder" / "report.html").read_text(encoding="utf-8")


def test_of_a_long_text_a_part_is_counted_and_measured_and_that_is_said(tmp_path, capsys, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("The cat sat on the mat.\nThe dog ran to the park and sat there too.\n" * 1200)
    for module in (ladder, recipe):
        monkeypatch.setattr(module, "MOST_TOKENS", 4000)
    found = history(plan(tmp_path, text=text, rungs=("unigram", "bigram"), held_out=2))
    told = capsys.readouterr().err
    assert told.count("n-grams of tokens count the first 4,000 of the text alone") == 1
    assert "of 3 pieces of held-out text the first 2 are measured on; --documents says how many" in told
    assert found.held_out == 2
    assert {one.training.tokens for one in found.milestones} == {4000}
    assert " --documents 2 " in found.commands[0]


def test_all_that_was_spent_before_an_interruption_counts(tmp_path, monkeypatch):
    some = {"rungs": ("unigram", "bigram"), "vocab_size": 500, "documents": 60, "held_out": 2}
    look = recipe._Ladder.counted

    def stopped(self, key, order):
        if key == "bigram":
            time.sleep(0.3)
            raise KeyboardInterrupt
        return look(self, key, order)

    with monkeypatch.context() as patch:
        patch.setattr(recipe._Ladder, "counted", stopped)
        with pytest.raises(KeyboardInterrupt):
            history(plan(tmp_path, **some))
    found = history(plan(tmp_path, **some), resume=True)
    assert found.milestone("bigram").seconds >= 0.3
    assert found.seconds == pytest.approx(sum(cost.seconds for cost in read_costs(tmp_path / "ladder")))


def test_the_machine_is_the_one_that_was_asked_for(done):
    _, found = done
    assert (found.machine.device, found.machine.threads) == (str(pick_device()), 1)
    assert machine("cpu", "pure_bf16", 3).dtype == "pure_bf16"
    assert (machine("cpu", "bf16", 3).dtype, machine("cpu", "fp32").dtype) == ("bfloat16", "float32")
    assert machine("cpu", "fp32", 3).threads == 3


def test_a_text_too_short_to_learn_from_is_refused_and_leaves_nothing(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("ab cd\nef gh\nij kl\nmn op\nqr st\n")
    with pytest.raises(ValueError, match="less than the 64 of a row"):
        history(plan(tmp_path, text=text, rungs=("bigram",)))
    assert not (tmp_path / "ladder").exists()


def test_a_ladder_out_of_order_says_so(done):
    _, found = done
    uniform, unigram, bigram = found.milestones[:3]
    ordered = replace(found, milestones=(uniform, unigram, bigram))
    assert slips(ordered) == []
    assert verdict(ordered).startswith("In order: ")
    worse = replace(found, milestones=(uniform, bigram, unigram))
    (slip,) = slips(worse)
    more = average(unigram.rung) / average(bigram.rung) - 1
    assert str(slip) == f"unigram pays more than bigram in English and 中文, {percent(more)} in the mean"
    assert verdict(worse) == f"Not in order: {slip}."


@pytest.mark.parametrize(
    ("bits", "said"),
    [
        ({"en": 0.9, "zh": 1.0}, "In order: every rung pays at most as much as the one before it, in every language."),
        ({"en": 0.9, "zh": 1.1}, "In order in the mean of the languages: b pays more than a in 中文."),
        (
            {"en": 0.99, "zh": 1.04},
            "In order up to what two trainings of one model differ by, 2.0 %: b pays more than a in 中文, 1.5 % in the mean.",
        ),
        ({"en": 1.0, "zh": 1.1}, "Not in order: b pays more than a in 中文, 5.0 % in the mean."),
    ],
)
def test_the_order_is_told_as_finely_as_trainings_allow(bits, said, done):
    _, found = done
    a, b = (
        replace(one, rung=replace(one.rung, name=name, bits_per_byte=paid))
        for one, name, paid in zip(found.milestones[1:], "ab", ({"en": 1.0, "zh": 1.0}, bits), strict=False)
    )
    assert verdict(replace(found, milestones=(a, b))).replace("\u202f", " ") == said


def test_rungs_are_chosen_by_name_in_the_order_of_history():
    assert chosen("lstm, unigram") == ("unigram", "lstm")
    assert chosen(None, branches=True) == tuple(ERAS)
    assert chosen(None, branches=True, known=False) == tuple(ERAS)[:-1]
    assert chosen("t5") == ("t5",)
    assert chosen("llama,unigram", branches=True) == ("unigram", *BRANCHES, "llama")
    assert not set(BRANCHES) & set(chosen(None))


@pytest.fixture(scope="module")
def branched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return folder, history(plan(folder, rungs=("bigram", *BRANCHES, "truth"), vocab_size=500, documents=60))


def test_the_branches_stand_beside_the_line_on_the_same_scale(branched):
    _, found = branched
    assert [one.rung.name for one in found.milestones] == ["bigram", "GRU", "Encoder–decoder", "BERT", "T5", "truth"]
    *rungs, floor = found.rungs
    assert all(rung.bits_per_byte[language] > floor.bits_per_byte[language] for rung in rungs for language in ("en", "zh"))
    tokens = {key: found.milestone(key).training.tokens for key in BRANCHES}
    assert tokens["bert"] == tokens["gru"] == 2 * 4 * 64
    assert tokens["t5"] == tokens["encoder-decoder"] == pytest.approx(tokens["bert"], rel=0.4)
    assert len(found.milestone("t5").curve) > 1
    assert not found.milestone("bert").curve  # every token costs it a pass
    assert any(note.startswith("Beside the line") for note in notes(found))
    if not slips(found):
        assert verdict(found).startswith("In order: every rung of the line pays")
    assert "active" not in found.text()  # no mixture is here


def test_other_rungs_are_not_forced_onto_what_was_begun(tmp_path):
    settings = {"vocab_size": 500, "documents": 60, "held_out": 2}
    history(plan(tmp_path, rungs=("unigram",), **settings))
    assert json.loads((tmp_path / "ladder" / "plan.json").read_text())["world"] == VERSION
    with pytest.raises(ConfigError, match=r"rungs was \['unigram'\], is \['bert'\]"):  # its tokenizer has no [MASK]
        history(plan(tmp_path, rungs=("bert",), **settings), resume=True, force=True)


def test_a_branch_that_pays_more_breaks_no_order(branched):
    _, found = branched
    bigram, _, _, bert, _, floor = found.milestones
    worse = replace(bert, rung=replace(bert.rung, bits_per_byte={"en": 9.0, "zh": 9.0}))
    assert slips(replace(found, milestones=(bigram, worse, floor))) == []


def test_a_finished_branch_is_read_and_its_model_works(branched):
    folder, found = branched
    again = history(plan(folder, rungs=("bigram", *BRANCHES, "truth"), vocab_size=500, documents=60), resume=True)
    assert again.milestones == found.milestones
    assert load(folder / "ladder" / "bert").fill("Tom [MASK]")
    assert isinstance(load(folder / "ladder" / "t5").generate("Tom", max_tokens=2), str)


def test_steps_are_measured_for_every_way_of_reading(tmp_path):
    found = history(plan(tmp_path, rungs=("bert", "t5"), steps=None, minutes=0.02, vocab_size=500, documents=60, held_out=2))
    steps = json.loads((tmp_path / "ladder" / "steps.json").read_text())["steps"]
    assert found.milestone("bert").training.tokens == steps * 4 * 64


def test_the_ladder_for_machines_is_json(done):
    folder, found = done
    data = json.loads((folder / "ladder" / "ladder.json").read_text(encoding="utf-8"))
    assert data["milestones"][6]["key"] == "lstm"
    assert data["milestones"][6]["training"]["seconds"] == found.milestone("lstm").training.seconds


def test_what_to_type_again_says_only_what_is_not_usual(tmp_path):
    usual, *asks = commands(Plan())
    assert usual == "chainrule ladder --name ladder --force"
    assert asks[0] == "chainrule compare runs/ladder/llama runs/ladder/moe"
    again, *_ = commands(Plan(held_out=50, device="cpu", precision="fp32"))
    assert again == "chainrule ladder --documents 50 --device cpu --dtype fp32 --name ladder --force"
    again, *asks = commands(Plan(text=Path("my book.txt"), rungs=chosen(None, known=False), seed=3, runs=Path("my runs")))
    assert again == "chainrule ladder --text 'my book.txt' --seed 3 --runs 'my runs' --name ladder --force"
    assert asks == ["chainrule generate 'my runs/ladder/moe' --temperature 0.8"]  # both have read the text
