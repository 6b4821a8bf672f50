"""BPE: merges a reader can follow by hand, then the same ids as the libraries that published them."""

import pytest

from chainrule.core.errors import TokenizerError
from chainrule.tokenizers import load
from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.patterns import split_pattern

TEXT = "low lower lowest newer newest wider. 今天我来到了仙II-212，今天的天气很好！  x = 10_000;\n\n\tdef f(n): return n + 1 😀\r\n"


def test_the_most_frequent_pair_is_merged_first():
    tokenizer = BPE.train(["aaab aaab aaab"], 256 + 2, pattern="gpt2")
    assert [left + right for left, right in tokenizer.merges or []][:1] == [b"aa"]


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k"])
def test_training_gives_the_merges_and_ids_of_the_library(pattern):
    library = pytest.importorskip("tokenizers")
    texts = [TEXT * 3, "the cat sat on the mat, the hat and the cat's bat " * 5, "小明去了公园。小红去了图书馆。" * 4]
    ours = BPE.train(texts, 420, pattern=pattern, specials=("<|endoftext|>",))
    theirs = library.Tokenizer(library.models.BPE())
    theirs.pre_tokenizer = library.pre_tokenizers.Sequence(
        [
            library.pre_tokenizers.Split(library.Regex(split_pattern(pattern)), "isolated"),
            library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = library.trainers.BpeTrainer(
        vocab_size=420 - 1, initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    theirs.train_from_iterator(texts, trainer)
    for text in (*texts, "unseen: naïve façade 123 你好世界"):
        expected = [theirs.id_to_token(id) for id in theirs.encode(text).ids]
        from chainrule.tokenizers.patterns import spell

        assert [spell(ours.token_bytes(id)) for id in ours.encode(text)] == expected
        assert ours.encode(text) == ours.fast().encode(text)


@pytest.mark.parametrize(("name", "folder"), [("gpt-2", "gpt2"), ("qwen2", "qwen2")])
def test_every_conformance_case_gives_the_exact_ids(material, name, folder):
    stem = material / "tokenizers" / "conformance" / f"ggml-vocab-{name}.gguf"
    cases = stem.with_suffix(".gguf.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    wanted = [[int(id) for id in line.split()] for line in stem.with_suffix(".gguf.out").read_text().splitlines()]
    cases = cases[: len(wanted)]
    assert len(cases) == len(wanted) >= 40
    tokenizer = load(material / "tokenizers" / folder)
    fast = tokenizer.fast()
    for text, ids in zip(cases, wanted, strict=True):
        assert tokenizer.encode(text) == ids == fast.encode(text)


def test_cl100k_agrees_with_tiktoken(material):
    tiktoken = pytest.importorskip("tiktoken")
    path = material / "tokenizers" / "openai" / "cl100k_base.tiktoken"
    ours = load(path)
    from tiktoken.load import load_tiktoken_bpe

    theirs = tiktoken.Encoding(
        "cl100k", pat_str=split_pattern("cl100k"), mergeable_ranks=load_tiktoken_bpe(str(path)), special_tokens={}
    )
    for text in (TEXT, "", " ", "a" * 40, "don't DON'T 'll", "print(f'{x:>10}')"):
        assert ours.encode(text) == theirs.encode(text)


def test_tok512_of_llama2c_round_trips(material):
    tokenizer = load(material / "stories260K" / "tok512.bin")
    for text in ("Once upon a time, there was a little girl.", "今天 😀", "two  spaces"):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_saved_tokenizer_is_the_same_tokenizer(tmp_path):
    tokenizer = BPE.train([TEXT * 3], 300, pattern="world", specials=("<|endoftext|>", "<|im_end|>"))
    tokenizer.save(tmp_path)
    again = load(tmp_path)
    assert again.encode(TEXT) == tokenizer.encode(TEXT)
    assert again.specials == tokenizer.specials
    assert again.eos == tokenizer.eos


def test_in_the_worlds_pattern_numbers_and_quoted_words_are_the_same_tokens_everywhere_and_nouns_keep_their_articles():
    from chainrule.tokenizers.patterns import compiled

    cut = compiled(split_pattern("world")).findall
    assert cut("Tom has 3 hats. 3 + 4 = 12") == ["Tom", " has ", "3", " hats", ". ", "3", " + ", "4", " = ", "1", "2"]
    assert cut("print(3 + 4)") == ["print", "(", "3", " + ", "4", ")"]
    assert cut('prints "egg" 2 times: print("egg")') == [
        "prints ", '"', "egg", '" ', "2", " times", ":", " print", "(", '"', "egg", '"', ")"
    ]  # fmt: skip
    assert cut('输出"石头"') == ["输出", '"', "石头", '"']
    assert cut("He ran to the park, then to a farm.") == ["He", " ran", " to", " the park", ",", " then", " to", " a farm", "."]
    assert "".join(cut(TEXT)) == TEXT


def test_what_is_no_tokenizer_is_refused_with_what_was_found(tmp_path):
    with pytest.raises(TokenizerError, match="does not exist"):
        load(tmp_path / "nowhere")
    (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(TokenizerError, match=r"readme\.txt"):
        load(tmp_path)
    (tmp_path / "strange.tiktoken").write_text("YQ== 0")
    with pytest.raises(TokenizerError, match="split pattern"):
        load(tmp_path / "strange.tiktoken")


def test_half_a_surrogate_pair_is_no_text():
    ours = BPE.train(["a text of a few words, a text"], 270, pattern="gpt2")
    for tokenizer in (ours, ours.fast()):
        with pytest.raises(UnicodeEncodeError):
            tokenizer.encode("a \udcff text")
    with pytest.raises(UnicodeEncodeError):
        ours.fast().encode_many(["a text", "\ud800"])
