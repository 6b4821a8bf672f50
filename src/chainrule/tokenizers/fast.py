"""The `tokenizers` library as engine behind our interface, and our BPE written down in its file format.

The library runs any ``tokenizer.json``; what it would do beyond encoding (adding BOS, matching the special tokens that a text
spells) is left undone here: a text never yields a special id.
"""

import itertools
import json
import re
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from chainrule.core.errors import TokenizerError
from chainrule.core.files import write_text
from chainrule.core.tokenizer import Tokenizer
from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.patterns import letter_bytes, spell, unspell
from chainrule.tokenizers.slices import safe_cuts, slices

AT_ONCE = 2**18
"""So many characters are encoded together."""


class LibraryTokenizer(Tokenizer):
    """A ``tokenizer.json`` (as text) with its begin and end ids."""

    def __init__(self, source: str, *, bos: int | None = None, eos: tuple[int, ...] = (), config: Any = None) -> None:
        self._engine = _engine(source)
        self.source, self._config = source, config or {}
        self.published_names = token_names(self._config)
        self._json = json.loads(source)
        added = self._json.get("added_tokens") or []
        self._unknown = None if self.byte_level else _unknown(self._json["model"])
        # what cannot be spelt yields <unk>, so it is none of those that no text yields
        special = [token for token in added if token["special"] and token["content"] != self._unknown]
        self.specials = {token["content"]: token["id"] for token in special}
        self._special_ids = frozenset(self.specials.values())
        whole = self._json["model"].get("type") in ("Unigram", "WordLevel")
        unspelt = {*self.specials, *([] if self._unknown is None else [self._unknown])}
        self._encoder = _engine(_unspellable(self._json, unspelt)) if whole else self._engine
        self._encoder.encode_special_tokens = True
        self.added = {token["content"]: token["id"] for token in added}
        self._names = {id: name for name, id in self.added.items()}
        self._stricter: dict[frozenset[str], LibraryTokenizer] = {}
        self.vocab_size = max(self._engine.get_vocab(with_added_tokens=True).values()) + 1
        self.bos, self.eos = bos, eos
        self.strips = {token["content"]: (bool(token.get("lstrip")), bool(token.get("rstrip"))) for token in added}
        strips = any(any(self.strips[token["content"]]) for token in added if not token["special"])
        self.lossless = self.byte_level and not (self._json.get("normalizer") or _puts_space(self._json) or strips)
        wordpiece = self._json["model"].get("type") == "WordPiece"
        self._joint = (self._json["model"].get("continuing_subword_prefix") or "") if wordpiece else ""

    def with_specials(self, names: frozenset[str]) -> "LibraryTokenizer":
        """The same tokenizer with these of the added tokens special too: no text yields them any more."""
        if names not in self._stricter:
            added = [
                {**token, "special": token["special"] or token["content"] in names} for token in self._json["added_tokens"]
            ]
            source = json.dumps({**self._json, "added_tokens": added}, ensure_ascii=False)
            self._stricter[names] = LibraryTokenizer(source, bos=self.bos, eos=self.eos, config=self._config)
        return self._stricter[names]

    def inside(self) -> "LibraryTokenizer":
        """The same tokenizer behind a special token: without the ▁ that some put before a text's first word alone."""
        source = json.loads(self.source)
        cut = source.get("pre_tokenizer") or {}
        firsts = [part for part in cut.get("pretokenizers", [cut]) if part.get("prepend_scheme") == "first"]
        if not firsts:
            return self
        for part in firsts:
            part["prepend_scheme"] = "never"
        return LibraryTokenizer(json.dumps(source, ensure_ascii=False), bos=self.bos, eos=self.eos, config=self._config)

    @cached_property
    def _cuts(self) -> re.Pattern[str] | None:
        """Where a long text may be cut."""
        return safe_cuts(self._json)

    @cached_property
    def byte_level(self) -> bool:
        """Whether tokens are bytes, written in GPT-2's letters."""
        return _holds(self._json.get("decoder"), "ByteLevel")

    def encode(self, text: str) -> list[int]:
        try:
            return self._encoder.encode(text, add_special_tokens=False).ids
        except TypeError:
            text.encode()  # half of a surrogate pair is no text, and says so here by its name
            raise

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of many texts, on all cores; some at a time, for an encoding takes a hundred times the room of its ids."""
        ids: list[list[int]] = [[] for _ in texts]
        parts = ((i, part) for i, text in enumerate(texts) for part in slices(text, self._cuts))
        try:
            for some in _together(parts):
                encodings = self._encoder.encode_batch_fast([part for _, part in some], add_special_tokens=False)
                for (i, _), one in zip(some, encodings, strict=True):
                    ids[i] += one.ids
        except TypeError:
            "".join(texts).encode()
            raise
        return ids

    def encode_rendered(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of a text whose special-token strings are special tokens (a rendered chat), and where each stands in it."""
        try:
            encoding = self._rendering.encode(text, add_special_tokens=False)
        except TypeError:
            text.encode()
            raise
        return encoding.ids, encoding.offsets

    @cached_property
    def _rendering(self) -> Any:
        """A second engine, which finds special tokens; switching the first one's ways would not be safe among threads.

        It does not find <unk>, which stands for what cannot be spelt.
        """
        added = self._json.get("added_tokens") or []
        others = [token for token in added if token["content"] != self._unknown]
        return _engine(self.source if others == added else json.dumps({**self._json, "added_tokens": others}))

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        kept = list(ids) if specials else [id for id in ids if id not in self._special_ids]
        return self._engine.decode(kept, skip_special_tokens=False)

    def token_bytes(self, id: int) -> bytes:
        token = self._engine.id_to_token(id)
        if token is None or token in self.specials:
            return b""
        if self.byte_level:
            spelt = id not in self._names and all(letter in letter_bytes() for letter in token)
            return unspell(token) if spelt else token.encode()
        if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            return bytes([int(token[3:5], 16)])
        return token.replace("▁", " ").removeprefix(self._joint).encode()

    def piece(self, id: int) -> str:
        token = self._engine.id_to_token(id) or ""
        goes_on = bool(self._joint) and token.startswith(self._joint)  # WordPiece's ## shows that it goes on a word
        return token if goes_on else super().piece(id)

    def normalize(self, text: str) -> str:
        return text if self.lossless else self.decode(self.encode(text))

    def save(self, folder: Path) -> None:
        write_text(folder / "tokenizer.json", self._source_with_bos())
        write_text(folder / "tokenizer_config.json", json.dumps(self._settings(), ensure_ascii=False, indent=2))

    def _source_with_bos(self) -> str:
        """The file, made to put BOS before a text itself: other programs look nowhere else for that."""
        name = None if self.bos is None else self._engine.id_to_token(self.bos)
        if name is None or puts_bos(self._json):
            return self.source
        text, second = {"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}
        bos = {"SpecialToken": {"id": name, "type_id": 0}}
        before: dict[str, Any] = {
            "type": "TemplateProcessing",
            "single": [bos, text],
            "pair": [bos, text, second],
            "special_tokens": {name: {"id": name, "ids": [self.bos], "tokens": [name]}},
        }
        if after := self._json.get("post_processor"):
            before = {"type": "Sequence", "processors": [*after.get("processors", [after]), before]}
        return json.dumps({**self._json, "post_processor": before}, ensure_ascii=False)

    def _settings(self) -> dict[str, Any]:
        names = {id: name for name, id in self.specials.items()}
        settings = {key: value for key, value in self._config.items() if key != "chat_template"}
        settings |= {
            "backend": "tokenizers",
            "tokenizer_class": "TokenizersBackend",
            "add_bos_token": self.bos is not None,
        }
        if self.bos in names:
            settings["bos_token"] = names[self.bos]
        if self.end in names:
            settings["eos_token"] = names[self.end]
        return settings


def _together(parts: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """Numbered parts of texts, so many at a time as are encoded together."""
    some: list[tuple[int, str]] = []
    room = AT_ONCE
    for part in parts:
        some.append(part)
        room -= 100 + len(part[1])  # the encoding of an empty one takes room too
        if room <= 0:
            yield some
            some, room = [], AT_ONCE
    if some:
        yield some


def token_names(config: Mapping[str, Any]) -> dict[str, str]:
    """The names of special tokens in a ``tokenizer_config.json``, by what they are for."""
    named = {key: value for key, value in config.items() if key.endswith("_token")}
    texts = {key: value.get("content") if isinstance(value, dict) else value for key, value in named.items()}
    return {key: text for key, text in texts.items() if isinstance(text, str)}


def puts_bos(source: Any) -> bool:
    """Whether a ``tokenizer.json`` itself puts a special token before a text."""
    post = source.get("post_processor") or {}
    parts = post.get("processors", [post])
    singles = [part.get("single", []) for part in parts if part.get("type") == "TemplateProcessing"]
    framed = any(part.get("type") in ("BertProcessing", "RobertaProcessing") for part in parts)
    return framed or any(single and "SpecialToken" in single[0] for single in singles)


def _engine(source: str) -> Any:
    from tokenizers import Tokenizer as Engine

    try:
        engine = Engine.from_str(source)
    except Exception as error:  # the library raises bare Exceptions
        raise TokenizerError(f"this tokenizer.json cannot be read by the tokenizers library: {error}") from error
    engine.no_padding()
    engine.no_truncation()
    return engine


def _unknown(model: Any) -> str | None:
    """The token that stands for what a model cannot spell."""
    if model.get("unk_id") is not None:
        return model["vocab"][model["unk_id"]][0]
    return model.get("unk_token")


def _unspellable(source: Any, specials: Collection[str]) -> str:
    """A ``tokenizer.json`` whose model looks up whole pieces, the special ones renamed so that no text spells them."""
    renamed = {name: f" \ue005{name}" for name in specials}
    model = source["model"]
    vocab = model["vocab"]
    if isinstance(vocab, dict):
        vocab = {renamed.get(piece, piece): id for piece, id in vocab.items()}
    else:
        vocab = [[renamed.get(piece, piece), score] for piece, score in vocab]
    added = [token for token in source.get("added_tokens") or [] if token["content"] not in specials]
    model = {**model, "vocab": vocab} | ({"unk_token": renamed[model["unk_token"]]} if model.get("unk_token") else {})
    return json.dumps({**source, "added_tokens": added, "model": model}, ensure_ascii=False)


def _puts_space(source: Any) -> bool:
    """Whether a byte-level tokenizer puts a space before a text."""
    cut = source.get("pre_tokenizer") or {}
    return any(part.get("type") == "ByteLevel" and part["add_prefix_space"] for part in cut.get("pretokenizers", [cut]))


def _holds(part: Any, kind: str) -> bool:
    """Whether a tokenizer.json part is of a kind, or a sequence with one of it."""
    if not isinstance(part, dict):
        return False
    inner = part.get("decoders") or part.get("pretokenizers") or part.get("normalizers") or []
    return part.get("type") == kind or any(_holds(step, kind) for step in inner)


def library_json(bpe: BPE, added: Mapping[str, int] | None = None) -> str:
    """Our BPE in the library's format; the tokens ``added`` are no special ones, a text may spell them."""
    merges = _merges_of_ranks(bpe) if bpe.merges is None else bpe.merges
    return byte_level_json(
        {spell(symbol): id for symbol, id in bpe.vocab.items()} | dict(bpe.specials),
        [(spell(left), spell(right)) for left, right in merges],
        patterns=(bpe.pattern,),
        added={**bpe.specials, **(added or {})},
        specials=set(bpe.specials),
        nfc=bpe.nfc,
        whole=bpe.merges is None,
    )


def byte_level_json(
    vocab: Mapping[str, int],
    merges: Sequence[tuple[str, str]],
    *,
    patterns: Sequence[str],
    added: Mapping[str, int],
    specials: Container[str],
    nfc: bool = False,
    whole: bool = False,
) -> str:
    """A byte-level BPE, its symbols in GPT-2's letters, as a ``tokenizer.json``.

    The ``patterns`` cut a text one after the other. Of the ``added`` tokens those among the ``specials`` come from no text.
    With ``whole`` a piece that is a token is not merged.
    """
    tokens = [
        {"id": id, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": name in specials}
        for name, id in sorted(added.items(), key=lambda item: item[1])
    ]  # fmt: skip
    splits = [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False} for pattern in patterns]
    letters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return json.dumps(
        {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": tokens,
            "normalizer": {"type": "NFC"} if nfc else None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, letters]},
            "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": None,
                "end_of_word_suffix": None,
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": whole,
                "vocab": dict(sorted(vocab.items(), key=lambda item: item[1])),
                "merges": [list(merge) for merge in merges],
            },
        },
        ensure_ascii=False,
    )


def _merges_of_ranks(bpe: BPE) -> list[tuple[bytes, bytes]]:
    """Tiktoken writes no merges: each symbol was made from the two that its own bytes merge to without it."""
    merges: list[tuple[bytes, bytes]] = []
    for symbol, rank in sorted(bpe.vocab.items(), key=lambda item: item[1]):
        if len(symbol) > 1:
            parts = _split_below(bpe.vocab, symbol, rank)
            if len(parts) == 2:
                merges.append((parts[0], parts[1]))
    return merges


def _split_below(vocab: dict[bytes, int], symbol: bytes, limit: int) -> list[bytes]:
    parts = [bytes([byte]) for byte in symbol]
    while len(parts) > 2:
        ranks = [(vocab.get(a + b, limit), i) for i, (a, b) in enumerate(itertools.pairwise(parts))]
        rank, i = min(ranks)
        if rank >= limit:
            break
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts
