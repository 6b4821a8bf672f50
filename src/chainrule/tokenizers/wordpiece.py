"""WordPiece: words cut greedily into the longest pieces of a vocabulary, as BERT reads text.

    clean → lower case, accents off → split at spaces, punctuation and CJK characters → longest piece first, then ##pieces

Schuster & Nakajima 2012; Devlin et al. 2018, arXiv:1810.04805. A word that the vocabulary cannot spell becomes [UNK]. What
is lost on the way (case, accents, spaces) stays lost, so bits per byte of such a tokenizer are refused unless forced.
Written to be read; ``fast()`` gives the `tokenizers` library's engine behind the same interface.
"""

import json
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from chainrule.core.errors import TokenizerError
from chainrule.core.files import read_json_object, read_text, write_text
from chainrule.core.tokenizer import Tokenizer

if TYPE_CHECKING:
    from chainrule.tokenizers.fast import LibraryTokenizer

UNKNOWN = "[UNK]"
NAMES = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")
LONGEST = 100
"""A longer word is unknown without looking, as in BERT."""


class WordPiece(Tokenizer):
    """A ``vocab.txt``: one piece a line, its id the line's number."""

    lossless = False

    def __init__(self, pieces: list[str], *, lower: bool = True, strip: bool | None = None, chinese: bool = True) -> None:
        """``strip`` takes accents off (None: where ``lower`` does), ``chinese`` cuts Chinese characters apart."""
        self.pieces, self.lower, self.vocab_size = pieces, lower, len(pieces)
        self.strip, self.chinese = lower if strip is None else strip, chinese
        self._ids = {piece: id for id, piece in enumerate(pieces)}
        if UNKNOWN not in self._ids:
            raise TokenizerError(f"this vocabulary of {len(pieces)} pieces has no {UNKNOWN}; a BERT vocab.txt holds one")
        self.specials = {name: self._ids[name] for name in NAMES if name in self._ids}
        self.bos = self.specials.get("[CLS]")
        self.eos = (self.specials["[SEP]"],) if "[SEP]" in self.specials else ()

    @classmethod
    def read(cls, path: Path) -> "WordPiece":
        """The tokenizer of a ``vocab.txt``, with what the configuration beside it says of case, accents and Chinese."""
        config = path.with_name("tokenizer_config.json")
        settings = read_json_object(config, error=TokenizerError) if config.exists() else {}
        return cls(
            read_text(path).rstrip("\n").split("\n"),
            lower=bool(settings.get("do_lower_case", True)),
            strip=settings.get("strip_accents"),
            chinese=bool(settings.get("tokenize_chinese_chars", True)),
        )

    def encode(self, text: str) -> list[int]:
        return [self._ids[piece] for word in self.words(text) for piece in self.cut(word)]

    def words(self, text: str) -> list[str]:
        """The words of a text before they are cut."""
        clean = "".join(_spaced(character, self.chinese) for character in text if not _dropped(character))
        words = clean.split()
        if self.lower:
            words = [word.lower() for word in words]
        if self.strip:
            words = [_bare(word) for word in words]
        return [part for word in words for part in _split(word)]

    def cut(self, word: str) -> list[str]:
        """The longest pieces from the left, or ``[UNK]``."""
        if len(word) > LONGEST:
            return [UNKNOWN]
        pieces: list[str] = []
        start = 0
        while start < len(word):
            head = "##" if start else ""
            stop = next((i for i in range(len(word), start, -1) if head + word[start:i] in self._ids), None)
            if stop is None:
                return [UNKNOWN]
            pieces.append(head + word[start:stop])
            start = stop
        return pieces

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        hidden = set() if specials else set(self.specials.values())
        return " ".join(self.piece(id) for id in ids if id not in hidden and self.piece(id)).replace(" ##", "")

    def token_bytes(self, id: int) -> bytes:
        return b"" if id in self.specials.values() else self.piece(id).removeprefix("##").encode()

    def piece(self, id: int) -> str:
        return self.pieces[id] if 0 <= id < self.vocab_size else ""  # a ## shows that it goes on a word

    def normalize(self, text: str) -> str:
        return " ".join(UNKNOWN if self.cut(word) == [UNKNOWN] else word for word in self.words(text))

    def fast(self) -> "LibraryTokenizer":
        """The same tokenizer, run by the `tokenizers` library.

        Its tables are of Unicode 8: around characters that are younger (marks, punctuation, a block of Chinese characters), or
        assigned to nothing, its ids may differ.
        """
        from chainrule.tokenizers.fast import LibraryTokenizer
        from chainrule.tokenizers.fast_pieces import wordpiece_json

        source = wordpiece_json(
            self._ids, self.specials, unknown=UNKNOWN, longest=LONGEST, lower=self.lower, strip=self.strip, chinese=self.chinese
        )
        return LibraryTokenizer(source, bos=self.bos, eos=self.eos, config=self._settings())

    def save(self, folder: Path) -> None:
        write_text(folder / "vocab.txt", "\n".join(self.pieces) + "\n")
        config = {"tokenizer_class": "BertTokenizer", **self._settings()}
        write_text(folder / "tokenizer_config.json", json.dumps(config, indent=2))

    def _settings(self) -> dict[str, bool]:
        said = {"do_lower_case": self.lower}
        if self.strip != self.lower:
            said["strip_accents"] = self.strip
        return said if self.chinese else {**said, "tokenize_chinese_chars": False}


def _dropped(character: str) -> bool:
    """Control characters, and what stands for broken text."""
    if character in "\t\n\r":
        return False
    return character in "\0\ufffd" or unicodedata.category(character) in ("Cc", "Cf", "Cn", "Co", "Cs")


def _spaced(character: str, chinese: bool) -> str:
    """White space as a space; a Chinese character with room around it, where ``chinese``."""
    if character in "\t\n\r" or unicodedata.category(character) == "Zs":
        return " "
    return f" {character} " if chinese and _chinese(ord(character)) else character


def _chinese(code: int) -> bool:
    blocks = (
        (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
        (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
    )  # fmt: skip
    return any(first <= code <= last for first, last in blocks)


def _bare(word: str) -> str:
    """A word without its accents."""
    return "".join(c for c in unicodedata.normalize("NFD", word) if unicodedata.category(c) != "Mn")


def _split(word: str) -> Iterator[str]:
    """A word with every punctuation mark apart."""
    start = 0
    for i, character in enumerate(word):
        if _punctuation(character):
            if start < i:
                yield word[start:i]
            yield character
            start = i + 1
    if start < len(word):
        yield word[start:]


def _punctuation(character: str) -> bool:
    """ASCII that is neither letter nor digit counts too, as in BERT ($, ^, `, …)."""
    return (character.isascii() and not character.isalnum() and character.isprintable()) or unicodedata.category(
        character
    ).startswith("P")
