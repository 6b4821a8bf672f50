"""The tokenizer inside a GGUF file, read: byte-level BPE with its merges, or SentencePiece's pieces with their scores.

    tokenizer.ggml.model   gpt2    tokens in GPT-2's letters, merges, and as ``pre`` llama.cpp's name for the split pattern
                           llama   pieces with scores, merged best score first, characters without a piece as bytes
    token_type             1 normal, 2 unknown, 3 control, 4 user defined, 5 unused, 6 byte, as in SentencePiece

A ``pre`` that is not known here is an error: another pattern would give other ids, and nobody would notice. A file without one
is cut as llama.cpp cuts it, and a note says so.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chainrule.core.errors import CheckpointError, TokenizerError, nearest
from chainrule.core.tokenizer import Tokenizer
from chainrule.tokenizers.fast import LibraryTokenizer, byte_level_json
from chainrule.tokenizers.patterns import PATTERNS, letter_bytes
from chainrule.tokenizers.sentencepiece import BPE as MERGING
from chainrule.tokenizers.sentencepiece import (
    BYTE,
    CONTROL,
    DEFINED,
    NORMAL,
    UNKNOWN,
    UNUSED,
    Model,
    SentencePiece,
    model_bytes,
)

Metadata = Mapping[str, Any]
GGML = "tokenizer.ggml."
TEMPLATE, FOR_TOOLS = "tokenizer.chat_template", "tokenizer.chat_template.tool_use"
WHOLE = "tokenizer.huggingface.json"


@dataclass(frozen=True, kw_only=True)
class Pre:
    """How a text is cut before merging: patterns, one after the other; ``whole``: a piece that is a token is not merged."""

    patterns: tuple[str, ...]
    whole: bool = False
    nfc: bool = False
    adds_bos: bool = False


DEFAULT = "default"
"""llama.cpp's name for how it cuts texts where a file does not say."""
_DIGITS = r"\p{N}"
_GPT2, _LLAMA3, _QWEN2, _O200K = (PATTERNS[name] for name in ("gpt2", "llama3", "qwen2", "o200k"))
_DEEPSEEK = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
)
_LATIN = (
    r"A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅ"
    r"Ὀ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯ"
    r"ꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
"""The letters that DeepSeek's first tokenizer keeps together: those of scripts with an upper and a lower case."""
_DEEPSEEK_LLM = (
    r"[\r\n]",
    rf"\s?[{_LATIN}]+",
    r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
    r"\s+$",
    r"[一-龥ࠀ-一가-퟿]+",
    _DIGITS,
)
_DEEPSEEK_CODER = (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-퟿]+", _DIGITS)
_DEFAULT = (r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", r"[0-9][0-9][0-9]")
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRES = {
    "gpt-2": Pre(patterns=(_GPT2,)),
    "qwen2": Pre(patterns=(_QWEN2,), nfc=True),
    "llama-bpe": Pre(patterns=(_LLAMA3,), whole=True, adds_bos=True),
    "smaug-bpe": Pre(patterns=(_LLAMA3,)),
    "glm4": Pre(patterns=(_LLAMA3,), whole=True),
    "gpt-4o": Pre(patterns=(_O200K,)),
    "smollm": Pre(patterns=(_DIGITS, _GPT2)),
    "tekken": Pre(patterns=(_TEKKEN,), whole=True, adds_bos=True),
    "deepseek-v3": Pre(patterns=_DEEPSEEK),
    "deepseek-llm": Pre(patterns=_DEEPSEEK_LLM),
    "deepseek-coder": Pre(patterns=_DEEPSEEK_CODER),
    "kimi-k2": Pre(patterns=(PATTERNS["kimi"],), whole=True),
    DEFAULT: Pre(patterns=_DEFAULT),
}
"""llama.cpp's names of the split patterns; the first one of several that mean the same is the one written.

As in the publisher's own files, a digit stands alone in ``deepseek-llm``, and a piece of ``kimi-k2`` that is a token is not
merged. llama.cpp does neither, which gives other ids only to a vocabulary that was not learned that way.
"""
SAME = {
    "llama3": "llama-bpe", "llama-v3": "llama-bpe", "falcon3": "llama-bpe", "dbrx": "smaug-bpe", "chatglm-bpe": "smaug-bpe",
    "deepseek-r1-qwen": "qwen2", "stablelm2": "qwen2", "llama4": "gpt-4o", "minimax-m2": "gpt-4o", "phi-2": "gpt-2",
    "olmo": "gpt-2", "mpt": "gpt-2", "starcoder": "smollm", "refact": "smollm", "command-r": "smollm",
}  # fmt: skip


def read_vocabulary(metadata: Metadata, where: Path) -> Tokenizer | None:
    """The tokenizer of a file, or None where it holds none; raises ``CheckpointError`` for one that is not known here."""
    kind = metadata.get(GGML + "model")
    if kind in (None, "none", "no_vocab"):
        return None
    if kind not in ("gpt2", "llama"):
        raise CheckpointError(
            f"{where} holds a tokenizer of kind {kind!r}; only gpt2 (byte-level BPE) and llama (SentencePiece) can be read"
        )
    tokens, kinds, scores = _columns(metadata, where)
    try:
        if kind == "gpt2":
            return _byte_level(metadata, tokens, kinds, where)
        return _pieces(metadata, list(zip(tokens, scores, kinds, strict=True)), where)
    except TokenizerError as error:
        raise CheckpointError(f"the tokenizer in {where} cannot be used: {error}") from error


def _columns(metadata: Metadata, where: Path) -> tuple[list[str], list[int], list[float]]:
    """(tokens, types, scores); what pads the three to the size of the embedding table is left out."""
    tokens = _list(metadata, "tokens", str, where)
    if not tokens:
        raise CheckpointError(f"{where} names a tokenizer but lists no tokens; export it again")
    kinds = _list(metadata, "token_type", int, where) or [NORMAL] * len(tokens)
    scores = _list(metadata, "scores", (int, float), where) or [0.0] * len(tokens)
    for what, column in (("token types", kinds), ("scores", scores)):
        if len(column) != len(tokens):
            raise CheckpointError(f"{where} lists {len(tokens)} tokens but not as many {what}: {len(column)}; export it again")
    if wild := [score for score in scores if not abs(score) < 1e38]:
        raise CheckpointError(f"{where} gives a token the score {wild[0]}, which is no number to compare; export it again")
    if strange := set(kinds) - set(range(7)):
        raise CheckpointError(f"{where} holds tokens of type {min(strange)}; the types are 1 to {BYTE}; export it again")
    n = len(tokens)
    while n > 1 and kinds[n - 1] == UNUSED:
        n -= 1
    return tokens[:n], kinds[:n], scores[:n]


def _list(metadata: Metadata, key: str, kind: Any, where: Path) -> list[Any]:
    """A list of the tokenizer's, empty where the file has none; raises ``CheckpointError`` for anything but such a list."""
    items = metadata.get(GGML + key, [])
    if not isinstance(items, list) or not all(isinstance(item, kind) for item in items):
        raise CheckpointError(f"{where}: {GGML}{key} is {str(items)[:60]}, which is no list of its kind; export it again")
    return items


def _ends(metadata: Metadata, n: int) -> tuple[int | None, tuple[int, ...]]:
    """(begin, ends) of texts."""
    ids = [metadata.get(f"{GGML}{name}_token_id") for name in ("bos", "eos", "eot", "eom")]
    bos, *ends = [id if isinstance(id, int) and 0 <= id < n else None for id in ids]
    return bos, tuple(dict.fromkeys(id for id in ends if id is not None))


def _byte_level(metadata: Metadata, tokens: list[str], kinds: list[int], where: Path) -> Tokenizer:
    name = str(metadata.get(GGML + "pre") or DEFAULT)
    bos, eos = _ends(metadata, len(tokens))
    if isinstance(whole := metadata.get(WHOLE), str):
        adds = metadata.get(GGML + "add_bos_token", False)
        return LibraryTokenizer(whole, bos=bos if adds else None, eos=eos)
    pre = PRES.get(SAME.get(name, name))
    if pre is None:
        raise CheckpointError(
            f"{where}: its tokenizer cuts texts by {name!r}, which is not known here{nearest(name, [*PRES, *SAME])}"
        )
    if name == DEFAULT:
        print(
            f"note: {where} does not say how its tokenizer cuts texts; they are cut as llama.cpp does then, and the model may "
            "have learned from other ids: a newer file of it says how",
            file=sys.stderr,
        )
    added = {
        token: id for id, (token, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind in (CONTROL, DEFINED, UNKNOWN)
    }
    source = byte_level_json(
        {token: id for id, token in enumerate(tokens)},
        [_pair(line) for line in _list(metadata, "merges", str, where)],
        patterns=pre.patterns,
        added=added,
        specials={token for token, id in added.items() if kinds[id] != DEFINED},
        nfc=pre.nfc,
        whole=pre.whole,
    )
    return LibraryTokenizer(source, bos=bos if metadata.get(GGML + "add_bos_token", pre.adds_bos) else None, eos=eos)


def _pair(line: str) -> tuple[str, str]:
    halves = line.split(" ")
    if len(halves) != 2 or not all(half and all(letter in letter_bytes() for letter in half) for half in halves):
        raise TokenizerError(f"{line!r} is no merge; a merge is two symbols in GPT-2's letters with a space between")
    return halves[0], halves[1]


def _pieces(metadata: Metadata, pieces: list[tuple[str, float, int]], where: Path) -> SentencePiece:
    for piece in (piece for piece, _, kind in pieces if kind == BYTE and not re.fullmatch(r"<0x[0-9A-Fa-f]{2}>", piece)):
        raise TokenizerError(f"{piece!r} is no byte; bytes are written <0x00> to <0xFF>")
    bos, eos = _ends(metadata, len(pieces))
    ids = {"bos": -1 if bos is None else bos, "eos": eos[0] if eos else -1}
    prefix = bool(metadata.get(GGML + "add_space_prefix", True))
    tidy = bool(metadata.get(GGML + "remove_extra_whitespaces", False))
    table = bytes(byte & 255 for byte in _list(metadata, "precompiled_charsmap", int, where))
    raw = model_bytes(pieces, MERGING, ids, table, prefix=prefix, tidy=tidy)
    model = Model(pieces, MERGING, ids, table, prefix, tidy, raw)
    tokenizer = SentencePiece(model, adds_bos=bool(metadata.get(GGML + "add_bos_token", True)))
    tokenizer.eos = eos
    return tokenizer
