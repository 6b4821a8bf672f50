"""The corpus of a ladder: its tokenizer is in the run's folder whole or not at all."""

import pytest

from chainrule.recipes.corpus import learned_tokenizer
from chainrule.tokenizers import fast
from chainrule.train.material import SPECIALS

TEXT = ["the cat sat on the mat and the dog ran to the park. "] * 5


def test_a_tokenizer_whose_writing_was_interrupted_is_learned_again(tmp_path, monkeypatch):
    write = fast.write_text

    def interrupted(path, text):
        if path.name == "tokenizer_config.json":
            raise KeyboardInterrupt
        write(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(fast, "write_text", interrupted)
        with pytest.raises(KeyboardInterrupt):
            learned_tokenizer(tmp_path, TEXT, 280, "cl100k", SPECIALS)
    assert list(tmp_path.iterdir()) == []
    learned = learned_tokenizer(tmp_path, TEXT, 280, "cl100k", SPECIALS)
    again = learned_tokenizer(tmp_path, ["other words"], 280, "cl100k", SPECIALS)  # read, not learned
    assert (again.bos, again.specials) == (learned.bos, learned.specials)
    assert again.encode("the cat") == learned.encode("the cat")
