"""WordPiece, unigram and SentencePiece against the libraries that made them."""

import pytest

from chainrule.core.errors import TokenizerError
from chainrule.tokenizers import load
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


@pytest.mark.parametrize("text", TEXTS)
def test_wordpiece_gives_berts_ids(material, text):
    library = pytest.importorskip("tokenizers")
    path = material / "tokenizers" / "bert-base-uncased" / "vocab.txt"
    ours = load(path)
    theirs = library.BertWordPieceTokenizer(str(path), lowercase=True)
    assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids
    assert ours.decode(ours.encode(text)) == ours.normalize(text)


def test_the_best_cut_is_the_most_probable_by_hand():
    scores = {"a": -1.0, "b": -1.0, "ab": -1.5, "aba": -2.0}
    assert best_cut("aba", scores, 3) == ["aba"]  # −2 beats −1.5 − 1
    assert best_cut("abxab", scores, 3) == ["ab", "x", "ab"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, request):
    """SentencePiece models of both kinds, plain and with the usual normalisation."""
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
        for rule in ("identity", "nmt_nfkc"):
            for fallback in (False, True):
                name = f"{kind}-{rule}-{fallback}"
                library.SentencePieceTrainer.train(
                    input=str(corpus), model_prefix=str(folder / name), vocab_size=340 if fallback else 80, model_type=kind,
                    normalization_rule_name=rule, byte_fallback=fallback, user_defined_symbols=["<sep>"], hard_vocab_limit=False,
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
