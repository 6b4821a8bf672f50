"""Word vectors: nearness by hand, and a file that gensim reads and writes."""

import numpy as np
import pytest
from gensim.models import KeyedVectors

from chainrule.core.errors import DataError, RequestError
from chainrule.models.word_vectors import WordVectors, sentences

HAND = WordVectors(["king", "man", "woman", "queen", "fish"], np.array([[2, 2], [2, 0], [0, 2], [-1, 3], [-1, -1]], np.float32))


def random_vectors(n: int = 40, d: int = 7) -> WordVectors:
    matrix = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
    return WordVectors([f"w{i}" for i in range(n)], matrix)


def test_nearness_is_the_cosine():
    assert HAND.similarity("king", "man") == pytest.approx(np.sqrt(0.5))
    assert HAND.near("man", 2) == [("king", pytest.approx(np.sqrt(0.5))), ("woman", pytest.approx(0.0))]
    assert [word for word, _ in HAND.near("man", 99)] == ["king", "woman", "queen", "fish"]


def test_king_minus_man_plus_woman_is_queen():
    assert HAND.nearest(["king", "woman"], ["man"], 1)[0][0] == "queen"


def test_words_of_a_text():
    assert list(sentences("Don't stop!\n\n1,5 kg 今天 x_y")) == [["don't", "stop"], ["1", "5", "kg", "今", "天", "x", "y"]]
    assert list(sentences("New_York  今天 。\n", segmented=True)) == [["New_York", "今天", "。"]]


def test_saving_and_loading_changes_nothing_and_gensim_reads_the_same(tmp_path):
    ours = random_vectors()
    ours.save(tmp_path / "vectors.txt")
    again = WordVectors.load(tmp_path / "vectors.txt")
    assert again.words == ours.words
    assert np.array_equal(again.matrix, ours.matrix)
    theirs = KeyedVectors.load_word2vec_format(str(tmp_path / "vectors.txt"))
    assert theirs.index_to_key == ours.words
    assert np.array_equal(theirs.vectors, ours.matrix)
    found, expected = ours.nearest(["w1", "w2"], ["w3"], 5), theirs.most_similar(["w1", "w2"], ["w3"], topn=5)
    assert [word for word, _ in found] == [word for word, _ in expected]
    assert [cosine for _, cosine in found] == pytest.approx([cosine for _, cosine in expected], abs=1e-5)


def test_a_file_that_gensim_wrote_is_read(tmp_path):
    ours = random_vectors()
    theirs = KeyedVectors(7)
    theirs.add_vectors(ours.words, ours.matrix)
    theirs.save_word2vec_format(str(tmp_path / "theirs.txt"))
    assert np.allclose(WordVectors.load(tmp_path / "theirs.txt").matrix, ours.matrix, atol=1e-6)


@pytest.mark.parametrize(
    ("content", "because"),
    [
        ("king 1 2\n", "begins with two numbers"),
        ("2 2\nking 1 2\n", "announces 2 words but holds 1"),
        ("1 2\nking 1\n", ":2 is not a word and 2 finite numbers"),
        ("1 2\nking 1 x\n", ":2 is not a word and 2 finite numbers"),
        ("1 2\nking 1 nan\n", ":2 is not a word and 2 finite numbers"),
        ("1 2\nking 1 2 3\n", ":2 is not a word and 2 finite numbers"),
    ],
)
def test_files_of_another_form_are_refused(content, because, tmp_path):
    (tmp_path / "bad.txt").write_text(content)
    with pytest.raises(DataError, match=because):
        WordVectors.load(tmp_path / "bad.txt")


def test_unknown_words_and_numbers_that_do_not_fit_are_refused():
    with pytest.raises(RequestError, match="'kinh' has no vector among the 5 words; did you mean 'king'"):
        HAND.near("kinh")
    with pytest.raises(RequestError, match="k is 0"):
        HAND.near("king", 0)
    with pytest.raises(DataError, match="2 words come with 1 vectors"):
        WordVectors(["a", "b"], np.zeros((1, 3), np.float32))
