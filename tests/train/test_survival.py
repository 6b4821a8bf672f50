"""What a run survives: kills at any touch of the disk, disks that fill up, Ctrl-C. It goes on to the same bits, or says why not."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chainrule.cli import main
from chainrule.train.checkpoint import checkpoints
from chainrule.train.run import locked
from tests.lives import Life, nursery

WORDS = "the cat sat on the mat and the dog ran to the park. "
WEIGHTS = Path("model") / "model.safetensors"
FIRST, LAST = "step-00000002", "step-00000004"


@pytest.fixture(scope="module")
def live():
    with nursery() as live:
        yield live


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text.txt").write_text(WORDS * 60)
    return folder


@pytest.fixture(scope="module")
def whole(live, runs):
    """How a run ends that nothing befalls."""
    end = live(Life(argv=training(runs, "whole")))
    assert end.code == 0, end.said
    return end


def training(runs: Path, name: str, *more: str, steps: int = 4) -> list[str]:
    """Two checkpoints, of which one is kept, and the model."""
    return [
        "train", "pretrain_text", f"data.path={runs / 'text.txt'}", "tokenizer={kind: bytes}", "model.n_layers=2",
        "model.d_model=16", "model.n_heads=2", "model.d_ff=16", "context=16", "batch_rows=2", f"steps={steps}", "save_every=2",
        "keep=1", "threads=1", "precision=fp32", "device=cpu", "--runs", str(runs), "--name", name, *more,
    ]  # fmt: skip


def goes_on(live, runs: Path, name: str, *more: str, whole: str = "whole") -> None:
    """Resumed, the run of that name ends in the weights of the one that nothing befell; no step is taken twice."""
    kept = [path.name for path in checkpoints(runs / name / "checkpoints")]
    end = live(Life(argv=training(runs, name, *more, "--resume")))
    assert end.code == 0, end.said
    assert (runs / name / WEIGHTS).read_bytes() == (runs / whole / WEIGHTS).read_bytes()
    made = [step for step in (FIRST, LAST) if any(f".{step}" in touch for touch in end.touches if touch.startswith("mkdir"))]
    assert made == [step for step in (FIRST, LAST) if step > max(kept, default="")]


def killed(live, runs: Path, touch: int) -> list[str]:
    """A run that is killed at a touch of the disk goes on; returns the checkpoints that it had."""
    end = live(Life(argv=training(runs, f"killed-{touch}"), kill=touch))
    assert end.code == -signal.SIGKILL, end.said
    kept = [path.name for path in checkpoints(runs / f"killed-{touch}" / "checkpoints")]
    goes_on(live, runs, f"killed-{touch}")
    return kept


def test_a_run_killed_at_a_touch_of_the_disk_goes_on_to_the_same_bits(live, runs, whole):
    """From the second checkpoint on to the end of the model; all touches, one by one, are among the long proofs."""
    begin = next(i for i, touch in enumerate(whole.touches) if LAST in touch)
    there = next(i for i, touch in enumerate(whole.touches) if touch.startswith("replace") and touch.endswith(LAST))
    assert any(touch.startswith("replace") and touch.endswith("/model") for touch in whole.touches[there:])
    for touch in range(begin, len(whole.touches), max(1, (len(whole.touches) - begin) // 5)):
        assert killed(live, runs, touch)[-1:] == [FIRST if touch <= there else LAST]


def texts(folder: Path) -> Path:
    """A folder of files to read, one of them deeper."""
    for name, words in {
        "one.txt": WORDS,
        "two.md": "a bird sang in the tree. ",
        "in/three.txt": "天气很好，小明去了公园。",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(words * 40)
    return folder


@pytest.mark.parametrize(
    ("path", "after"), [("a folder", "/tokenizer"), ("a folder", FIRST), ("tinyshakespeare", FIRST)], ids=str
)
def test_a_killed_run_with_a_tokenizer_of_its_own_goes_on_to_the_same_bits(live, request, tmp_path, path, after):
    """BPE, as recipes train it where none is named, but small; killed before a checkpoint the run trains it anew."""
    if path == "a folder":
        read = texts(tmp_path / "texts")
    else:
        read = request.getfixturevalue("material") / "corpora" / "tinyshakespeare.txt"
    more = f"data.path={read}", "tokenizer={kind: bpe, vocab_size: 300, sample_bytes: 20000}"
    whole = live(Life(argv=training(tmp_path, "whole", *more)))
    assert whole.code == 0, whole.said
    there = next(i for i, touch in enumerate(whole.touches) if touch.startswith("replace") and touch.endswith(after))
    end = live(Life(argv=training(tmp_path, "killed", *more), kill=there + 1))
    assert end.code == -signal.SIGKILL, end.said
    assert (tmp_path / "killed" / "tokenizer").is_dir()
    assert [path.name for path in checkpoints(tmp_path / "killed" / "checkpoints")] == [FIRST] * (after == FIRST)
    goes_on(live, tmp_path, "killed", *more)
    made = [(tmp_path / name / "model" / "tokenizer.json").read_bytes() for name in ("killed", "whole")]
    assert made[0] == made[1]


@pytest.mark.parametrize("out", ["x.gguf", "x.bin", "folder"])
def test_an_export_to_a_full_disk_ends_in_a_message_and_nothing_half_written(live, material, tmp_path, out):
    """A folder is what ``lm.save`` writes."""
    model = material / "stories260K" / "stories260K.bin"
    argv = ["export", str(model), str(tmp_path / out), *(["--type", "f32"] if "." in out else []), "--device", "cpu"]
    end = live(Life(argv=argv, room=model.stat().st_size // 2))
    assert end.code == 2, end.said
    assert f"chainrule: cannot write {tmp_path / out}" in end.said
    assert "Traceback" not in end.said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("room", "after", "kept"),
    [
        ("the recipe", "", []), ("the weights", "", []), ("the optimizer", "", []),
        ("the weights", FIRST, [FIRST]), ("the optimizer", FIRST, [FIRST]), ("the weights", LAST, [LAST]),
    ],
)  # fmt: skip
def test_a_disk_without_room_ends_in_a_message_and_nothing_half_written(live, runs, whole, room, after, kept):
    sizes = {path.name: path.stat().st_size for path in (runs / "whole" / "checkpoints" / LAST).iterdir()}
    weights = sizes["model.safetensors"]
    assert weights + 1000 < sizes["optimizer.pt"]
    name = f"full-{room}-{after}".replace(" ", "-")
    least = {"the recipe": 100, "the weights": weights // 2, "the optimizer": weights + 1000}
    end = live(Life(argv=training(runs, name), room=least[room], after=after))
    assert end.code == 2, end.said
    assert f"chainrule: cannot write {runs / name}" in end.said
    assert "Traceback" not in end.said
    assert not (runs / name / "model").exists()
    there = runs / name / "checkpoints"
    assert (sorted(path.name for path in there.iterdir()) if there.exists() else []) == kept
    if room == "the recipe":
        assert not (runs / name).exists()
    else:
        goes_on(live, runs, name)


def test_ctrl_c_stops_with_a_hint_and_the_run_goes_on_to_the_same_bits(tmp_path):
    (tmp_path / "text.txt").write_text(WORDS * 60)
    steps = 80
    code = "import sys; from chainrule.cli import main; sys.exit(main())"
    stopped = training(tmp_path, "stopped", "save_every=1000", steps=steps)
    process = subprocess.Popen([sys.executable, "-c", code, *stopped], stderr=subprocess.PIPE, text=True)
    metrics, limit = tmp_path / "stopped" / "metrics.jsonl", time.monotonic() + 60
    while (
        not (metrics.exists() and metrics.read_text().count('"loss"') > 2)
        and time.monotonic() < limit
        and process.poll() is None
    ):
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    step = re.search(r"\nchainrule: stopped after step (\d+), which is saved; the same command with --resume goes on\n", said)
    assert step is not None, said
    assert "Traceback" not in said
    assert [path.name for path in (tmp_path / "stopped" / "checkpoints").iterdir()] == [f"step-{int(step[1]):08d}"]
    assert 2 < int(step[1]) < steps
    assert not (tmp_path / "stopped" / "model").exists()
    assert main([*stopped, "--resume"]) == 0
    assert main(training(tmp_path, "whole", "save_every=1000", steps=steps)) == 0
    assert (tmp_path / "stopped" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_a_quickstart_on_a_full_disk_ends_in_a_message_and_leaves_nothing(live, runs):
    asked = ["quickstart", "--text", str(runs / "text.txt"), "--runs", str(runs), "--name", "full", "--steps", "1"]
    end = live(Life(argv=asked, room=2000))
    assert end.code == 2, end.said
    assert "chainrule: cannot write" in end.said
    assert "Traceback" not in end.said
    assert not (runs / "full").exists()


def test_a_quickstart_whose_folder_is_occupied_or_no_folder_is_refused(runs, capsys):
    asked = ["quickstart", "--text", str(runs / "text.txt"), "--steps", "1"]
    with locked(runs / "occupied"):
        assert main([*asked, "--runs", str(runs), "--name", "occupied", "--force"]) == 2
        assert "is in use by another process" in capsys.readouterr().err
        (runs / "occupied" / "mine.txt").write_text("mine")
    assert main([*asked, "--runs", str(runs), "--name", "occupied", "--force"]) == 2
    assert "holds another kind of run than quickstart" in capsys.readouterr().err
    assert main([*asked, "--runs", str(runs), "--name", "occupied"]) == 2
    assert "holds another kind of run than quickstart" in capsys.readouterr().err
    assert [path.name for path in (runs / "occupied").glob("[!.]*")] == ["mine.txt"]
    assert main([*asked, "--runs", str(runs / "text.txt")]) == 2
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full, a disk that is always full, is Linux'")
@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["train", "--help"], ["tokenize", "bytes", "hello"]])
def test_output_to_a_full_disk_ends_in_one_line(argv):
    code = "import sys; from chainrule.cli import main; sys.exit(main())"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code, *argv], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("chainrule: the disk is full: ")
    assert len(done.stderr.splitlines()) == 1
