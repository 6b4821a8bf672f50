"""A tokenizer written into a GGUF file, so that llama.cpp cuts texts as we do, or says that it cannot.

Byte-level BPE goes as ``gpt2`` with its merges, SentencePiece's merging models, llama2.c's and their ``tokenizer.json`` form as
``llama`` with scores. llama.cpp knows split patterns by name alone: a tokenizer with another one is written with the nearest
name, whole in ``tokenizer.huggingface.json`` (which we read), and with a note that texts get other ids elsewhere.
"""

import json
from collections.abc import Mapping
from typing import Any

from chainrule.core.errors import CheckpointError
from chainrule.core.tokenizer import Tokenizer
from chainrule.hub.gguf.vocab import GGML, PRES, WHOLE
from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.byte import END_OF_TEXT, ByteTokenizer
from chainrule.tokenizers.fast import LibraryTokenizer
from chainrule.tokenizers.llama2c import FIRST_BYTE, Llama2cTokenizer
from chainrule.tokenizers.patterns import PATTERNS
from chainrule.tokenizers.sentencepiece import BPE as MERGING
from chainrule.tokenizers.sentencepiece import BYTE, CONTROL, DEFINED, NORMAL, SPACE, UNKNOWN, UNUSED, SentencePiece

Metadata = dict[str, Any]
OTHER_IDS = (
    "llama.cpp has no name for all that this tokenizer does before it merges: chainrule reads the file exactly, "
    "but other programs cut texts in another way and give some of them other ids"
)
_MARKS = "llama.cpp cuts words at combining marks (in Hindi, in Thai, in an é of two characters)"
_NOT_OURS = "which this tokenizer does not: such texts get other ids there"
OTHER_CUTS = {
    "gpt-4o": f"{_MARKS}, {_NOT_OURS}",
    "tekken": f"{_MARKS}, {_NOT_OURS}",
    "kimi-k2": f"{_MARKS}, and Chinese at 々 and 〇, {_NOT_OURS}",
}
"""Names for which llama.cpp cuts some texts otherwise than the pattern does that they stand for → what the user is told."""
NEAREST = "qwen2"
"""The name written for a pattern that llama.cpp does not know; digits stand alone there too, as in ours."""


def write_vocabulary(tokenizer: Tokenizer | None, n_rows: int) -> tuple[Metadata, str | None]:
    """(keys, a note for the user) that put a tokenizer into a file whose embedding table has ``n_rows`` rows.

    Raises ``CheckpointError`` for a tokenizer that llama.cpp has no kind for.
    """
    if tokenizer is None:
        return {GGML + "model": "none"}, None
    keys, note = _keys(tokenizer)
    columns = [GGML + name for name in ("tokens", "token_type", "scores") if GGML + name in keys]
    keys |= {column: keys[column][:n_rows] for column in columns}  # a special token may lie beyond the table
    tokens, kinds = keys[GGML + "tokens"], keys[GGML + "token_type"]
    for id in range(len(tokens), n_rows):
        tokens.append(f"[PAD{id}]")
        kinds.append(UNUSED)
        if GGML + "scores" in keys:
            keys[GGML + "scores"].append(-10000.0)
    return keys | _ends(tokenizer), note


def _keys(tokenizer: Tokenizer) -> tuple[Metadata, str | None]:
    if isinstance(tokenizer, ByteTokenizer):
        vocab = {bytes([byte]): byte for byte in range(256)}
        tokenizer = BPE(vocab, [], pattern=PATTERNS["gpt2"], specials=tokenizer.specials, bos=END_OF_TEXT, eos=END_OF_TEXT)
    if isinstance(tokenizer, BPE):
        tokenizer = tokenizer.fast()
    if isinstance(tokenizer, LibraryTokenizer):
        source = json.loads(tokenizer.source)
        if source["model"]["type"] == "BPE":
            return _byte_level(source, tokenizer) if tokenizer.byte_level else (_merged_pieces(source), None)
    if isinstance(tokenizer, Llama2cTokenizer):
        return _llama2c(tokenizer), None
    if isinstance(tokenizer, SentencePiece) and tokenizer.model.algorithm == MERGING:
        return _sentencepiece(tokenizer), None
    raise CheckpointError(
        f"GGUF has no place for this tokenizer ({type(tokenizer).__name__}): it can hold byte-level BPE, bytes, SentencePiece "
        "models that merge, and llama2.c's; export the model as a folder, to='hf' (--to hf)"
    )


def _ends(tokenizer: Tokenizer) -> Metadata:
    ids = {"bos": tokenizer.begin} | dict(zip(("eos", "eot", "eom"), tokenizer.eos, strict=False))
    keys: Metadata = {f"{GGML}{name}_token_id": id for name, id in ids.items() if id is not None}
    return keys | {GGML + "add_bos_token": tokenizer.bos is not None}


# byte-level BPE


