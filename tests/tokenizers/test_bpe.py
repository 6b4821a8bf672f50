"""BPE: merges a reader can follow by hand, then the same merges and ids as the libraries that published them."""

import base64
import json
import shutil

import pytest

from chainrule.cli import main
from chainrule.core.errors import TokenizerError
from chainrule.hub.tokenizer import find_tokenizer
from chainrule.tokenizers import load
from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.patterns import PATTERNS, compiled, spell, split_pattern
from chainrule.tokenizers.published import TIKTOKEN

TEXT = "low lower lowest newer newest wider. 今天我来到了仙II-212，今天的天气很好！  x = 10_000;\n\n\tdef f(n): return n + 1 😀\r\n"
VARIED = (
    TEXT,
    "I'm sure they'll say DON'T, you'Ve, O'Neill's, it'ſ and rock'n'roll",
    "camelCaseWORDAndHTMLParser ÀÉÎ straße ǅ ʰ ॐ नमस्ते e\u0301te\u0301 ﬁne ①²³ Ⅷ",
    "2024-07-26 1234567 3.14159 1e-9 ٣٤٥ 一二三 ½",
    "   three\n\n  \n\tand\r\n\r\n  more \u00a0\u3000 spaces \n",
    "a/b//c/\n//d https://example.org/x?y=z#w {'k': [1, 2]} <|endoftext|> -->\r\n---\n",
    "👩‍👩‍👧 🇨🇳 ✈️!!! ??…— «quoted» 「引号」，。；\u200b\ufeff",
    "trailing   ",
    "\n",
    " ",
    "",
)
TAIL = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WRITTEN = {
    # openai/gpt-2, src/encoder.py
    "gpt2": r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""",
    # meta-llama/llama3, llama/tokenizer.py
    "llama3": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + TAIL,
    # Qwen/Qwen2-7B, tokenizer.json
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + TAIL,
    # moonshotai/Kimi-K2-Instruct, tokenization_kimi.py; V1 is the version of regular expressions that knows &&
    "kimi": r"(?V1)[\p{Han}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}" + TAIL,
}


@pytest.fixture
def published(monkeypatch):
    """What tiktoken says of an encoding, but for its ranks, which it would download."""
    openai = pytest.importorskip("tiktoken_ext.openai_public")
    monkeypatch.setattr(openai, "load_tiktoken_bpe", lambda *address, **hashes: {})
    monkeypatch.setattr(openai, "data_gym_to_mergeable_bpe_ranks", lambda **addresses: {})
    return lambda name: openai.ENCODING_CONSTRUCTORS[name]()


def test_the_most_frequent_pair_is_merged_first():
    tokenizer = BPE.train(["aaab aaab aaab"], 256 + 2, pattern="gpt2")
    assert [left + right for left, right in tokenizer.merges or []][:1] == [b"aa"]


def held_to_the_library(texts, unseen, vocab_size, pattern) -> int:
    """Ours and the library's, trained on the same texts, have the same merges and ids; returns how many merges."""
    library = pytest.importorskip("tokenizers")
    ours = BPE.train(texts, vocab_size, pattern=pattern, specials=("<|endoftext|>",))
    theirs = library.Tokenizer(library.models.BPE())
    theirs.pre_tokenizer = library.pre_tokenizers.Sequence(
        [
            library.pre_tokenizers.Split(library.Regex(split_pattern(pattern)), "isolated"),
            library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = library.trainers.BpeTrainer(
        vocab_size=vocab_size - 1, initial_alphabet=library.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    theirs.train_from_iterator(texts, trainer)
    learned = json.loads(theirs.to_str())["model"]["merges"]
    assert [[spell(left), spell(right)] for left, right in ours.merges or ()] == learned
    for text in (*texts, unseen):
        encoded, ids = theirs.encode(text), ours.encode(text)
        assert [spell(ours.token_bytes(id)) for id in ids] == encoded.tokens
        assert [id - 1 for id in ids] == encoded.ids  # ours begin with the special token
        assert ids == ours.fast().encode(text)
    return len(learned)


@pytest.mark.parametrize("pattern", ["gpt2", "cl100k"])
def test_training_gives_the_merges_and_ids_of_the_library(pattern):
    texts = [TEXT * 3, "the cat sat on the mat, the hat and the cat's bat " * 5, "小明去了公园。小红去了图书馆。" * 4]
    assert held_to_the_library(texts, "unseen: naïve façade 123 你好世界", 420, pattern) > 100


@pytest.mark.parametrize(("corpus", "length"), [("tinyshakespeare", 200_000), ("zh_xiyouji", 20_000)])
def test_training_on_a_real_text_gives_the_merges_and_ids_of_the_library(material, corpus, length):
    """Thousands of pairs are as frequent as another here, and the one with the smaller ids goes first."""
    text = (material / "corpora" / f"{corpus}.txt").read_bytes().decode()  # with its line ends as they are
    assert held_to_the_library([text[:length]], text[-2000:], 1500, "cl100k") == 1500 - 257


@pytest.mark.parametrize(("name", "folder"), [("gpt-2", "gpt2"), ("qwen2", "qwen2")])
def test_every_conformance_case_gives_the_exact_ids(material, name, folder):
    stem = material / "tokenizers" / "conformance" / f"ggml-vocab-{name}.gguf"
    *cases, rest = stem.with_suffix(".gguf.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    wanted = [[int(id) for id in line.split()] for line in stem.with_suffix(".gguf.out").read_text().splitlines()]
    assert rest == ""
    assert len(cases) == len(wanted) == 46
    tokenizer = load(material / "tokenizers" / folder)
    fast = tokenizer.fast()
    for text, ids in zip(cases, wanted, strict=True):
        assert tokenizer.encode(text) == ids == fast.encode(text)


@pytest.mark.parametrize("name", [*TIKTOKEN, "gpt2"])
def test_texts_are_cut_as_tiktoken_says_and_the_special_tokens_are_its_own(published, name):
    theirs = published(name)
    pattern, specials = TIKTOKEN.get(name, ("gpt2", TIKTOKEN["r50k_base"][1]))
    for text in VARIED:
        assert compiled(split_pattern(pattern)).findall(text) == compiled(theirs["pat_str"]).findall(text)
    assert specials == theirs["special_tokens"]


@pytest.mark.parametrize("name", WRITTEN)
def test_texts_are_cut_as_the_publishers_wrote(name):
    for text in VARIED:
        assert compiled(split_pattern(name)).findall(text) == compiled(WRITTEN[name]).findall(text)


def test_every_pattern_is_compared_with_a_published_one_but_ours():
    assert set(PATTERNS) - {"world"} == {pattern for pattern, _ in TIKTOKEN.values()} | set(WRITTEN)


@pytest.mark.parametrize("name", ["cl100k_base", "o200k_base"])
def test_ids_agree_with_tiktoken(material, published, name):
    """Of o200k the pattern alone: its ranks are not at hand, and those of cl100k show the cuts as well."""
    tiktoken = pytest.importorskip("tiktoken")
    path = material / "tokenizers" / "openai" / "cl100k_base.tiktoken"
    ours = load(path)
    if name == "o200k_base":
        ours = BPE(ours.vocab, None, pattern=split_pattern("o200k"))
    theirs = tiktoken.Encoding(name, pat_str=published(name)["pat_str"], mergeable_ranks=ours.vocab, special_tokens={})
    for text in (*VARIED, "a" * 40, "print(f'{x:>10}')"):
        assert ours.encode(text) == theirs.encode(text)


def test_tok512_of_llama2c_round_trips(material):
    tokenizer = load(material / "stories260K" / "tok512.bin")
    for text in ("Once upon a time, there was a little girl.", "今天 😀", "two  spaces"):
        assert tokenizer.decode(tokenizer.encode(text)) == text
    golden = json.loads((material / "stories260K" / "golden.json").read_text(encoding="utf-8"))
    said = golden["greedy_ids"][1:]  # the first is BOS
    assert tokenizer.decode(said) == golden["text"]
    assert tokenizer.encode(golden["text"]) == said


def test_a_saved_tokenizer_is_the_same_tokenizer(tmp_path):
    tokenizer = BPE.train([TEXT * 3], 300, pattern="world", specials=("<|endoftext|>", "<|im_end|>"))
    tokenizer.save(tmp_path)
    again = load(tmp_path)
    assert again.encode(TEXT) == tokenizer.encode(TEXT)
    assert again.specials == tokenizer.specials
    assert again.eos == tokenizer.eos


def test_in_the_worlds_pattern_numbers_and_quoted_words_are_the_same_tokens_everywhere_and_nouns_keep_their_articles():
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
    with pytest.raises(TokenizerError, match=r"split pattern.*cl100k_base.*qwen2.*pattern='cl100k'.*--pattern cl100k"):
        load(tmp_path / "strange.tiktoken")


def test_a_tiktoken_file_of_any_name_is_cut_by_the_pattern_that_is_named(material, tmp_path):
    published = material / "tokenizers" / "openai" / "cl100k_base.tiktoken"
    theirs = tmp_path / "theirs.tiktoken"
    shutil.copy(published, theirs)
    known, named = load(published), load(theirs, pattern="cl100k")
    assert named.encode(TEXT) == load(tmp_path, pattern="cl100k").encode(TEXT) == known.encode(TEXT)
    assert (named.specials, named.eos) == ({}, ())  # a file of ranks names no special tokens
    assert len(load(theirs, pattern="qwen2").encode("1234")) == 4
    with pytest.raises(TokenizerError, match=r"'cl200k'; did you mean 'cl100k'"):
        load(theirs, pattern="cl200k")
    with pytest.raises(TokenizerError, match=r"\.tiktoken file alone"):
        load(material / "tokenizers" / "gpt2", pattern="gpt2")


def test_the_verb_names_a_pattern_too(tmp_path, capsys):
    lines = [
        f"{base64.b64encode(symbol).decode()} {id}" for id, symbol in enumerate([*(bytes([i]) for i in range(256)), b"12"])
    ]
    (tmp_path / "mine.tiktoken").write_text("\n".join(lines))
    for pattern, pieces in (("cl100k", "a|12"), ("qwen2", "a|1|2")):
        assert main(["tokenize", str(tmp_path / "mine.tiktoken"), "a12", "--pattern", pattern]) == 0
        assert capsys.readouterr().out.splitlines()[0] == pieces
    with pytest.raises(TokenizerError, match="cut by no pattern"):
        find_tokenizer("bytes", pattern="qwen2")


def test_half_a_surrogate_pair_is_no_text():
    ours = BPE.train(["a text of a few words, a text"], 270, pattern="gpt2")
    for tokenizer in (ours, ours.fast()):
        with pytest.raises(UnicodeEncodeError):
            tokenizer.encode("a \udcff text")
    with pytest.raises(UnicodeEncodeError):
        ours.fast().encode_many(["a text", "\ud800"])
    with pytest.raises(UnicodeEncodeError):
        ours.fast().encode_rendered("\udcff")
