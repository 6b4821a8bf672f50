"""Any published tokenizer, by what its files look like.

A folder may hold ``tokenizer.json``; ``vocab.json`` + ``merges.txt`` (Qwen2, GPT-2); ``encoder.json`` + ``vocab.bpe`` (GPT-2);
a ``.tiktoken`` file; Kimi's ``tiktoken.model``; a SentencePiece ``.model``; BERT's ``vocab.txt``; or llama2.c's ``tok*.bin``.
Begin and end tokens come from ``tokenizer_config.json``, ``generation_config.json`` and ``config.json``, what was added to a
vocabulary from ``tokenizer_config.json`` or ``added_tokens.json``, in the layouts of transformers 4 and 5.
"""

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from chainrule.core.errors import TokenizerError
from chainrule.core.files import exists, read_json_object, read_text
from chainrule.core.tokenizer import Tokenizer
from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.byte import END_OF_TEXT, ByteTokenizer
from chainrule.tokenizers.char import CharTokenizer
from chainrule.tokenizers.fast import LibraryTokenizer, library_json, puts_bos
from chainrule.tokenizers.llama2c import Llama2cTokenizer
from chainrule.tokenizers.patterns import PATTERNS, split_pattern, unspell
from chainrule.tokenizers.sentencepiece import SentencePiece, read_model
from chainrule.tokenizers.wordpiece import WordPiece

TIKTOKEN = {
    "cl100k_base": ("cl100k", {END_OF_TEXT: 100257, "<|fim_prefix|>": 100258, "<|fim_middle|>": 100259,
                               "<|fim_suffix|>": 100260, "<|endofprompt|>": 100276}),
    "o200k_base": ("o200k", {END_OF_TEXT: 199999, "<|endofprompt|>": 200018}),
    "r50k_base": ("r50k", {END_OF_TEXT: 50256}),
    "p50k_base": ("p50k", {END_OF_TEXT: 50256}),
}  # fmt: skip
"""The split pattern and special tokens of each published ``.tiktoken`` file, which holds neither."""
KIMI, RESERVED = "tokenization_kimi", 256
"""The code that goes with Kimi's ``tiktoken.model``, and how many special ids follow those of the file."""


def load(path: str | Path, *, pattern: str | None = None) -> Tokenizer:
    """The tokenizer in a file or folder; raises ``TokenizerError`` saying what was found and what would be right.

    ``pattern`` names how a ``.tiktoken`` file cuts texts (``cl100k``, ``o200k``, …), which it does not say itself.
    """
    path = Path(path)
    if not exists(path):
        raise TokenizerError(f"{path} does not exist; give a tokenizer file or a folder that holds one")
    if pattern is not None:
        return _tiktoken(_ranks_file(path), pattern)
    return _from_folder(path) if path.is_dir() else _from_file(path)


def _from_folder(folder: Path) -> Tokenizer:
    kind = _json(folder / "tokenizer_config.json").get("tokenizer_class")
    if kind == "ByteTokenizer":
        return ByteTokenizer()
    if kind == "CharTokenizer":
        return _characters(folder / "tokenizer_config.json")
    for names, read in _FORMATS:
        if all((folder / name).exists() for name in names):
            return read(folder / names[0])
    bins = sorted([*folder.glob("tok*.bin"), *folder.glob("*.tiktoken")])
    if len(bins) == 1:
        return _from_file(bins[0])
    found = ", ".join(sorted(file.name for file in folder.iterdir())[:12]) or "nothing"
    wanted = "; ".join(" + ".join(names) for names, _ in _FORMATS)
    raise TokenizerError(f"{folder} holds no one tokenizer (it holds {found}); there should be one of: {wanted}")


