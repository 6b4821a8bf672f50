"""What the suite promises of itself: shapes are enforced wherever they are written, and CI skips nothing for want of a package."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from jaxtyping import TypeCheckError

from chainrule.core.datum import Layout
from tests.conftest import SOURCE, enforced

ROOT = Path(__file__).parents[1]
WRONG = {
    "logprobs.filters": lambda room: room.repetition_penalty(torch.zeros(2, 3), torch.zeros(3, 4).long(), 1.2),
    "train.optim": lambda room: room.orthogonal(torch.zeros(2, 3)),
    "adapt.int4": lambda room: room.dequantize(torch.zeros(4, 64).int(), torch.zeros(3, 4, 2)),
    "adapt.lora": lambda room: room.norms(torch.zeros(3)),
    "data.masking": lambda room: room.lowest(torch.zeros(2, 3), torch.zeros(2, 4).bool(), 0.5),
    "hub.sentences": lambda room: room.Pooling().pool(torch.zeros(2, 3), Layout.plain(torch.zeros(2, 3).long())),
}


@pytest.mark.parametrize("module", WRONG)
def test_a_wrong_shape_raises_where_it_happens(module):
    with pytest.raises(TypeCheckError):
        WRONG[module](importlib.import_module(f"chainrule.{module}"))


def test_no_module_that_speaks_of_shapes_is_left_out():
    known = tuple(enforced())
    for file in SOURCE.rglob("*.py"):
        module = ".".join(file.relative_to(SOURCE).with_suffix("").parts)
        if '[Tensor, "' in file.read_text(encoding="utf-8"):
            assert module in known or module.startswith(tuple(f"{one}." for one in known)), module


SOME = """
import pytest


@pytest.fixture
def missing():
    pytest.importorskip("no_such_package")


def test_that_needs_a_package():
    pytest.importorskip("no_such_package")


def test_that_needs_it_through_a_fixture(missing):
    pass


def test_that_knows_it_is_missing():
    pytest.skip("no_such_package is not installed")


def test_that_is_skipped_for_another_reason():
    pytest.skip("no test material")


def test_that_passes():
    pass
"""


def test_where_it_is_strict_a_skip_for_a_missing_package_is_a_failure(tmp_path):
    (tmp_path / "test_some.py").write_text(SOME)
    (tmp_path / "test_whole.py").write_text("import pytest\n\npytest.importorskip('no_such_package')\n")
    settings = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", tmp_path]
    command = [sys.executable, "-m", "pytest", *settings, "--continue-on-collection-errors", tmp_path]
    environment = os.environ | {"CHAINRULE_STRICT": "1"}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert "2 failed, 1 passed, 1 skipped, 2 errors" in ran.stdout
    assert ran.returncode == 1
