"""Kimi's ``tiktoken.model``: ranks alone, with the pattern of its code and the special tokens of its config."""

import base64
import json

import pytest

from chainrule.core.errors import TokenizerError
from chainrule.tokenizers import load
from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.patterns import compiled, split_pattern

TEXT = "Kimi reads 中文English混合 and 12345 numbers. 北京市 Pascal's naïve café，你好世界！々〇 カタカナ 한국어\r\n\n  x = a_b ABCdef\t😀"


@pytest.fixture
def folder(tmp_path):
    """A small vocabulary written as Moonshot writes its own: K2's special tokens by id, the rest of 256 reserved."""
    learned = BPE.train([TEXT * 3], 256 + 60, pattern="kimi", specials=())
    lines = [f"{base64.b64encode(symbol).decode()} {id}" for symbol, id in learned.vocab.items()]
    (tmp_path / "tiktoken.model").write_text("\n".join(lines))
    n = len(lines)
    names = {n: "[BOS]", n + 1: "[EOS]", n + 2: "<|im_end|>", n + 3: "<|im_user|>", n + 255: "[PAD]"}
    config = {
        "added_tokens_decoder": {str(id): {"content": name, "special": True} for id, name in names.items()},
        "auto_map": {"AutoTokenizer": ["tokenization_kimi.TikTokenTokenizer", None]},
        "bos_token": "[BOS]", "eos_token": "[EOS]", "tokenizer_class": "TikTokenTokenizer",
    }  # fmt: skip
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": n + 2}))
    return tmp_path


def test_chinese_stands_apart_from_letters_and_numbers_are_cut_in_threes():
    cut = compiled(split_pattern("kimi")).findall
    assert cut("中文English混合") == ["中文", "English", "混合"]
    assert cut("北京市 Pascal's 12345") == ["北京市", " Pascal's", " ", "123", "45"]
    assert cut("日本の々〇 カタカナ") == ["日本", "の", "々〇", " カタカナ"]
    assert "".join(cut(TEXT)) == TEXT


def test_ids_are_tiktokens_and_special_tokens_are_the_configs(folder):
    tiktoken = pytest.importorskip("tiktoken")
    from tiktoken.load import load_tiktoken_bpe

    ours, ranks = load(folder), load_tiktoken_bpe(str(folder / "tiktoken.model"))
    theirs = tiktoken.Encoding("kimi", pat_str=split_pattern("kimi"), mergeable_ranks=ranks, special_tokens={})
    n = len(ranks)
    assert ours.encode(TEXT) == ours.fast().encode(TEXT) == theirs.encode(TEXT)
    assert ours.decode(ours.encode(TEXT)) == TEXT
    assert ours.vocab_size == n + 256
    assert ours.specials["<|im_user|>"] == n + 3
    assert ours.specials[f"<|reserved_token_{n + 4}|>"] == n + 4
    assert (ours.bos, ours.eos) == (None, (n + 1, n + 2))


def test_a_file_of_that_name_with_other_code_is_refused(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["auto_map"]["AutoTokenizer"][0] = "tokenization_other.Other"
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(TokenizerError, match=r"does not say its split pattern; known is that of tokenization_kimi\.py"):
        load(folder)
