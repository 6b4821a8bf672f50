"""WordPiece and SentencePiece models written down as ``tokenizer.json``, the `tokenizers` library's file format."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

SPACE = "▁"
FINAL_SIGMA = r"\p{Cased}\p{Case_Ignorable}*\KΣ(?!\p{Case_Ignorable}*\p{Cased})"
"""A Σ that ends a word, which becomes ς in lower case; the library lowers characters one by one, and would make it σ."""


def wordpiece_json(
    vocab: Mapping[str, int],
    specials: Mapping[str, int],
    *,
    unknown: str,
    longest: int,
    lower: bool,
    strip: bool,
    chinese: bool,
) -> str:
    """BERT's way: clean, lower case (``lower``) and accents off (``strip``), words apart, the longest piece first."""
    clean = {
        "type": "BertNormalizer",
        "clean_text": True,
        "handle_chinese_chars": chinese,
        "strip_accents": False,
        "lowercase": False,
    }
    bare = {**clean, "clean_text": False, "handle_chinese_chars": False, "strip_accents": strip, "lowercase": lower}
    sigma = {"type": "Replace", "pattern": {"Regex": FINAL_SIGMA}, "content": "ς"}
    model = {
        "type": "WordPiece",
        "unk_token": unknown,
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": longest,
        "vocab": dict(vocab),
    }
    frame = {name: [name, specials[name]] for name in ("[CLS]", "[SEP]") if name in specials}
    return _written(
        model,
        {**specials, unknown: vocab[unknown]},
        normalizer={
            "type": "Sequence",
            "normalizers": [clean, *([sigma] if lower else []), *([bare] if lower or strip else [])],
        },
        pre_tokenizer={"type": "BertPreTokenizer"},
        post_processor={"type": "BertProcessing", "sep": frame["[SEP]"], "cls": frame["[CLS]"]} if len(frame) == 2 else None,
        decoder={"type": "WordPiece", "prefix": "##", "cleanup": False},
    )


def unigram_model(pieces: Sequence[tuple[str, float]], unknown: int) -> dict[str, Any]:
    """Pieces with their log-probabilities."""
    return {"type": "Unigram", "unk_id": unknown, "vocab": [list(piece) for piece in pieces], "byte_fallback": False}


def bpe_model(names: Sequence[str], scores: Mapping[str, float], unknown: int, *, falls_back: bool) -> dict[str, Any]:
    """Merges of all pairs that make a known piece, the best score first."""
    best = sorted((piece for piece in scores if len(piece) > 1), key=lambda piece: -scores[piece])
    cuts = ((piece[:at], piece[at:]) for piece in best for at in range(1, len(piece)))
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": names[unknown],
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": True,
        "byte_fallback": falls_back,
        "ignore_merges": False,
        "vocab": {name: id for id, name in enumerate(names)},
        "merges": [[left, right] for left, right in cuts if left in scores and right in scores],
    }


def pieces_json(model: Mapping[str, Any], specials: Mapping[str, int], *, unknown: str, prefix: bool, tidy: bool) -> str:
    """SentencePiece's way around a model: spaces tidied, one put in front, written ▁."""
    tidied = [
        {"type": "Replace", "pattern": {"Regex": "^ +| +$"}, "content": ""},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "},
    ]
    space = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    first = [{"type": "Prepend", "prepend": SPACE}] if prefix else []
    spoken = [
        {"type": "Replace", "pattern": {"Regex": rf"^{unknown}$"}, "content": " ⁇ "},
        {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
        *([{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []),
    ]
    return _written(
        model,
        specials,
        normalizer={"type": "Sequence", "normalizers": [*(tidied if tidy else []), *first, space]},
        pre_tokenizer=None,
        post_processor=None,
        decoder={"type": "Sequence", "decoders": spoken},
    )


def _written(model: Mapping[str, Any], specials: Mapping[str, int], **parts: Any) -> str:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokens = [{"id": id, "content": name, **flags} for name, id in sorted(specials.items(), key=lambda item: item[1])]
    whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens, **parts, "model": model}
    return json.dumps(whole, ensure_ascii=False)