def _characters(config: Path) -> CharTokenizer:
    characters = _json(config).get("characters")
    if not isinstance(characters, str):
        raise TokenizerError(
            f"{config} is a CharTokenizer's and has characters={characters!r}; they must be a text that holds each of them"
        )
    return CharTokenizer(characters)


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds the files of a tokenizer at all."""
    named = any(all((folder / name).exists() for name in names) for names, _ in _FORMATS)
    found = any(any(folder.glob(pattern)) for pattern in ("tokenizer_config.json", "tok*.bin", "*.tiktoken"))
    return named or found


def _from_file(path: Path) -> Tokenizer:
    for names, read in _FORMATS:
        if path.name in names:
            missing = [name for name in names if not path.with_name(name).exists()]
            if missing:
                raise TokenizerError(f"{path} is one of two files and needs {missing[0]} beside it; copy that there too")
            return read(path.with_name(names[0]))
    if path.suffix == ".tiktoken":
        return _tiktoken(path)
    if path.suffix == ".json":
        return _tokenizer_json(path)
    if path.suffix == ".model":
        return _pieces(path)
    if path.suffix == ".bin":
        return Llama2cTokenizer.read(path)
    raise TokenizerError(
        f"{path} is no tokenizer file known here; known are tokenizer.json, vocab files, .tiktoken, .model, .bin"
    )


def _tokenizer_json(path: Path) -> Tokenizer:
    source, config = read_text(path), _settings(path.parent)
    tokenizer = LibraryTokenizer(source, config=config)
    adds_bos = bool(config["add_bos_token"]) if "add_bos_token" in config else puts_bos(json.loads(source))
    tokenizer.bos, tokenizer.eos = _begin_and_end(path.parent, tokenizer.added, adds_bos)
    return tokenizer


def _settings(folder: Path) -> dict[str, Any]:
    """``tokenizer_config.json``; where that does not list the added tokens, special tokens have the names of their own map."""
    config = _json(folder / "tokenizer_config.json")
    names = {} if "added_tokens_decoder" in config else _json(folder / "special_tokens_map.json")
    return config | {key: _name(token) for key, token in names.items() if key.endswith("_token") and token}


def _begin_and_end(folder: Path, added: Mapping[str, int], adds_bos: bool) -> tuple[int | None, tuple[int, ...]]:
    config = _settings(folder)
    model = _json(folder / "config.json") | _json(folder / "generation_config.json")
    # BERT's [CLS] and [SEP] frame a text as begin and end do elsewhere
    bos = added.get(_name(config.get("bos_token") or config.get("cls_token")), model.get("bos_token_id"))
    end = added.get(_name(config.get("eos_token") or config.get("sep_token")))
    listed = model.get("eos_token_id")
    eos = ([] if end is None else [end]) + (listed if isinstance(listed, list) else [] if listed is None else [listed])
    return (bos if adds_bos else None), tuple(dict.fromkeys(eos))


def _name(token: Any) -> str:
    return token.get("content", "") if isinstance(token, dict) else token or ""


def _json(path: Path) -> dict[str, Any]:
    """A JSON file of names with values; an absent one is empty."""
    return read_json_object(path, "copy it again from where it came", error=TokenizerError) if path.exists() else {}


def _vocab_and_merges(vocab: Path, merges: Path, *, pattern: str, nfc: bool, specials: dict[str, int]) -> BPE:
    ids: dict[str, int] = _json(vocab)
    lines = [line for line in read_text(merges).splitlines() if line and not line.startswith("#version")]
    pairs = [tuple(_unspelt(half, merges) for half in line.split(" ")) for line in lines]
    if bad := next((line for line, pair in zip(lines, pairs, strict=True) if len(pair) != 2), None):
        raise TokenizerError(f"{merges}: {bad!r} is no merge; a merge is two symbols with a space between")
    named = {name: id for name, id in ids.items() if name in specials} | specials
    symbols = {_unspelt(name, vocab): id for name, id in ids.items() if name not in named}
    if other := next((line for line in lines if line.replace(" ", "") not in ids), None):
        raise TokenizerError(
            f"{merges} joins {other!r}, and {vocab.name} beside it has no such symbol: the two are of different models; copy "
            "both again from one"
        )
    end = END_OF_TEXT if END_OF_TEXT in named else None
    return BPE(symbols, [(a, b) for a, b in pairs], pattern=split_pattern(pattern), specials=named, eos=end, nfc=nfc)


def _unspelt(letters: str, where: Path) -> bytes:
    """The bytes of a symbol; only byte-level vocabularies are written in GPT-2's letters."""
    try:
        return unspell(letters)
    except KeyError as error:
        raise TokenizerError(
            f"{where} is no byte-level vocabulary: {letters!r} holds {error.args[0]!r}, which is no byte's letter; give the "
            "model's tokenizer.json instead"
        ) from None


