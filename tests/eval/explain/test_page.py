"""The page of an explanation: every section for what is known, nothing to fetch, and the same numbers as the text."""

import pytest

from chainrule.cli import main
from chainrule.eval.explain.model import explain
from chainrule.eval.explain.page import explanation_page
from chainrule.hub.save import save
from chainrule.tokenizers.byte import ByteTokenizer
from tests.eval.explain.test_model import LLAMA, tiny

SECTIONS = ("Files", "What the config means", "Modules", "Bytes by part", "Each tensor&#x27;s way", "The load", "Around the model",
            "One forward pass")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("paged") / "tiny", tiny(), ByteTokenizer())


def test_the_command_writes_a_page_with_all_figures_and_nothing_to_fetch(folder, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["explain", str(folder), "--device", "cpu", "--html", str(page)]) == 0
    html = page.read_text(encoding="utf-8")
    assert str(page) in capsys.readouterr().err
    for title in SECTIONS:
        assert f"<h2>{title}" in html
    for figure in (
        "Bytes of weights by part",
        "Milliseconds by stage, ours",
        "Memory while loading",
        "FLOPs by layer and part",
    ):
        assert html.count(f'aria-label="{figure}"') == 2  # wide and narrow
    assert "default-src 'none'" in html
    assert "<img" not in html
    assert "http" not in html.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_without_weights_the_page_says_so_and_shows_the_rest():
    html = explanation_page(explain(LLAMA, length=16), "0").html()
    assert "8,030,261,248 in 291 tensors" in html
    assert "16.06\u202fGB" in html
    assert "weights: none are here" in html
    assert "<h2>The load" not in html
    assert "layers 0–31" in html


@pytest.mark.parametrize("name", ["world", "ngram2"])
def test_models_of_few_parts_have_short_pages(name, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 20)
    html = explanation_page(explain(f"ngram2:{text}" if name == "ngram2" else name), "0").html()
    assert "<h2>One forward pass" in html
    assert "FLOPs by layer" not in html
