"""A model's table may have more rows than the tokenizer has tokens: an id beyond them says nothing, under every tokenizer."""

import pytest

from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.byte import ByteTokenizer
from chainrule.tokenizers.char import CharTokenizer
from chainrule.tokenizers.llama2c import FIRST_BYTE, Llama2cTokenizer
from chainrule.tokenizers.sentencepiece import BPE as MERGING
from chainrule.tokenizers.sentencepiece import NORMAL, UNIGRAM, UNKNOWN, Model, SentencePiece
from chainrule.tokenizers.wordpiece import WordPiece

TRAINED = BPE.train(["the cat sat on the mat"] * 3, 270, pattern="gpt2")
PIECES = [("<unk>", 0.0, UNKNOWN), ("a", -1.0, NORMAL), ("▁a", -2.0, NORMAL)]
TOKENIZERS = {
    "byte": ByteTokenizer(),
    "char": CharTokenizer("abc"),
    "bpe": TRAINED,
    "library": TRAINED.fast(),
    "wordpiece": WordPiece(["[UNK]", "a", "##a"]),
    "unigram": SentencePiece(Model(PIECES, UNIGRAM, {}, b"", True, True, b"")),
    "merging": SentencePiece(Model(PIECES, MERGING, {}, b"", True, True, b"")),
    "llama2c": Llama2cTokenizer([b""] * FIRST_BYTE + [bytes([byte]) for byte in range(256)] + [b" a"], [0.0] * 260),
}


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("beyond", [0, 1, 5000])
def test_an_id_beyond_the_tokenizer_says_nothing(name, beyond):
    tokenizer = TOKENIZERS[name]
    id = tokenizer.vocab_size + beyond
    assert tokenizer.token_bytes(id) == b""
    assert tokenizer.piece(id) == ""
    ids = tokenizer.encode("a")
    assert tokenizer.decode([*ids, id]) == tokenizer.decode(ids) == "a"
