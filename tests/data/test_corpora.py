"""One recipe trains on whatever people have: a text, a folder of their own files, rows of JSON, a table."""

import json
import math
from pathlib import Path

import pytest

from chainrule.core.datum import PADDING
from chainrule.train.material import prepare
from chainrule.train.recipe import read_recipe
from chainrule.train.run import run_recipe

TINY = ("model.n_layers=2", "model.d_model=16", "model.n_heads=2", "model.d_ff=16", "tokenizer.vocab_size=400", "context=32",
        "batch_rows=4", "steps=3", "eval_every=3", "save_every=3", "threads=1", "precision=fp32")  # fmt: skip


@pytest.fixture(scope="module")
def play(material) -> str:
    """The beginning of tinyshakespeare."""
    return (material / "corpora" / "tinyshakespeare.txt").read_text(encoding="utf-8")[:20_000]


def one_file(folder: Path, speeches: list[str]) -> Path:
    (folder / "play.txt").write_text("\n\n".join(speeches))
    return folder / "play.txt"


def own_files(folder: Path, speeches: list[str]) -> Path:
    """As people keep them: folders within folders, files of any name, a picture among them."""
    for i, speech in enumerate(speeches):
        path = folder / "mine" / f"act {i % 3}" / f"{i}{('.txt', '.md', '.py', '')[i % 4]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(speech)
    (folder / "mine" / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00")
    return folder / "mine"


def json_rows(folder: Path, speeches: list[str]) -> Path:
    (folder / "play.jsonl").write_text("".join(json.dumps({"text": speech}) + "\n" for speech in speeches))
    return folder / "play.jsonl"


def table(folder: Path, speeches: list[str]) -> Path:
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.table({"text": speeches}), folder / "play.parquet")
    return folder / "play.parquet"


@pytest.mark.parametrize("write", [one_file, own_files, json_rows, table])
def test_a_model_is_pretrained_on_what_people_have_with_one_recipe(play, tmp_path, write):
    path = write(tmp_path, play.split("\n\n"))
    recipe = read_recipe("pretrain_text", [f"data.path={path}", *TINY])
    run = run_recipe(recipe, "mine", runs=tmp_path / "runs")
    rows = [json.loads(row) for row in (run.folder / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[0] == pytest.approx(math.log(run.tokenizer.vocab_size), abs=0.3)
    assert len(losses) == 3
    assert all(map(math.isfinite, losses))
    (batch,) = prepare(recipe).stream.batches(0)
    assert batch.layout is not None
    for tokens, document in zip(batch.tokens, batch.layout.document, strict=True):
        for n in set(document.tolist()) - {PADDING}:
            assert run.tokenizer.decode(tokens[document == n].tolist()) in play
