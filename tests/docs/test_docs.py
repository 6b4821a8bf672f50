"""What the docs say is so: their console examples run, their Python compiles, their links lead somewhere, in both languages."""

import json
import re
import shlex
from pathlib import Path
from statistics import mean

import pytest

from chainrule.cli import VERBS, main
from chainrule.recipes.quickstart import Plan, quickstart
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
    quickstart(
        Plan(runs=folder / "runs", steps=2, sft_steps=2, vocab_size=1000, held_out=8, questions=4, counted=400, shape=small)
    )
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_every_console_example_runs(command, place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    words = shlex.split(command)
    assert words[0] == "chainrule"
    assert main(words[1:]) == 0
    assert capsys.readouterr().out.strip()


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
    measured = json.loads((ROOT / "docs" / "results.json").read_text(encoding="utf-8"))["quickstart"]
    bits = measured["bits_per_byte"]
    above = {name: mean(bits[name][one] / bits["truth"][one] - 1 for one in ("en", "zh")) for name in bits}
    ngram = min(value for name, value in above.items() if name.endswith("gram"))
    answered = [kind for language in measured["chats"]["after"].values() for kind in language.values()]
    right, asked = (sum(kind[what] for kind in answered) for what in ("right", "asked"))
    minutes, seconds = divmod(round(measured["wall_seconds"]), 60)
    for page, time in (("README.md", f"{minutes} min {seconds} s"), ("README.zh-CN.md", f"{minutes} 分 {seconds} 秒")):
        text = (ROOT / page).read_text(encoding="utf-8")
        for number in (time, f"{above['Transformer']:.0%}", f"{ngram:.0%}", f"{right / asked:.0%}", f"{asked}"):
            assert number.replace("%", " %") in text, f"{page} does not say {number}"
