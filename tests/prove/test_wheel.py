"""The wheel that a user installs: it holds every file of the package, and its verbs find what they read, far from the sources."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.prove
ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "-w", str(folder), str(ROOT))
    (built,) = folder.glob("chainrule-*.whl")
    return built


def pip(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", *words], check=True, cwd=ROOT)


def test_the_wheel_holds_every_file_of_the_package(wheel):
    files = [path for path in (SOURCE / "chainrule").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    with zipfile.ZipFile(wheel) as archive:
        assert not {path.relative_to(SOURCE).as_posix() for path in files} - set(archive.namelist())


def test_what_is_installed_from_the_wheel_runs_anywhere(wheel, tmp_path):
    pip("install", "--no-deps", "--no-index", "--target", str(tmp_path / "site"), str(wheel))
    (tmp_path / "elsewhere").mkdir()
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

    def said(*words: str) -> str:
        command = [sys.executable, *words]
        return subprocess.run(
            command, cwd=tmp_path / "elsewhere", env=environment, capture_output=True, text=True, check=True
        ).stdout

    assert said("-c", "import chainrule; print(chainrule.__file__)").startswith(str(tmp_path / "site"))
    for recipe in (SOURCE / "chainrule" / "recipes").rglob("*.yaml"):
        assert "steps" in said("-m", "chainrule", "train", recipe.stem, "--show")
    assert '"parameters"' in said("-m", "chainrule", "explain", "meta-llama/Meta-Llama-3.1-8B-Instruct", "--json")
    assert said("-m", "chainrule", "doctor")