def _gpt2(encoder: Path) -> BPE:
    ids: dict[str, int] = _json(encoder)
    if END_OF_TEXT not in ids:
        raise TokenizerError(f"{encoder} has no {END_OF_TEXT}, which GPT-2's holds; copy it again from where it came")
    merges = encoder.with_name("vocab.bpe")
    return _vocab_and_merges(encoder, merges, pattern="gpt2", nfc=False, specials={END_OF_TEXT: ids[END_OF_TEXT]})


def _vocab_json(vocab: Path) -> Tokenizer:
    ids, config = _json(vocab), _settings(vocab.parent)
    kind = config.get("tokenizer_class")  # where nothing is said, the vocabulary tells
    qwen = str(kind).startswith("Qwen2") or (kind is None and END_OF_TEXT not in ids and "<s>" not in ids)
    added, specials = _added_tokens(vocab.parent)
    named = {name: id for name, id in added.items() if name in specials}
    if END_OF_TEXT in ids or (qwen and not added):
        named = {END_OF_TEXT: ids.get(END_OF_TEXT, len(ids))} | named
    merges = vocab.with_name("merges.txt")
    tokenizer = _vocab_and_merges(vocab, merges, pattern="qwen2" if qwen else "gpt2", nfc=qwen, specials=named)
    _, eos = _begin_and_end(vocab.parent, tokenizer.specials, False)
    tokenizer.eos = tuple(dict.fromkeys((*eos, *tokenizer.eos)))
    others = {name: id for name, id in added.items() if name not in specials}
    if not others:
        return tokenizer
    return LibraryTokenizer(library_json(tokenizer, others), bos=tokenizer.bos, eos=tokenizer.eos, config=config)


def _pieces(path: Path) -> SentencePiece:
    """A SentencePiece file with what the files beside it say."""
    folder, model, config = path.parent, read_model(path), _settings(path.parent)
    added, specials = _added_tokens(folder)
    extra = 0 if "added_tokens_decoder" in config else _extra_ids(path, config)
    left_out = {f"<extra_id_{i}>": len(model.pieces) + extra - 1 - i for i in range(extra)}  # T5 counts them from the end
    added, specials = added | left_out, specials | left_out.keys()
    tokenizer = SentencePiece(model, added=added, specials=specials, config=config)
    ids = {piece: id for id, (piece, _, _) in enumerate(tokenizer.pieces)}
    bos, eos = _begin_and_end(folder, ids, bool(config.get("add_bos_token", tokenizer.bos is not None)))
    tokenizer.bos = tokenizer.bos if bos is None and config.get("add_bos_token", True) else bos
    tokenizer.eos = eos if config.get("eos_token") else tuple(dict.fromkeys((*tokenizer.eos, *eos)))
    return tokenizer


def _extra_ids(path: Path, config: dict[str, Any]) -> int:
    """How many tokens T5 has for what is left out of a text; its own file says it, or nothing and it has 100."""
    kind = config.get("tokenizer_class") or _json(path.with_name("config.json")).get("model_type")
    said = config.get("extra_ids", 100 if path.name == "spiece.model" and kind in ("t5", "T5Tokenizer") else 0)
    if not isinstance(said, int) or not 0 <= said < 10_000:
        raise TokenizerError(f"the tokenizer_config.json beside {path} has extra_ids={said!r}, which is no count; T5's is 100")
    return said


