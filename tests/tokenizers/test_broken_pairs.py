"""Vocabularies of two files: one that stands alone, or is of another kind or model, ends in an error that says what to do."""

import json

import pytest

from chainrule.core.errors import TokenizerError
from chainrule.tokenizers import load
from chainrule.tokenizers.patterns import byte_letters

LETTERS = {letter: id for id, letter in enumerate(byte_letters())}


@pytest.mark.parametrize(
    ("alone", "missing"), [("vocab.bpe", "encoder.json"), ("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"),
                           ("merges.txt", "vocab.json")]
)  # fmt: skip
def test_one_of_two_files_asks_for_the_other(alone, missing, tmp_path):
    (tmp_path / alone).write_text(json.dumps(LETTERS) if alone.endswith("json") else "#version: 0.2\na b\n")
    with pytest.raises(TokenizerError, match=rf"needs {missing} beside it"):
        load(tmp_path / alone)


@pytest.mark.parametrize(("vocab", "merges", "where"), [({"▁the": 256}, "a b", "vocab"), ({"ab": 256}, "▁ b", "merges")])
def test_a_vocabulary_that_is_not_byte_level_is_named(vocab, merges, where, tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps(LETTERS | vocab), encoding="utf-8")
    (tmp_path / "merges.txt").write_text(merges, encoding="utf-8")
    with pytest.raises(TokenizerError, match=rf"{where}.* is no byte-level vocabulary: .*'▁'.*tokenizer\.json"):
        load(tmp_path)


@pytest.mark.parametrize(("vocab", "merges"), [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
def test_a_vocabulary_beside_another_models_merges_is_refused(vocab, merges, tmp_path):
    known = LETTERS | {"ab": 256, "Ġa": 257, "<|endoftext|>": 258}
    (tmp_path / vocab).write_text(json.dumps(known), encoding="utf-8")
    (tmp_path / merges).write_text("#version: 0.2\na b\nĠ a\n", encoding="utf-8")
    assert load(tmp_path).encode("ab a") == [256, 257]
    (tmp_path / merges).write_text("#version: 0.2\na b\nb c\nĠ a\n", encoding="utf-8")
    with pytest.raises(TokenizerError, match=rf"{merges} joins 'b c', and {vocab} beside it has no such symbol"):
        load(tmp_path)


@pytest.mark.parametrize("more", [{}, {"characters": None}, {"characters": [1]}])
def test_a_character_tokenizer_without_its_characters_is_refused(more, tmp_path):
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CharTokenizer"} | more))
    with pytest.raises(TokenizerError, match=r"tokenizer_config\.json is a CharTokenizer's and has characters="):
        load(tmp_path)


def test_gpt2s_files_without_its_end_of_text_are_refused(tmp_path):
    (tmp_path / "encoder.json").write_text(json.dumps(LETTERS), encoding="utf-8")
    (tmp_path / "vocab.bpe").write_text("#version: 0.2\na b\n")
    with pytest.raises(TokenizerError, match=r"encoder\.json has no <\|endoftext\|>"):
        load(tmp_path)
