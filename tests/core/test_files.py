"""Files are complete or absent; what cannot be read or written says why."""

import errno
import os
import sys
from pathlib import Path

import pytest

from chainrule.core import files
from chainrule.core.errors import CheckpointError, DataError
from chainrule.core.files import read_json, read_json_object, read_text, whole_file, whole_folder, write_text


def test_a_write_that_fails_midway_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(ZeroDivisionError), whole_file(path) as aside:
        aside.write_text(f"half{1 / 0}")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    folder = tmp_path / "step"
    with pytest.raises(ZeroDivisionError), whole_folder(folder) as aside:
        (aside / "one").write_text(f"half{1 / 0}")
    assert list(tmp_path.iterdir()) == []
    for content in "12":
        with whole_folder(folder) as aside:
            (aside / content).write_text(content)
    assert [file.name for file in folder.iterdir()] == ["2"]


def content(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*"))


@pytest.fixture
def step(tmp_path: Path) -> Path:
    """A folder that is to be replaced."""
    (tmp_path / "step").mkdir()
    (tmp_path / "step" / "old").touch()
    return tmp_path / "step"


@pytest.fixture
def no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that cannot let two names change places in one step."""
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems replace a folder in two steps")
def test_an_old_folder_and_a_new_one_change_places_in_one_step(step: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*paths: Path) -> None:
        raise AssertionError("between two renames there would be no folder")

    monkeypatch.setattr(files.os, "replace", never)
    with whole_folder(step) as aside:
        (aside / "new").touch()
    assert content(step.parent) == ["step", "step/new"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_where_a_new_folder_cannot_take_its_place_the_old_one_stands(
    step: Path, no_exchange: None, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    replace = os.replace

    def fails(source: Path, target: Path) -> None:
        if source.suffix == ".part":
            raise error
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", fails)
    with pytest.raises((DataError, KeyboardInterrupt)), whole_folder(step) as aside:
        (aside / "new").touch()
    assert content(step.parent) == ["step", "step/old"]


def test_what_a_kill_has_left_without_its_name_gets_it_back(step: Path, no_exchange: None) -> None:
    others = step.parent / ".step.b.41.old", step.parent / ".stepb.41.old"
    for other in others:
        other.mkdir()
    step.rename(step.parent / ".step.41.old")  # killed here: neither the old folder nor the new one is at its place
    with pytest.raises(ZeroDivisionError), whole_folder(step):
        _ = 1 / 0
    assert content(step) == ["old"]
    with whole_folder(step) as aside:
        (aside / "new").touch()
    assert content(step.parent) == [*(other.name for other in others), "step", "step/new"]


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_file_in_the_place_of_a_folder_is_replaced_and_leaves_nothing(
    tmp_path: Path, exchanges: bool, request: pytest.FixtureRequest
) -> None:
    if not exchanges:
        request.getfixturevalue("no_exchange")
    (tmp_path / "step").touch()
    with whole_folder(tmp_path / "step") as aside:
        (aside / "new").touch()
    assert content(tmp_path) == ["step", "step/new"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"abc\x00def", "is a binary file"),
        (b"abc " * 50_000 + b"\x00", "is a binary file"),
        ("天气".encode("gbk"), "is not UTF-8"),
    ],
)
def test_an_unreadable_text_says_why(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "a.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_text(path)


def test_a_byte_order_mark_is_not_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeff天".encode())
    assert read_text(tmp_path / "a.txt") == "天"


@pytest.mark.parametrize("text", ["{", '{"a": 1,}', "[" * 100_000, "9" * 5000])
def test_what_is_no_json_is_told_with_its_mend(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json is not JSON \(.*\); fetch it again$"):
        read_json(path, "fetch it again", error=CheckpointError)


def test_a_json_file_of_another_shape_is_no_table_of_names(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("[1]")
    assert read_json(path) == [1]
    with pytest.raises(DataError, match="holds a list, not names with values; copy it again"):
        read_json_object(path)
    path.write_text('{"a": 1}')
    assert read_json_object(path) == {"a": 1}


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot write .*file/out\.txt"):
        write_text(tmp_path / "file" / "out.txt", "x")


@pytest.mark.parametrize("name", [".", "/", ".."])
def test_a_place_without_a_name_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="has no name to write under; give one, for example"):
        write_text(Path(name), "x")
    with pytest.raises(DataError, match="has no name"), whole_folder(Path(name)):
        pass


def test_a_name_that_no_file_system_takes_is_no_file_and_says_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot use /.*…a{20} \(\d+ characters\): File name too long; a name has 255 bytes"):
        read_text(tmp_path / ("a" * 300))
