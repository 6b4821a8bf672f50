"""The house rules: a room imports only rooms below it, and most rooms never meet a particular model."""

import ast
import json
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "chainrule"
FLOORS = """
cli
labs
serve recipes
apps
train eval
hub
generate
data models adapt
logprobs tasks
tokenizers layers world tools pages
core
"""
FLOOR = {room: height for height, line in enumerate(reversed(FLOORS.split("\n"))) for room in line.split()}
NEVER_MODELS = {"logprobs", "tasks", "data", "adapt", "generate", "train", "eval", "apps", "serve"}
FILES = sorted(SOURCE.rglob("*.py"))


def imports(file: Path) -> set[str]:
    """The rooms a file imports, wherever in the file it does so."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("chainrule.")} & set(FLOOR)


def modules(file: Path) -> set[str]:
    """The modules that a file imports, or imports from."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    whole = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return whole | {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}


def test_the_face_is_one_for_programs_and_for_type_checkers() -> None:
    """What is imported for type checkers alone has the names, and comes from the places, of what is resolved lazily."""
    import chainrule

    tree = ast.parse((SOURCE / "__init__.py").read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    said = {(one.module, alias.name) for one in block.body if isinstance(one, ast.ImportFrom) for alias in one.names}
    assert said == {(module, what) if what else tuple(module.rsplit(".", 1)) for module, what in chainrule._FACE.values()}
    assert (SOURCE / "py.typed").exists()


def test_the_version_is_that_of_the_package() -> None:
    from chainrule.core.version import __version__

    assert (
        tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"] == __version__
    )


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_a_room_imports_only_rooms_below_it(file: Path) -> None:
    parts = file.relative_to(SOURCE).parts
    if len(parts) == 1:  # the face, resolved lazily
        return
    room = parts[0]
    assert "chainrule" not in modules(file), "the face is for those outside; import from the room itself"
    for other in imports(file) - {room}:
        assert FLOOR[other] < FLOOR[room], f"{room} imports {other}, which is not below it"
        assert not (other == "models" and room in NEVER_MODELS), f"{room} must be handed its models"


def test_every_name_is_defined() -> None:
    """The linter takes the letters of shapes for names, so it is not asked about undefined ones; what is no letter is one."""
    argv = ["ruff", "check", "--select", "F821", "--output-format", "json", "--exit-zero", str(SOURCE)]
    found = json.loads(subprocess.run([sys.executable, "-m", *argv], capture_output=True, text=True, check=True).stdout)
    names = {one["message"].split("`")[1] for one in found}
    assert [name for name in names if len(name) > 1 and name != "half"] == []


def test_there_is_no_room_without_a_name() -> None:
    for file in FILES:
        assert not {"utils", "common", "helpers", "base", "manager"} & set(file.relative_to(SOURCE).with_suffix("").parts)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_every_module_says_its_idea(file: Path) -> None:
    assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    "module",
    ["core.errors", "core.version", "core.schema", "core.chat", "core.tokenizer", "core.files", "world", "pages", "cli"],
)
def test_light_modules_import_no_torch(module: str) -> None:
    code = f"import sys, chainrule.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_no_python_ships_in_the_package_too() -> None:
    """The wheel is the whole folder but for what git ignores."""
    root = SOURCE.parents[1]
    build = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    assert build == {"targets": {"wheel": {"packages": ["src/chainrule"]}}}
    data = [file for file in SOURCE.rglob("*") if file.suffix in (".json", ".yaml", ".typed")]
    assert {file.parent.relative_to(SOURCE).as_posix() for file in data} >= {".", "recipes", "hub/configs"}
    ignored = [line for line in (root / ".gitignore").read_text(encoding="utf-8").split() if not line.startswith("/")]
    assert not [file for file in data for line in ignored if fnmatch(file.name, line) or line.strip("/") in file.parts[-3:-1]]
