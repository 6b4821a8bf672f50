"""What the docs say is so: their console examples run, their Python compiles and the readmes' does what they say, their links
lead somewhere, in both languages."""

import ast
import gc
import json
import re
import shlex
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from chainrule import world
from chainrule.cli import VERBS, main
from chainrule.hub.load import load
from chainrule.recipes import quickstart as recipe
from chainrule.recipes.quickstart import Plan, quickstart
from chainrule.train import run as training
from chainrule.train.recipe import Fresh

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
COMMANDS = sorted(
    {
        line.removeprefix("$ ")
        for page in PAGES
        for block in re.findall(r"```console\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
        for line in block.splitlines()
        if line.startswith("$ ")
    }
)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder as the docs think of it: docs/ and a finished quickstart."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "docs").symlink_to(ROOT / "docs")
    small = Fresh(n_layers=2, d_model=32, n_heads=4, d_ff=32)
    gc.freeze()  # a run collects garbage between its models; what pytest and the packages hold need not be gone through
    with pytest.MonkeyPatch.context() as patch:
        for module in (recipe, training):  # two threads wait for each other where other tests run beside them
            patch.setattr(module, "cpu_threads", lambda: 1)
        quickstart(
            Plan(runs=folder / "runs", steps=2, sft_steps=2, vocab_size=1000, held_out=8, questions=4, counted=400, shape=small)
        )
    gc.unfreeze()
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_every_console_example_runs(command, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    words = shlex.split(command)
    assert words[0] == "chainrule"
    assert main(words[1:]) == 0
    assert capsys.readouterr().out.strip()


def python(page: str) -> str:
    """The one block of Python of a page."""
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    return block


def lived(block: str) -> tuple[dict[str, Any], list[Any]]:
    """The names that a block of Python leaves, and the values of the lines in it that are expressions."""
    names: dict[str, Any] = {}
    values: list[Any] = []
    for line in ast.parse(block).body:
        if isinstance(line, ast.Expr):
            values.append(eval(compile(ast.Expression(line.value), "page", "eval"), names))
        else:
            exec(compile(ast.Module([line], []), "page", "exec"), names)
    return names, values


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_ten_lines_of_the_readme_do_what_they_say(readme, place, tmp_path, monkeypatch):
    (tmp_path / "runs").symlink_to(place / "runs")
    (tmp_path / "my_text.txt").write_text("Tom has 3 apples. " * 20)
    monkeypatch.chdir(tmp_path)
    assert sum(bool(line) for line in python(readme).splitlines()) == 10
    names, (score, following, said, reply, saved, logp) = lived(python(readme))
    assert score.total == pytest.approx(sum(score.logp))
    assert score.bits_per_byte > 0
    assert len(following) == 5
    assert all(0 < p < 1 for _, p in following)
    assert all(isinstance(words, str) for words in (said, reply))
    assert load(saved).score("Tom").total == names["lm"].score("Tom").total
    document = next(world.documents(0))
    assert logp == pytest.approx(document.logp)
    assert names["truth"].score(document.text, end=True).total == pytest.approx(logp, abs=1e-3)
    after_a = names["bigram"].next("Tom ha", 2)  # half of the letters a are in has, half in apples
    assert dict(after_a) == pytest.approx({"s": 0.5, "p": 0.5}, abs=0.05)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_examples_compile_and_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        compile(block, str(page), "exec")
    for link in re.findall(r"\]\(([^)#]+)", text):
        assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"


def test_every_page_for_users_exists_in_both_languages():
    english = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs" / "chapters").glob("*.md")}
    chinese = {path.relative_to(ROOT / "docs" / "zh") for path in (ROOT / "docs" / "zh" / "chapters").glob("*.md")}
    assert english == chinese
    assert (ROOT / "README.zh-CN.md").exists()
    assert (ROOT / "docs" / "zh" / "tour.md").exists()


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_the_readme_names_every_verb(readme):
    text = (ROOT / readme).read_text(encoding="utf-8")
    assert all(f"`{verb}`" in text or f"chainrule {verb}" in text for verb in VERBS)


def test_the_readmes_say_what_was_measured():
    """The minutes by the clock, the best n-gram, the distance to the truth and the share of right answers, in both languages."""
    results = json.loads((ROOT / "docs" / "results.json").read_text(encoding="utf-8"))
    measured, hour = results["quickstart"], results["quickstart of an hour"]["bits_per_byte"]
    bits = measured["bits_per_byte"]
    above = {name: mean(bits[name][one] / bits["truth"][one] - 1 for one in ("en", "zh")) for name in bits}
    in_an_hour = mean(hour["Transformer"][one] / hour["truth"][one] - 1 for one in ("en", "zh"))
    ngram = min(value for name, value in above.items() if name.endswith("gram"))
    answered = [kind for language in measured["chats"]["after"].values() for kind in language.values()]
    right, asked = (sum(kind[what] for kind in answered) for what in ("right", "asked"))
    minutes, seconds = divmod(round(measured["wall_seconds"]), 60)
    for page, time in (("README.md", f"{minutes} min {seconds} s"), ("README.zh-CN.md", f"{minutes} 分 {seconds} 秒")):
        text = (ROOT / page).read_text(encoding="utf-8")
        for number in (
            time,
            f"{in_an_hour:.0%}",
            f"{above['Transformer']:.0%}",
            f"{ngram:.0%}",
            f"{right / asked:.0%}",
            f"{asked}",
        ):
            assert number.replace("%", " %") in text, f"{page} does not say {number}"


def test_what_a_proof_keeps_stands_in_the_results_and_nothing_else_does():
    """A proof that was written and never run is seen, and so are numbers that no proof writes any more."""
    proofs = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py") if path != Path(__file__)]
    kept = {name for text in proofs for name in re.findall(r'keep_measured\(\s*"([^"]+)"', text)}
    assert len(kept) >= 8
    results = set(json.loads((ROOT / "docs" / "results.json").read_text(encoding="utf-8")))
    assert results - {"quickstart", "quickstart of an hour"} == kept, "make prove writes docs/results.json"
