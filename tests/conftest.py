"""Every test runs on one thread, seeded by its own arguments, with the shapes in signatures enforced."""

import os
from pathlib import Path
from typing import Any

import pytest
from jaxtyping import install_import_hook

SOURCE = Path(__file__).parents[1] / "src"
ROOMS = ("core", "layers", "logprobs", "models", "generate")
"""The rooms of tensors: every signature in them is enforced."""


def enforced() -> list[str]:
    """The modules whose signatures are enforced: the rooms of tensors, and whatever else speaks of shapes."""
    files = sorted((SOURCE / "chainrule").rglob("*.py"))
    shaped = [file for file in files if "from chainrule.core.shapes import" in file.read_text(encoding="utf-8")]
    names = [".".join(file.relative_to(SOURCE).with_suffix("").parts) for file in shaped]
    return [*(f"chainrule.{room}" for room in ROOMS), *(name for name in names if name.split(".")[1] not in ROOMS)]


CHECKED = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
"""An int may stand for a float, as type checkers have it."""
# the hook must be in place before any room is imported: wrong shapes then raise where they happen
_HOOK = install_import_hook(enforced(), CHECKED)


def pytest_configure(config: pytest.Config) -> None:
    import torch

    torch.set_num_threads(1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Where CHAINRULE_STRICT is set, a skip for a missing package is a failure."""
    return _strict((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector):
    """The same for a whole file that is skipped."""
    return _strict((yield))


MISSING = ("could not import", "is not installed")
"""What a skip for want of a package says: pytest's words, and ours."""


def _strict(report: Any) -> Any:
    if os.environ.get("CHAINRULE_STRICT") and report.skipped and any(words in str(report.longrepr) for words in MISSING):
        report.outcome = "failed"
    return report


@pytest.fixture(scope="session")
def material() -> Path:
    """Real data and weights; the test is skipped, with the reason, where they are absent."""
    default = Path(__file__).parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("CHAINRULE_TEST_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no test material at {folder}; set CHAINRULE_TEST_DATA to the folder that holds it")
    return folder