def _added_tokens(folder: Path) -> tuple[dict[str, int], set[str]]:
    """(the ids of the tokens added to a vocabulary, which of them come from no text)."""
    config = _json(folder / "tokenizer_config.json")
    listed = config.get("added_tokens_decoder")
    try:
        if listed is not None:
            added = {_name(token): int(id) for id, token in listed.items()}
            specials = {_name(token) for token in listed.values() if token["special"]}
        else:
            added = {name: int(id) for name, id in _json(folder / "added_tokens.json").items()}
            names = config | _json(folder / "special_tokens_map.json")
            more = names.get("additional_special_tokens") or names.get("extra_special_tokens") or []
            specials = {_name(token) for key, token in names.items() if key.endswith("_token")}
            specials |= set(map(_name, more.values() if isinstance(more, dict) else more))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TokenizerError(f"the added tokens in {folder} cannot be understood ({error!r}); copy its files again") from error
    if wild := [name for name, id in added.items() if not name or not 0 <= id < 2**24]:
        raise TokenizerError(f"{folder} adds the token {wild[0]!r} as {added[wild[0]]}, which is no id; copy its files again")
    return added, specials & added.keys()


def _tiktoken(path: Path, pattern: str | None = None) -> BPE:
    """A file of ranks; one that is known by name has its own special tokens, another has none."""
    if pattern is None and path.stem not in TIKTOKEN:
        raise TokenizerError(
            f"{path.name} does not say its split pattern, and is none of {', '.join(TIKTOKEN)}; name the pattern, one of "
            f"{', '.join(PATTERNS)}: load(path, pattern='cl100k'), or chainrule tokenize --pattern cl100k"
        )
    known, specials = TIKTOKEN.get(path.stem, ("", {}))
    split = split_pattern(known if pattern is None else pattern)
    return BPE(_ranks(path), None, pattern=split, specials=specials, eos=END_OF_TEXT if specials else None)


def _ranks_file(path: Path) -> Path:
    """The one ``.tiktoken`` file that a path names, or that its folder holds: all that a pattern may be named for."""
    found = [path] if path.suffix == ".tiktoken" else sorted(path.glob("*.tiktoken")) if path.is_dir() else []
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise TokenizerError(
            f"a split pattern is named for a .tiktoken file alone; {path} is or holds {names}: leave the pattern out, or give "
            "the file itself"
        )
    return found[0]


def _kimi(path: Path) -> BPE:
    """Kimi's file of ranks; its special tokens are named in ``tokenizer_config.json``, and none of them begins a text."""
    config = _json(path.with_name("tokenizer_config.json"))
    code = str((config.get("auto_map") or {}).get("AutoTokenizer", KIMI))
    if KIMI not in code:
        raise TokenizerError(
            f"{path} does not say its split pattern; known is that of {KIMI}.py, but this one goes with {code}"
        )
    ranks = _ranks(path)
    named = {int(id): _name(token) for id, token in config.get("added_tokens_decoder", {}).items()}
    specials = {named.get(id, f"<|reserved_token_{id}|>"): id for id in range(len(ranks), len(ranks) + RESERVED)}
    tokenizer = BPE(ranks, None, pattern=split_pattern("kimi"), specials=specials)
    _, tokenizer.eos = _begin_and_end(path.parent, specials, False)
    return tokenizer


def _ranks(path: Path) -> dict[bytes, int]:
    """The symbols of a tiktoken file, each with its id, which is its rank."""
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        try:
            symbol, rank = line.split()
            ranks[base64.b64decode(symbol)] = int(rank)
        except ValueError as error:
            raise TokenizerError(f"{path}:{number} is {line!r}; it should be base64 and a rank") from error
    return ranks


_FORMATS: list[tuple[tuple[str, ...], Callable[[Path], Tokenizer]]] = [
    (("tokenizer.json",), _tokenizer_json),
    (("encoder.json", "vocab.bpe"), _gpt2),
    (("vocab.json", "merges.txt"), _vocab_json),
    (("tokenizer.model",), _pieces),
    (("spiece.model",), _pieces),
    (("tiktoken.model",), _kimi),
    (("vocab.txt",), WordPiece.read),
    (("tokenizer.bin",), Llama2cTokenizer.read),
]
