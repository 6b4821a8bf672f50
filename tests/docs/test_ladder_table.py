"""The chapter's ladder of history is what was measured, in both languages.

python -m tests.docs.test_ladder_table        the rows of the table, to put into both chapters
"""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from chainrule.core.device import format_called
from chainrule.core.schema import parse
from chainrule.eval.findings import above_truth
from chainrule.eval.history import ERAS, chosen
from chainrule.eval.results import Rung
from chainrule.pages.text import compact, fixed, percent

ROOT = Path(__file__).parents[2]
CHAPTERS = {"en": ROOT / "docs/chapters/15-ladder.md", "zh": ROOT / "docs/zh/chapters/15-ladder.md"}
ACTIVE = {"en": ", {} active", "zh": "，其中激活 {}"}


def measured() -> dict[str, Any]:
    return json.loads((ROOT / "docs" / "results.json").read_text(encoding="utf-8"))["ladder"]


def complete(entry: dict[str, Any]) -> bool:
    """Whether the trainings were kept too; then every rung must have all that the table says."""
    return "dtype" in entry


def rows(entry: dict[str, Any], language: str) -> list[list[str]]:
    """The cells of the table, as far as they were kept."""
    assert list(entry["rungs"]) == list(chosen(None))
    known = entry["rungs"]
    fields = ("name", "family", "bits_per_byte", "order", "parameters")
    rungs = {key: parse(Rung, {field: one[field] for field in fields}) for key, one in known.items()}
    found: list[list[str]] = []
    for key, rung in rungs.items():
        above = {one: above_truth(list(rungs.values()), rung, one) for one in ("zh", "en")}
        cells = [
            rung.name,
            str(ERAS[key].year or ""),
            "" if rung.parameters is None else compact(rung.parameters),
            *(fixed(rung.bits_per_byte[one]) for one in above),
            *("" if key == "truth" else percent(share, 0 if share >= 1 else 1) for share in above.values()),
        ]
        if complete(entry):
            training, active = known[key]["training"], known[key]["active"]
            if active not in (None, rung.parameters):
                cells[2] += ACTIVE[language].format(compact(active))
            cells += ["", ""] if training is None else [seconds(training["seconds"]), compact(training["tokens_per_s"])]
        found.append([cell.replace("\u202f", " ") for cell in cells])
    return found


def seconds(count: float) -> str:
    return f"{fixed(count, 1 if count < 10 else 0)} s"


def table(text: str) -> list[list[str]]:
    """The cells of a chapter's first table, without its head."""
    lines = text[text.index("\n| uniform") :].lstrip().split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize("language", CHAPTERS)
def test_the_chapter_shows_the_ladder_that_was_measured(language):
    entry, text = measured(), CHAPTERS[language].read_text(encoding="utf-8")
    said, wanted = table(text), rows(entry, language)
    if not complete(entry):
        said = [[*row[:2], re.split("[,，]", row[2])[0], *row[3:7]] for row in said]
    assert said == wanted


@pytest.mark.parametrize(("language", "tokens", "unit"), [("en", "{:.1f} million tokens", 1e6), ("zh", "{:.0f} 万词元", 1e4)])
def test_the_chapter_says_how_it_was_measured(language, tokens, unit):
    entry, text = measured(), CHAPTERS[language].read_text(encoding="utf-8")
    if not complete(entry):
        pytest.skip("the ladder in docs/results.json was kept without its trainings")
    (count,) = {one["training"]["tokens"] for one in entry["rungs"].values() if one["training"] and one["training"]["steps"]}
    above = text[: text.index("\n| uniform")].rsplit("\n\n", 2)[-2]
    assert tokens.format(count / unit) in above
    assert str(entry["held_out"]) in above
    assert format_called(entry["dtype"]) in above


if __name__ == "__main__":
    for chapter in CHAPTERS:
        print(*(f"| {' | '.join(row)} |" for row in rows(measured(), chapter)), sep="\n", end="\n\n")
