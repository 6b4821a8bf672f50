"""The versions that a release was tested with: each direct dependency has one, and pyproject's lower bounds allow it."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
ASKED = sorted({line for lines in (PROJECT["dependencies"], *EXTRAS.values()) for line in lines})
PINS = re.findall(r"^([^#\n]+)==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)


def plain(name: str) -> str:
    """A package's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version: those of 2.13.0+cpu are 2, 13, 0."""
    return tuple(map(int, re.match(r"\d+(\.\d+)*", version)[0].split(".")))


def test_every_direct_dependency_has_its_tested_version_and_nothing_else_has():
    assert sorted({plain(line.split(">=")[0]) for line in ASKED}) == sorted(plain(name) for name, _ in PINS)


@pytest.mark.parametrize("asked", ASKED)
def test_the_tested_version_and_the_installed_one_are_allowed(asked):
    name, least = asked.split(">=")
    tested = {plain(name): version for name, version in PINS}
    assert release(tested[plain(name)]) >= release(least)
    try:
        installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    assert release(installed) >= release(least)
