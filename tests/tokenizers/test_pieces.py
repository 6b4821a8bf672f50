"""WordPiece, unigram and SentencePiece against the libraries that made them."""

import json
import random
import shutil

import pytest

from chainrule.core.errors import TokenizerError
from chainrule.tokenizers import load
from chainrule.tokenizers.sentencepiece import NORMAL, SentencePiece, read_model
from chainrule.tokenizers.unigram import best_cut
from chainrule.tokenizers.wordpiece import WordPiece

TEXTS = (
    "Hello, World! It's unaffable: naïve café — déjà vu.",
    "今天我来到了仙II-212。The weather is 很好!",
    "  two  spaces\tand\nlines  ",
    "e=mc^2 $5 `x` [x] #tag 100% ﬁne ①②",
    "",
    "😀 emoji and ｆｕｌｌ ｗｉｄｔｈ",
    "a" * 120,
)
ODD = (
    "[CLS] [UNK] <unk> <s> </s> <0x41> [SEP]",
    "ΟΔΟΣ Σ ΑΣ. ΣΑΣ, ΑΣ'Α ΑΣ' ΑΣ\u200bΒ İstanbul ǅ ẞ",
    "a\u2028b\u0085c\x1cd\u200d\ufeff e\u0301 नमस्ते 👩‍👩‍👧 🇨🇳",
    " ",
    "\n\n",
    "▁a ▁▁ b",
)
"""What spells a special token, whose lower case depends on its place, that is cut in unusual places."""


def test_the_longest_piece_wins_by_hand():
    tokenizer = WordPiece(["[UNK]", "un", "##aff", "##able", "##a", "##ff"])
    assert tokenizer.cut("unaffable") == ["un", "##aff", "##able"]
    assert tokenizer.encode("Unaffable xyz") == [1, 2, 3, 0]
    assert tokenizer.decode(tokenizer.encode("unaffable")) == "unaffable"


def test_a_damaged_configuration_beside_a_vocab_txt_is_named(tmp_path):
    (tmp_path / "vocab.txt").write_text("[UNK]\na\n")
    for text, because in (("{", "is not JSON"), ("[]", "holds a list")):
        (tmp_path / "tokenizer_config.json").write_text(text)
        with pytest.raises(TokenizerError, match=because):
            WordPiece.read(tmp_path / "vocab.txt")


WAYS = {
    "lower case": {"do_lower_case": True},
    "cased": {"do_lower_case": False},
    "accents stay": {"do_lower_case": True, "strip_accents": False},
    "cased, no accents, Chinese in words": {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False},
}


@pytest.fixture(scope="module", params=WAYS)
def bert(material, tmp_path_factory, request):
    """BERT's vocabulary, and how its words are read."""
    path = tmp_path_factory.mktemp("bert") / "vocab.txt"
    shutil.copy(material / "tokenizers" / "bert-base-uncased" / "vocab.txt", path)
    path.with_name("tokenizer_config.json").write_text(json.dumps(WAYS[request.param]))
    return path, WAYS[request.param]


@pytest.mark.parametrize("text", TEXTS)
def test_wordpiece_gives_berts_ids(bert, text):
    library = pytest.importorskip("tokenizers")
    path, way = bert
    ours = load(path)
    theirs = library.BertWordPieceTokenizer(
        str(path), lowercase=way["do_lower_case"], strip_accents=way.get("strip_accents"),
        handle_chinese_chars=way.get("tokenize_chinese_chars", True),
    )  # fmt: skip
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids
    assert ours.decode(ours.encode(text)) == ours.normalize(text)


def test_the_librarys_engine_gives_the_ids_of_wordpiece(bert, tmp_path):
    path, _ = bert
    ours = load(path)
    fast = ours.fast()
    assert (fast.specials, fast.bos, fast.eos, fast.vocab_size) == (ours.specials, ours.bos, ours.eos, ours.vocab_size)
    fast.save(tmp_path)
    ours.save(tmp_path / "ours")
    assert load(tmp_path / "ours").encode("Über café 今天") == ours.encode("Über café 今天")
    for text in (*TEXTS, *ODD):
        assert fast.encode(text) == load(tmp_path).encode(text) == ours.encode(text), text
        assert fast.decode(ours.encode(text)) == ours.decode(ours.encode(text))


