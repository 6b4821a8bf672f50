"""The folder of a run of many stages: what was there is whole after a refusal and after a kill, and gone after a run."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from chainrule.core.errors import ConfigError, DataError
from chainrule.recipes import ablation, history, quickstart
from chainrule.recipes import staged as recipe
from chainrule.recipes.staged import staged


@dataclass(frozen=True, kw_only=True)
class Plan:
    kind: Literal["toy"] = "toy"
    runs: Path = Path("runs")
    steps: int = 1
    rungs: tuple[str, ...] = field(default=("a", "b"))


def held(folder: Path, steps: int = 1, *, resume: bool = False, force: bool = False):
    return staged(folder, Plan(steps=steps), resume=resume, force=force)


def done(folder: Path, text: str) -> None:
    """What a stage leaves."""
    (folder / "done").mkdir(exist_ok=True)
    (folder / "done" / "stage").write_text(text)


def refused(folder: Path, stages: Callable[[Path], object]) -> None:
    """A forced run that does so much before it is refused."""
    with held(folder, 2, force=True):
        stages(folder)
        raise DataError("the text is too short")


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def finished(tmp_path) -> Path:
    folder = tmp_path / "run"
    with held(folder):
        done(folder, "one")
        (folder / "report.html").write_text("one")
    return folder


def test_a_forced_run_finds_an_empty_folder_and_leaves_nothing_of_the_old_one(finished):
    with held(finished, 2, force=True):
        assert set(files(finished)) >= {".lock", "plan.json"}
        assert not (finished / "done").exists()
        assert not (finished / "report.html").exists()
        done(finished, "two")
    assert set(files(finished)) == {".lock", "plan.json", "done/stage"}
    assert '"steps": 2' in (finished / "plan.json").read_text()


def test_a_forced_run_that_is_refused_gives_back_what_it_was_to_replace(finished):
    before = files(finished)
    with pytest.raises(DataError, match="too short"):
        refused(finished, lambda folder: [(folder / name).write_text("two") for name in ("tokenizer", "report.html")])
    assert files(finished) == before


def test_a_forced_run_that_fails_after_it_began_stays_as_it_is(finished):
    with pytest.raises(DataError, match="too short"):
        refused(finished, lambda folder: done(folder, "two"))
    assert files(finished)["done/stage"] == "two"


def test_what_was_interrupted_goes_on_as_itself(finished):
    with pytest.raises(KeyboardInterrupt), held(finished, 2, force=True):
        raise KeyboardInterrupt
    with pytest.raises(ConfigError, match="steps was 2, is 1"), held(finished, 1, resume=True):
        pass
    with held(finished, 2, resume=True):
        assert not (finished / "done").exists()


def test_a_run_that_goes_on_asks_for_what_it_was_begun_with_though_it_is_forced(finished):
    before = files(finished)
    with pytest.raises(ConfigError, match="steps was 1, is 2"), held(finished, 2, resume=True, force=True):
        pass
    other = staged(finished, Plan(), resume=True, force=True, world=2)
    with pytest.raises(ConfigError, match=r"\(world was None, is 2\); go on with the chainrule that began it"), other:
        pass
    assert files(finished) == before
    with held(finished, 1, resume=True, force=True):
        assert files(finished) == before


@pytest.mark.parametrize("kind", [history.Plan, ablation.Plan, quickstart.Plan])
def test_a_run_on_a_users_text_goes_on_with_that_text_alone(tmp_path, kind):
    text = tmp_path / "texts"
    text.mkdir()
    (text / "a.txt").write_text("ab")
    (text / "b.txt").write_text("c")
    plan = kind(text=text, **({"rungs": ("unigram",)} if kind is history.Plan else {}))
    folder = tmp_path / "run"
    with staged(folder, plan, resume=False, force=False):
        done(folder, "one")
    before = files(folder)
    with staged(folder, plan, resume=True, force=False):
        pass
    (text / "a.txt").write_text("a")
    (text / "b.txt").write_text("bc")  # the same letters, cut elsewhere
    for force in (False, True):
        changed = staged(folder, plan, resume=True, force=force)
        with pytest.raises(ConfigError, match=r"\(the text holds other words now\); go on with the text as it was"), changed:
            pass
    assert files(folder) == before
    noted = json.loads(before["plan.json"])
    (folder / "plan.json").write_text(json.dumps({key: value for key, value in noted.items() if key != "text_sha256"}))
    older = staged(folder, plan, resume=True, force=False)
    with pytest.raises(ConfigError, match=r"was not noted when it began\); go on with the chainrule that began it"), older:
        pass


@pytest.mark.parametrize("moved", [1, 2, 3])
def test_a_kill_while_the_old_run_is_put_aside_leaves_the_old_run(finished, monkeypatch, moved):
    before, move, moves = files(finished), os.replace, []

    def killed(source, target):
        if len(moves) == moved:
            raise KeyboardInterrupt
        moves.append(source)
        move(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(recipe.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt), held(finished, 2, force=True):
            pass
    assert len(moves) == moved
    with held(finished, 1, resume=True):
        assert files(finished) == before


def test_a_run_of_another_kind_and_files_that_are_no_run_are_never_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious.txt").write_text("mine")
    with pytest.raises(ConfigError, match="another kind of run than toy"), held(tmp_path / "mine", force=True):
        pass
    assert files(tmp_path / "mine") == {"precious.txt": "mine"}


def test_what_a_killed_write_left_is_no_run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".plan.json.17.part").write_text('{"ki')
    with held(tmp_path / "run"):
        done(tmp_path / "run", "one")
    assert "done/stage" in files(tmp_path / "run")
