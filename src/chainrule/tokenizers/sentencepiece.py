"""SentencePiece: a ``.model`` file, which holds pieces with scores and says how a text is normalised and cut.

    normalise (a table of replacements, spaces tidied, written ▁) → cut by unigram or by merging, best score first

Kudo & Richardson 2018, arXiv:1808.06226. The file is a protocol buffer (sentencepiece_model.proto), read here by hand; the
table is a double-array trie (Aoe 1989). A character without a piece becomes its bytes where the model has byte pieces, else
<unk>. Tokens that were added later, beside the file, are found before anything else; what follows one is cut like a new text.
Written to be read; ``fast()`` gives the `tokenizers` library's engine for the models that it runs exactly.
"""

import json
import re
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chainrule.core.errors import TokenizerError
from chainrule.core.files import whole_file, write_text
from chainrule.core.tokenizer import Tokenizer
from chainrule.tokenizers.fast import token_names
from chainrule.tokenizers.merging import merge_best
from chainrule.tokenizers.unigram import best_cut

if TYPE_CHECKING:
    from chainrule.tokenizers.fast import LibraryTokenizer

SPACE = "▁"
NORMAL, UNKNOWN, CONTROL, DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
UNIGRAM, BPE = 1, 2


@dataclass(frozen=True)
class Model:
    """What a ``.model`` file says."""

    pieces: list[tuple[str, float, int]]
    algorithm: int
    ids: dict[str, int]
    table: bytes
    prefix: bool
    tidy: bool
    raw: bytes


class SentencePiece(Tokenizer):
    """A ``.model`` file as a tokenizer, with the tokens ``added`` to it; the ``specials`` among these come from no text.

    ``config`` is its ``tokenizer_config.json``. ``legacy: false`` there says that what follows an added token has no space put
    in front, as the beginning of a text has.
    """

    lossless = False

    def __init__(
        self,
        model: Model,
        *,
        adds_bos: bool = True,
        added: Mapping[str, int] | None = None,
        specials: Collection[str] = (),
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.pieces = model, _with_added(model.pieces, added or {}, specials)
        self.added = {name: id for name, id in (added or {}).items() if self.pieces[id][2] != UNKNOWN}
        self._config = dict(config or {})
        self.published_names = token_names(self._config)
        self.vocab_size = len(self.pieces)
        kinds: dict[int, dict[str, int]] = {kind: {} for kind in range(7)}
        for id, (piece, _, kind) in enumerate(self.pieces):
            kinds[kind].setdefault(piece, id)
        self._ids = kinds[NORMAL] | kinds[DEFINED]
        self._bytes = {int(piece[3:5], 16): id for piece, id in kinds[BYTE].items()}
        self._byte_of = {id: byte for byte, id in self._bytes.items()}
        self._unknown = next(iter(kinds[UNKNOWN].values()), 0)
        self.specials = dict(kinds[CONTROL])
        self._scores = {piece: self.pieces[id][1] for piece, id in self._ids.items()}
        self._longest = max(map(len, self._ids), default=1)
        self._defined = sorted(kinds[DEFINED], key=len, reverse=True)
        if self._defined and model.algorithm == UNIGRAM:
            best = max(self._scores.values())  # a defined piece always wins over its parts
            self._scores |= {piece: len(piece.encode()) * best - 0.1 for piece in self._defined}
        bos, eos = model.ids.get("bos", -1), model.ids.get("eos", -1)
        self.bos = bos if adds_bos and bos >= 0 else None
        self.eos = (eos,) if eos >= 0 else ()
        self._table = Table(model.table) if model.table else None
        self._apart = {name: id for name, id in self.added.items() if name in kinds[DEFINED]}
        self._finds = re.compile("|".join(map(re.escape, sorted(self._apart, key=len, reverse=True))) or r"(?!)")
        self._always = self._config.get("legacy") is not False

    @classmethod
    def read(cls, path: Path) -> "SentencePiece":
        """The tokenizer of a ``.model`` file alone; raises ``TokenizerError`` where it is damaged or of another kind."""
        return cls(read_model(path), adds_bos=True)

    def with_specials(self, names: frozenset[str]) -> "SentencePiece":
        """The same tokenizer with these of the added tokens special too: no text yields them any more."""
        return self._changed(self.model, names | self.specials.keys())

    def inside(self) -> "SentencePiece":
        """The same tokenizer, as it cuts what stands behind a special token."""
        return self if self._always else self._changed(replace(self.model, prefix=False), self.specials.keys())

    def _changed(self, model: Model, specials: Collection[str]) -> "SentencePiece":
        other = SentencePiece(model, added=self.added, specials=specials, config=self._config)
        other.bos, other.eos = self.bos, self.eos
        return other

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        at = 0
        for found in self._finds.finditer(text):
            ids += self._cut(text[at : found.start()], at == 0 or self._always)
            ids.append(self._apart[found[0]])
            at = found.end()
        return ids + self._cut(text[at:], at == 0 or self._always)

    def _cut(self, text: str, spaced: bool) -> list[int]:
        prepared = self.prepare(text, spaced=spaced)
        if self.model.algorithm == UNIGRAM:
            return list(self._spell(best_cut(prepared, self._scores, self._longest)))
        return list(self._spell(merge_best(self._characters(prepared), self._scores)))

    def prepare(self, text: str, *, spaced: bool = True) -> str:
        """The text as it is cut: replaced, tidied, its spaces written ▁; ``spaced`` allows to put one in front."""
        text = self._table.apply(text) if self._table else text
        if self.model.tidy:
            text = " ".join(part for part in text.split(" ") if part)
        if text and spaced and self.model.prefix:
            text = " " + text
        return text.replace(" ", SPACE)

    def _characters(self, text: str) -> Iterator[str]:
        at = 0
        while at < len(text):
            piece = next((defined for defined in self._defined if text.startswith(defined, at)), text[at])
            yield piece
            at += len(piece)

    def _spell(self, cut: list[str]) -> Iterator[int]:
        """Ids of pieces; neighbours without a piece are one <unk> together, or each its bytes."""
        before = -1
        for piece in cut:
            id = self._ids.get(piece, self._unknown)
            if id == self._unknown and self._bytes:
                yield from (self._bytes[byte] for byte in piece.encode())
            elif id != self._unknown or before != self._unknown:
                yield id
            before = id

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        text = ""
        apart = set(self._apart.values())
        for i, (alone, some) in enumerate(groupby(ids, apart.__contains__)):
            said = b"".join(self._said(id, specials) for id in some).decode("utf-8", errors="replace")
            spaced = self.model.prefix and not alone and (self._always or i == 0)
            text += said[1:] if spaced and said.startswith(" ") else said
        return text

    def _said(self, id: int, specials: bool) -> bytes:
        if id in self.specials.values():
            return self.pieces[id][0].encode() if specials else b""
        return " ⁇ ".encode() if id == self._unknown else self.token_bytes(id)

    def token_bytes(self, id: int) -> bytes:
        if id in self._byte_of:
            return bytes([self._byte_of[id]])
        said = 0 <= id < self.vocab_size and id not in self.specials.values()
        return self.pieces[id][0].replace(SPACE, " ").encode() if said else b""

    def normalize(self, text: str) -> str:
        return self.decode(self.encode(text))

    def fast(self) -> "LibraryTokenizer":
        """The same tokenizer, run by the `tokenizers` library; raises ``TokenizerError`` where that would give other ids."""
        from chainrule.tokenizers.fast import LibraryTokenizer
        from chainrule.tokenizers.fast_pieces import bpe_model, pieces_json, unigram_model

        if reasons := [reason for reason, holds in self._beyond_library().items() if holds]:
            raise TokenizerError(
                f"the tokenizers library gives other ids for a SentencePiece model with {' and '.join(reasons)}; use the "
                "tokenizer as it is, without fast()"
            )
        names = [piece for piece, _, _ in self.pieces]
        if self.model.algorithm == UNIGRAM:
            # what no text yields has its own score, which counts for nothing
            model = unigram_model([(name, self._scores.get(name, 0.0)) for name in names], self._unknown)
        else:
            model = bpe_model(names, self._scores, self._unknown, falls_back=bool(self._bytes))
        special = {**self.specials, names[self._unknown]: self._unknown}
        source = pieces_json(model, special, unknown=names[self._unknown], prefix=self.model.prefix, tidy=self.model.tidy)
        return LibraryTokenizer(source, bos=self.bos, eos=self.eos, config=self._config)

    def _beyond_library(self) -> dict[str, bool]:
        """What the library does otherwise, and whether this model has it."""
        names, unigram = [piece for piece, _, _ in self.pieces], self.model.algorithm == UNIGRAM
        joined = [piece for piece in self._scores if len(piece) > 1]
        return {
            # there a table replaces whole graphemes, by the shortest beginning that it knows
            "a table of replacements (a normalisation such as nmt_nfkc)": self._table is not None,
            # there a text that spells <0x41> is that byte
            "byte fallback in a unigram model": unigram and bool(self._bytes),
            "user-defined symbols in a model that merges": not unigram and bool(self._defined),
            "tokens added beside the file": bool(self._apart),
            "legacy: false": self.model.prefix and not self._always,
            "unused pieces": any(kind == UNUSED for _, _, kind in self.pieces),
            "two pieces of one name": len(set(names)) < len(names),
            "no <unk>": self.pieces[self._unknown][2] != UNKNOWN,
            "merges of equal score": not unigram and len({self._scores[piece] for piece in joined}) < len(joined),
            "pieces of characters that are none": not unigram and any(not self._ids.keys() >= set(piece) for piece in joined),
        }

    def save(self, folder: Path) -> None:
        with whole_file(folder / "tokenizer.model") as aside:
            aside.write_bytes(self.model.raw)
        write_text(folder / "tokenizer_config.json", json.dumps(self._settings(), ensure_ascii=False, indent=2))

    def _settings(self) -> dict[str, Any]:
        settings = {key: value for key, value in self._config.items() if key != "chat_template"}
        if self.model.algorithm == BPE:
            settings.setdefault("tokenizer_class", "LlamaTokenizer")  # which transformers runs on any such file
            settings.setdefault("add_prefix_space", self.model.prefix)
        settings |= {"add_bos_token": self.bos is not None, "unk_token": self.pieces[self._unknown][0]}
        for key, id in (("bos_token", self.bos), ("eos_token", self.end)):
            settings |= {} if id is None else {key: self.pieces[id][0]}
        flags = dict.fromkeys(("lstrip", "normalized", "rstrip", "single_word"), False)
        added = {str(id): {"content": name, **flags, "special": name in self.specials} for name, id in self.added.items()}
        return settings | ({"added_tokens_decoder": added} if added else {})


def _with_added(
    pieces: list[tuple[str, float, int]], added: Mapping[str, int], specials: Collection[str]
) -> list[tuple[str, float, int]]:
    """The pieces, and those added, each in the place of what had its id; an id that none has holds nothing."""
    last = max(added.values(), default=0)
    rows = [*pieces, *[("", 0.0, UNUSED)] * (last + 1 - len(pieces))]
    for name, id in added.items():
        if rows[id][2] not in (UNKNOWN, BYTE):
            rows[id] = (name, 0.0, CONTROL if name in specials else DEFINED)
    return rows


class Table:
    """The table of replacements: a double-array trie over bytes, and the strings that its leaves point to."""

    def __init__(self, blob: bytes) -> None:
        size = struct.unpack_from("<I", blob)[0] if len(blob) >= 4 else 0
        if size % 4 or not 0 < size <= len(blob) - 4:
            raise TokenizerError(f"the normalisation table claims {size} bytes of {len(blob)}; the .model file is damaged")
        self._units = struct.unpack_from(f"<{size // 4}I", blob, 4)
        self._strings = blob[4 + size :]

    def apply(self, text: str) -> str:
        """The text with the longest known beginnings replaced, from left to right."""
        data, at = text.encode(), 0
        out = bytearray()
        while at < len(data):
            length, replacement = self._longest(data, at)
            if length:
                out += replacement
                at += length
            else:
                step = _character_length(data[at])
                out += data[at : at + step]
                at += step
        return out.decode("utf-8", errors="replace")

    def _longest(self, data: bytes, at: int) -> tuple[int, bytes]:
        units, found, value = self._units, 0, 0
        node = _offset(units[0])
        for i in range(at, len(data)):
            node ^= data[i]
            if node >= len(units) or units[node] & 0x800000FF != data[i]:
                break
            unit = units[node]
            node ^= _offset(unit)
            if unit >> 8 & 1:
                found, value = i - at + 1, units[node] & 0x7FFFFFFF
        return found, self._strings[value : self._strings.index(b"\0", value)] if found else b""


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & 0x200) >> 6)