def _byte_level(source: Any, tokenizer: LibraryTokenizer) -> tuple[Metadata, str | None]:
    vocab: dict[str, int] = {**source["model"]["vocab"], **tokenizer.added}
    tokens = _in_order(vocab)
    kinds = [NORMAL if token in source["model"]["vocab"] else UNUSED for token in tokens]
    for token, id in tokenizer.added.items():
        kinds[id] = CONTROL if token in tokenizer.specials else DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in source["model"]["merges"]]
    name, exact = _pre(source)
    keys = {GGML + "model": "gpt2", GGML + "pre": name or NEAREST, GGML + "tokens": tokens, GGML + "token_type": kinds}
    keys |= {GGML + "merges": merges} | ({} if exact else {WHOLE: json.dumps(source, ensure_ascii=False)})
    plain = not _normalizer(source) and not source["model"].get("ignore_merges")
    return keys, OTHER_CUTS.get(name or "") if exact or (name and plain) else OTHER_IDS


def _in_order(vocab: Mapping[str, int]) -> list[str]:
    """The tokens by id; an id that none has is filled, as llama.cpp wants no holes."""
    names = {id: token for token, id in vocab.items()}
    return [names.get(id, f"[PAD{id}]") for id in range(max(names) + 1)]


def _pre(source: Any) -> tuple[str | None, bool]:
    """(llama.cpp's name for the pattern of a ``tokenizer.json``, whether that name says all there is to say)."""
    patterns = _patterns(source["pre_tokenizer"])
    whole = bool(source["model"].get("ignore_merges"))
    normalizer = _normalizer(source)
    nfc = normalizer.get("type") == "NFC"
    alike = [name for name, pre in PRES.items() if pre.patterns == patterns]
    same = [name for name in alike if PRES[name].whole == whole]
    exact = bool(same) and PRES[same[0]].nfc == nfc and (nfc or not normalizer)
    return next(iter([*same, *alike]), None), exact


def _normalizer(source: Any) -> Any:
    """What is done to a text first; empty where that is nothing, of which DeepSeek writes a sequence."""
    normalizer = source.get("normalizer") or {}
    return {} if normalizer.get("normalizers") == [] else normalizer


def _patterns(part: Any) -> tuple[str, ...] | None:
    found: list[str] = []
    for one in part.get("pretokenizers", [part]):
        if one["type"] == "Split" and one["behavior"] == "Isolated" and not one.get("invert") and "Regex" in one["pattern"]:
            found.append(one["pattern"]["Regex"].replace("\r", r"\r").replace("\n", r"\n"))  # DeepSeek writes the characters
        elif one["type"] == "Digits" and one["individual_digits"]:
            found.append(r"\p{N}")
        elif one["type"] == "ByteLevel" and not one["add_prefix_space"]:
            found += [PATTERNS["gpt2"]] if one.get("use_regex", True) else []
        else:
            return None
    return tuple(found)


# pieces with scores


def _pieces(rows: list[tuple[str, float, int]], prefix: bool) -> Metadata:
    tokens, scores, kinds = (list(column) for column in zip(*rows, strict=True))
    return {GGML + "model": "llama", GGML + "pre": "default", GGML + "tokens": tokens, GGML + "scores": scores,
            GGML + "token_type": kinds, GGML + "add_space_prefix": prefix}  # fmt: skip


def _sentencepiece(tokenizer: SentencePiece) -> Metadata:
    model = tokenizer.model
    rows = [(piece or f"[PAD{id}]", score, kind) for id, (piece, score, kind) in enumerate(tokenizer.pieces)]
    keys = _pieces(rows, model.prefix) | {GGML + "remove_extra_whitespaces": model.tidy}
    return keys | ({GGML + "precompiled_charsmap": list(model.table)} if model.table else {})


def _llama2c(tokenizer: Llama2cTokenizer) -> Metadata:
    rows: list[tuple[str, float, int]] = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    rows += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    for piece, score in list(zip(tokenizer.pieces, tokenizer.scores, strict=True))[FIRST_BYTE + 256 :]:
        rows.append((piece.decode(errors="replace").replace(" ", SPACE), score, NORMAL))
    return _pieces(rows, prefix=True)


def _merged_pieces(source: Any) -> Metadata:
    """A SentencePiece model in the form of a ``tokenizer.json``: a piece's score is how early it was merged."""
    model = source["model"]
    added = {token["content"]: (token["id"], token["special"]) for token in source.get("added_tokens") or []}
    rank: dict[str, int] = {}
    for i, merge in enumerate(model["merges"]):
        rank.setdefault("".join(merge.split(" ") if isinstance(merge, str) else merge), i)
    rows: list[tuple[str, float, int]] = []
    for token in _in_order({**model["vocab"], **{name: id for name, (id, _) in added.items()}}):
        rows.append((token, -float(rank.get(token, len(rank))), _kind(token, added, model.get("unk_token"))))
    return _pieces(rows, _prepends(source))


def _kind(token: str, added: Mapping[str, tuple[int, bool]], unknown: str | None) -> int:
    if token == unknown:
        return UNKNOWN
    if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
        return BYTE
    return NORMAL if token not in added else CONTROL if added[token][1] else DEFINED


def _prepends(source: Any) -> bool:
    """Whether a space is put before a text."""
    normalizer, cut = source.get("normalizer") or {}, source.get("pre_tokenizer") or {}
    parts = normalizer.get("normalizers", [normalizer])
    before = cut.get("prepend_scheme", "always") if cut.get("type") == "Metaspace" else "never"
    return before != "never" or any(part.get("type") == "Prepend" for part in parts)
