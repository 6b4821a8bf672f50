"""What ``make`` installs: the tested versions, but never another torch than the one that is there; and only once."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = """#!/bin/sh
[ "$1" = -c ] && { [ -e torch ]; exit; }             # import torch
echo "$*" >> calls
[ "$3" = install ] && cat "$6" > limits && touch torch   # -m pip install -q -c FILE WHAT
exit 0
"""


@pytest.fixture
def folder(tmp_path) -> Path:
    """A checkout whose environment is a script that writes down what it is asked; the file ``torch`` says that torch is there."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)
    return tmp_path


def make(folder: Path, *argv: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *argv], cwd=folder, env=inherited, capture_output=True, text=True, check=True).stdout


def installs(folder: Path) -> list[str]:
    """What pip was asked for, in order."""
    calls = (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []
    return [call.split()[-1] for call in calls if " pip install " in call]


def without_torch() -> list[str]:
    return [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("torch==")]


def test_an_environment_without_torch_gets_the_tested_one(folder):
    make(folder, ".venv/.installed")
    assert installs(folder) == ["torch", "."]
    limits = (folder / ".venv" / "constraints.txt").read_text()
    assert limits == (ROOT / "constraints.txt").read_text()
    assert len(without_torch()) == len(limits.splitlines()) - 1


@pytest.mark.parametrize("target", [".venv/.installed", "test"])
def test_a_torch_that_is_there_is_kept(folder, target):
    (folder / "torch").touch()
    make(folder, target)
    assert installs(folder) == ["torch", ".", *([".[test]"] if target == "test" else [])]
    assert (folder / "limits").read_text().splitlines() == without_torch()


def test_the_tests_packages_do_not_replace_the_torch_that_make_installed_before(folder):
    make(folder, "test")
    assert (folder / "limits").read_text().splitlines() == without_torch()


def test_a_second_call_installs_nothing(folder):
    make(folder, "test")
    before = installs(folder)
    planned = make(folder, "-n", "test")
    make(folder, "test")
    assert installs(folder) == before
    assert "pip" not in planned


def test_no_rule_hands_pip_all_the_constraints(folder):
    told = make(folder, "-n", "test")
    assert told.count("pip install") == 3
    assert "-c constraints.txt" not in told
