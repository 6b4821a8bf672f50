"""Every test runs on one thread, seeded by its own arguments, with the shapes in signatures enforced."""

import os
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# the hook must be in place before any room is imported: wrong shapes then raise where they happen
_HOOK = install_import_hook(
    ["chainrule.core", "chainrule.layers", "chainrule.logprobs", "chainrule.models", "chainrule.generate"],
    "beartype.beartype",
)


def pytest_configure(config: pytest.Config) -> None:
    import torch

    torch.set_num_threads(1)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    """Where CHAINRULE_STRICT is set, a skip for a missing package is a failure."""
    report = yield
    if os.environ.get("CHAINRULE_STRICT") and report.skipped and "could not import" in str(report.longrepr):
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
