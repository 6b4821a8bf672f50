"""Scores of word vectors: by hand, and equal to gensim's and scipy's on the published questions."""

import numpy as np
import pytest
from gensim.models import KeyedVectors
from scipy.stats import spearmanr

from chainrule.core.errors import DataError
from chainrule.eval.words import analogies, similarity, spearman
from chainrule.models.word_vectors import WordVectors

HAND = WordVectors(["king", "man", "woman", "queen", "fish"], np.array([[2, 2], [2, 0], [0, 2], [-1, 3], [-1, -1]], np.float32))


def written(tmp_path, text: str):
    path = tmp_path / "questions.txt"
    path.write_text(text)
    return path


def test_ranks_that_agree_but_for_one_exchange_by_hand(tmp_path):
    """Cosines 0.71, 0 and −1; people put the last two the other way round: ρ = 1 − 6 · 2 / (3 · 8) = 0.5."""
    path = written(tmp_path, "# of people\nking\tman\t9\nman\twoman\t1\nking\tfish\t2.5\nman\tdragon\t5\n")
    found = similarity(HAND, path)
    assert (found.rho, found.pairs, found.unknown) == (pytest.approx(0.5), 3, 1)


@pytest.mark.parametrize("seed", range(4))
def test_spearman_equals_scipys_ties_too(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 6, 30), rng.normal(size=30)
    assert spearman(list(x), list(y)) == pytest.approx(spearmanr(x, y).statistic)


def test_a_constant_has_no_correlation():
    assert spearman([1, 1, 1], [1, 2, 3]) == 0.0


def test_analogies_by_hand(tmp_path):
    path = written(tmp_path, ": royalty\nMan King Woman Queen\nman king woman fish\n: other\nman king woman dragon\n")
    found = analogies(HAND, path)
    assert found.sections == {"royalty": (1, 2)}
    assert (found.right, found.asked, found.unknown) == (1, 2, 1)


def test_scores_on_the_published_questions_equal_gensims(material, tmp_path):
    """Random vectors, with some of the relations put into them, so that answers are right and wrong."""
    pairs, questions = (material / "tasks" / "wordsim" / name for name in ("EN-WS-353-ALL.txt", "questions-words.txt"))
    lines = questions.read_text().splitlines()
    lines = [line for i, line in enumerate(lines) if line.startswith(":") or i % 10 == 0]
    known = [*(line.split("\t")[0] for line in pairs.read_text().splitlines()), *" ".join(lines[::2]).split()]
    words = list(dict.fromkeys(word.lower() for word in known))
    matrix = dict(zip(words, np.random.default_rng(0).normal(size=(len(words), 12)).astype(np.float32), strict=True))
    for a, b, c, d in (line.lower().split() for line in lines[::3] if not line.startswith(":")):
        if {a, b, c, d} <= set(words):
            matrix[d] = matrix[b] - matrix[a] + matrix[c] + 0.5
    ours, theirs = WordVectors(words, np.stack(list(matrix.values()))), KeyedVectors(12)
    theirs.add_vectors(words, ours.matrix)
    found, (_, expected, _) = similarity(ours, pairs), theirs.evaluate_word_pairs(str(pairs))
    assert found.rho == pytest.approx(expected.statistic, abs=1e-6)
    some = written(tmp_path, "\n".join(lines))
    answered, (_, sections) = analogies(ours, some), theirs.evaluate_word_analogies(str(some))
    counts = {s["section"]: (len(s["correct"]), len(s["correct"]) + len(s["incorrect"])) for s in sections[:-1]}
    assert answered.sections == {name: count for name, count in counts.items() if count[1]}
    assert 0 < answered.right < answered.asked


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("king man 3\n", "questions.txt:1 is 'king man 3'; a line is two words and a number"),
        ("king\tman\tmuch\n", "a line is two words and a number"),
        ("king\tman\t3\nno\tone\t1\n", "1 of the 2 pairs"),
    ],
)
def test_pairs_that_cannot_be_used_are_refused(text, because, tmp_path):
    with pytest.raises(DataError, match=because):
        similarity(HAND, written(tmp_path, text))


def test_questions_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(DataError, match="a question is four words"):
        analogies(HAND, written(tmp_path, ": s\nking man woman\n"))
    with pytest.raises(DataError, match="none of the 1 questions"):
        analogies(HAND, written(tmp_path, "a b c d\n"))
