"""A long text is tokenised slice by slice, to the ids that it has as a whole."""

import json
import random

import pytest

from chainrule.tokenizers import fast, load
from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.fast import LibraryTokenizer
from chainrule.tokenizers.patterns import PATTERNS
from chainrule.tokenizers.slices import BEFORE_SPACE, BEHIND_LINE, safe_cuts, slices

ODD = (*"aB1 \n\r\t/'.\"é\u0301今。\u3000\u00a0\u2028\x1c\x85Σ_😀s", "\n\n", "  ", "\r\n", " the ", " a ", "'s ", "!\n", "#\n/")
RNG = random.Random(0)
FUZZ = ["".join(RNG.choices(ODD, k=RNG.randint(1, 30))) for _ in range(1000)]


@pytest.fixture(scope="module")
def texts(material) -> list[str]:
    files = ("tinyshakespeare.txt", "zh_xiyouji.txt", "wikitext-2/valid.txt")
    return [(material / "corpora" / file).read_text(encoding="utf-8")[:30_000] for file in files]


def whole(tokenizer: LibraryTokenizer, text: str) -> list[int]:
    return tokenizer._encoder.encode(text, add_special_tokens=False).ids


def check(tokenizer: LibraryTokenizer, texts: list[str]) -> None:
    """Cut wherever it may be cut, a text has the same ids; real ones are cut often."""
    for size, some in ((40, texts), (1, FUZZ)):
        parts = [list(slices(text, tokenizer._cuts, size)) for text in some]
        assert ["".join(each) for each in parts] == some
        assert size == 1 or all(len(each) > 10 for each in parts)
        for text, each in zip(some, parts, strict=True):
            ids = tokenizer._encoder.encode_batch_fast(each, add_special_tokens=False)
            assert [id for one in ids for id in one.ids] == whole(tokenizer, text), text[:100]


@pytest.mark.parametrize("nfc", [False, True])
@pytest.mark.parametrize("pattern", sorted(set(PATTERNS) - {"r50k", "p50k", "llama3"}))  # which are others' again
def test_slices_have_the_ids_of_the_whole_for_every_pattern(texts, pattern, nfc):
    ours = BPE.train([*(text[:3000] for text in texts), *FUZZ[:100]], 400, pattern=pattern, specials=("<|endoftext|>",))
    ours.nfc = nfc
    assert ours.fast()._cuts is (BEFORE_SPACE if pattern == "gpt2" else BEHIND_LINE)
    check(ours.fast(), texts)


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "bert-base-uncased"])
def test_slices_have_the_ids_of_the_whole_for_published_tokenizers(material, texts, name):
    check(load(material / "tokenizers" / name).fast(), texts)


def test_many_texts_are_the_same_ids_whatever_their_length(texts, monkeypatch):
    ours = BPE.train(texts, 400, pattern="world").fast()
    monkeypatch.setattr(fast, "AT_ONCE", 2000)
    many = [texts[0], "", *FUZZ[:50], "".join(texts), "", "x"]
    assert ours.encode_many(many) == [whole(ours, text) for text in many]
    assert ours.encode_many([]) == []


def json_of(pre_tokenizer, normalizer=None, added=()) -> dict:
    return {"pre_tokenizer": pre_tokenizer, "normalizer": normalizer, "added_tokens": list(added)}


def test_where_no_safe_cut_is_known_a_text_stays_whole():
    space = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
    digits = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, space]}
    assert safe_cuts(json_of(space)) is safe_cuts(json_of(digits)) is BEFORE_SPACE
    assert safe_cuts(json_of(space, {"type": "NFC"}, [{"content": "<tool>"}])) is BEFORE_SPACE
    split = {"type": "Split", "pattern": {"Regex": r"\s+|\w+"}, "behavior": "Isolated", "invert": False}
    for unknown in (
        json_of(None),  # LLaMA's: one piece
        json_of({"type": "Metaspace"}),
        json_of(split),
        json_of({**split, "pattern": {"Regex": PATTERNS["cl100k"]}, "behavior": "Removed"}),
        json_of({**space, "add_prefix_space": True}),
        json_of(space, {"type": "NFKC"}),
        json_of(space, added=[{"content": "a b"}]),
        json_of(space, added=[{"content": "<tool>", "lstrip": True}]),
        json_of({"type": "BertPreTokenizer"}, {"type": "Replace", "pattern": {"Regex": "\n+"}, "content": " "}),
    ):
        assert safe_cuts(unknown) is None, json.dumps(unknown)
    assert list(slices("a b\nc", None, 1)) == ["a b\nc"]