def test_the_best_cut_is_the_most_probable_by_hand():
    scores = {"a": -1.0, "b": -1.0, "ab": -1.5, "aba": -2.0}
    assert best_cut("aba", scores, 3) == ["aba"]  # −2 beats −1.5 − 1
    assert best_cut("abxab", scores, 3) == ["ab", "x", "ab"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, request):
    """SentencePiece models of both kinds, with the usual normalisation and without; the plain ones define no symbols."""
    library = pytest.importorskip("sentencepiece")
    folder = tmp_path_factory.mktemp("sentencepiece")
    corpus = folder / "corpus.txt"
    lines = [
        f"the {a} {b} on the mat, café ｆｕｌｌ 今天{c}很好。"
        for a in ("cat", "dog", "bat")
        for b in ("sat", "sits", "slept")
        for c in ("天气", "图书馆")
    ]
    corpus.write_text("\n".join(lines * 4), encoding="utf-8")
    models = {}
    for kind in ("unigram", "bpe"):
        for rule in ("identity", "nmt_nfkc", "plain"):
            for fallback in (False, True):
                name = f"{kind}-{rule}-{fallback}"
                defined, rule_name = ([], "identity") if rule == "plain" else (["<sep>"], rule)
                library.SentencePieceTrainer.train(
                    input=str(corpus), model_prefix=str(folder / name), vocab_size=340 if fallback else 80, model_type=kind,
                    normalization_rule_name=rule_name, byte_fallback=fallback, user_defined_symbols=defined, hard_vocab_limit=False,
                    character_coverage=1.0, minloglevel=2, num_threads=1,
                )  # fmt: skip
                models[name] = folder / f"{name}.model"
    return models


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("rule", ["identity", "nmt_nfkc"])
@pytest.mark.parametrize("fallback", [False, True])
def test_sentencepiece_models_give_the_librarys_ids(trained, kind, rule, fallback):
    library = pytest.importorskip("sentencepiece")
    path = trained[f"{kind}-{rule}-{fallback}"]
    ours, theirs = load(path), library.SentencePieceProcessor(model_file=str(path))
    for text in (*TEXTS, "the cat sat", "a<sep>b", "the bat 今天天气很好。", "①½ ﬁ"):
        assert ours.encode(text) == theirs.encode(text), text
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))


def varied(count: int) -> list[str]:
    """Texts of few letters at random, known ones and others, in which many cuts are almost equally good."""
    draw = random.Random(0)
    return ["".join(draw.choices("abcdehst  ,今天很好xyz☃é", k=draw.randint(1, 60))) for _ in range(count)]


def test_the_best_cut_is_that_of_the_librarys_unigram(trained):
    library = pytest.importorskip("tokenizers")
    pieces = [(piece, score) for piece, score, kind in load(trained["unigram-identity-False"]).pieces if kind == NORMAL]
    scores, longest = dict(pieces), max(len(piece) for piece, _ in pieces)
    theirs = library.models.Unigram([("<unk>", 0.0), *pieces], unk_id=0, byte_fallback=False)
    for text in (*TEXTS, *varied(300)):
        prepared = text.replace(" ", "▁")
        ours = [piece for piece in best_cut(prepared, scores, longest) if piece in scores]
        wanted = [token.value for token in theirs.tokenize(prepared)] if prepared else []
        assert ours == [piece for piece in wanted if piece in scores]


@pytest.mark.parametrize("name", ["unigram-identity-False", "bpe-plain-False", "bpe-plain-True"])
def test_the_librarys_engine_gives_the_ids_of_sentencepiece(trained, tmp_path, name):
    ours = load(trained[name])
    fast = ours.fast()
    assert (fast.specials, fast.bos, fast.eos, fast.vocab_size) == (ours.specials, ours.bos, ours.eos, ours.vocab_size)
    fast.save(tmp_path)
    for text in (*TEXTS, *ODD, *varied(300), "the cat sat", "a<sep>b", "the bat 今天天气很好。"):
        assert fast.encode(text) == load(tmp_path).encode(text) == ours.encode(text), text
        assert fast.decode(ours.encode(text)) == ours.decode(ours.encode(text))


@pytest.mark.parametrize(
    ("name", "feature"),
    [
        ("unigram-nmt_nfkc-False", "a table of replacements"),
        ("unigram-identity-True", "byte fallback in a unigram model"),
        ("bpe-identity-False", "user-defined symbols in a model that merges"),
    ],
)
def test_what_the_library_does_otherwise_is_refused_by_its_name(trained, name, feature):
    with pytest.raises(TokenizerError, match=rf"{feature}.*without fast\(\)"):
        load(trained[name]).fast()


def test_tokens_added_beside_the_file_are_no_work_of_the_librarys(trained):
    model = read_model(trained["bpe-plain-False"])
    with pytest.raises(TokenizerError, match="tokens added beside the file"):
        SentencePiece(model, added={"<more>": len(model.pieces)}).fast()


def test_a_saved_sentencepiece_model_is_the_same(trained, tmp_path):
    ours = load(trained["unigram-nmt_nfkc-True"])
    ours.save(tmp_path)
    assert load(tmp_path).encode(TEXTS[0]) == ours.encode(TEXTS[0])


def test_a_damaged_model_is_refused(trained, tmp_path):
    data = trained["bpe-identity-False"].read_bytes()
    (tmp_path / "cut.model").write_bytes(data[: len(data) // 2 - 1])
    with pytest.raises(TokenizerError, match="cut off"):
        load(tmp_path / "cut.model")
    (tmp_path / "noise.model").write_bytes(b"\xff" * 50)
    with pytest.raises(TokenizerError):
        load(tmp_path / "noise.model")