def _character_length(first: int) -> int:
    return 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4


def read_model(path: Path) -> Model:
    """A ``.model`` file as data."""
    raw = path.read_bytes()
    try:
        return _model(raw)
    except (IndexError, struct.error, UnicodeDecodeError, ValueError) as error:
        if isinstance(error, TokenizerError):
            raise
        raise TokenizerError(f"{path} is no SentencePiece model, or is cut off ({error}); copy it again") from error


def _model(raw: bytes) -> Model:
    pieces: list[tuple[str, float, int]] = []
    trainer: dict[int, Any] = {}
    normalizer: dict[int, Any] = {}
    for field, value in _fields(raw):
        if field == 1:
            piece = dict(_fields(value))
            pieces.append((piece[1].decode(), struct.unpack("<f", piece.get(2, b"\0" * 4))[0], piece.get(3, NORMAL)))
        elif field == 2:
            trainer = dict(_fields(value))
        elif field == 3:
            normalizer = dict(_fields(value))
    algorithm = trainer.get(3, UNIGRAM)
    if not pieces or algorithm not in (UNIGRAM, BPE):
        raise TokenizerError(f"a SentencePiece model of {len(pieces)} pieces and type {algorithm} is not supported")
    ids = {"bos": _signed(trainer.get(41, 1)), "eos": _signed(trainer.get(42, 2))}
    return Model(pieces, algorithm, ids, normalizer.get(2, b""), bool(normalizer.get(3, 1)), bool(normalizer.get(4, 1)), raw)


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """(number, value) of a protocol buffer's fields: integers, and bytes for everything else."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(data, at)
        else:
            size, at = (8, at) if kind == 1 else (4, at) if kind == 5 else _varint(data, at)
            if kind not in (1, 2, 5) or size > len(data) - at:
                raise ValueError(f"field {field} of kind {kind} reaches beyond the end")
            value, at = data[at : at + size], at + size
        yield field, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def model_bytes(
    pieces: list[tuple[str, float, int]], algorithm: int, ids: dict[str, int], table: bytes, *, prefix: bool, tidy: bool
) -> bytes:
    """A ``.model`` file that says this: the inverse of reading one."""
    rows = [
        _field(1, _field(1, text.encode()) + _key(2, 5) + struct.pack("<f", score) + _field(3, kind))
        for text, score, kind in pieces
    ]
    falls_back = any(kind == BYTE for _, _, kind in pieces)
    trainer = _field(3, algorithm) + _field(35, int(falls_back)) + _field(41, ids["bos"]) + _field(42, ids["eos"])
    normalizer = (_field(2, table) if table else b"") + _field(3, int(prefix)) + _field(4, int(tidy)) + _field(5, 1)
    return b"".join([*rows, _field(2, trainer), _field(3, normalizer)])


def _field(number: int, value: int | bytes) -> bytes:
    """A field of a protocol buffer: an integer, or bytes with their length."""
    if isinstance(value, bytes):
        return _key(number, 2) + _written(len(value)) + value
    return _key(number, 0) + _written(value % 2**64)


def _key(number: int, kind: int) -> bytes:
    return _written(number << 3 | kind)


def _written(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])
