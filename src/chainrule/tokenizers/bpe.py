"""Byte-level BPE: start from bytes, apply the learned merges in the order they were learned.

    "hug" → h u g → hu g → hug       (with the merges "h u", then "hu g")

Sennrich et al. 2016, arXiv:1508.07909; over bytes as in GPT-2, so every text can be said and comes back exactly.
Written to be read; ``fast()`` gives the `tokenizers` library's engine behind the same interface.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from chainrule.core.errors import TokenizerError
from chainrule.core.tokenizer import Tokenizer
from chainrule.tokenizers.bpe_train import count_pieces, learn_merges
from chainrule.tokenizers.byte import END_OF_TEXT
from chainrule.tokenizers.patterns import byte_letters, compiled, split_pattern

if TYPE_CHECKING:
    from chainrule.tokenizers.fast import LibraryTokenizer


class BPE(Tokenizer):
    """Bytes merged by rank.

    ``vocab`` maps symbols (bytes) to ids; ``merges`` lists the pairs in the order they were learned, or is None where a
    symbol's own id is its rank (tiktoken's form). ``pattern`` cuts a text into pieces first. ``nfc`` composes
    characters before anything else, as Qwen2 does; such a tokenizer is not lossless.
    """

    def __init__(
        self,
        vocab: Mapping[bytes, int],
        merges: Sequence[tuple[bytes, bytes]] | None,
        *,
        pattern: str,
        specials: Mapping[str, int] | None = None,
        bos: str | None = None,
        eos: str | None = None,
        nfc: bool = False,
    ) -> None:
        self.vocab = dict(vocab)
        self.merges = None if merges is None else list(merges)
        self.pattern, self.nfc, self.lossless = pattern, nfc, not nfc
        self.specials = dict(specials or {})
        self.bos = None if bos is None else self.specials[bos]
        self.eos = () if eos is None else (self.specials[eos],)
        self._symbols = {id: symbol for symbol, id in self.vocab.items()}
        self._names = {id: name for name, id in self.specials.items()}
        self.vocab_size = max([*self.vocab.values(), *self.specials.values()]) + 1
        self._known: dict[str, list[int]] = {}
        missing = [byte for byte in range(256) if bytes([byte]) not in self.vocab]
        if missing:
            raise TokenizerError(f"a byte-level vocabulary holds all 256 bytes; this one lacks {missing[:5]}")

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        vocab_size: int,
        *,
        pattern: str = "cl100k",
        specials: Sequence[str] = (END_OF_TEXT,),
    ) -> "BPE":
        """Learn merges until the vocabulary (special tokens first, then bytes, then merges) has ``vocab_size`` ids.

        ``<|endoftext|>``, if among the specials, begins and ends documents. Training ends early where nothing is left
        to merge.
        """
        if vocab_size < 256 + len(specials):
            raise TokenizerError(f"a vocabulary of {vocab_size} cannot hold 256 bytes and {len(specials)} special tokens")
        split = split_pattern(pattern)
        alphabet = sorted(range(256), key=lambda byte: byte_letters()[byte])
        symbols = [name.encode() for name in specials] + [bytes([byte]) for byte in alphabet]
        merges = learn_merges(count_pieces(texts, split), symbols, vocab_size)
        vocab = {symbol: id for id, symbol in enumerate(symbols) if id >= len(specials)}
        end = END_OF_TEXT if END_OF_TEXT in specials else None
        named = {name: id for id, name in enumerate(specials)}
        return cls(vocab, merges, pattern=split, specials=named, bos=end, eos=end)

    @cached_property
    def _ranks(self) -> dict[tuple[bytes, bytes], int]:
        return {pair: rank for rank, pair in enumerate(self.merges or ())}

    def encode(self, text: str) -> list[int]:
        ids: list[int] = []
        for piece in compiled(self.pattern).findall(self.normalize(text)):
            if piece not in self._known:
                self._known[piece] = [self.vocab[symbol] for symbol in self.merge(piece.encode())]
            ids += self._known[piece]
        return ids

    def merge(self, piece: bytes) -> list[bytes]:
        """The symbols of one piece: merge the neighbours of lowest rank until none is left that was learned."""
        symbols = [bytes([byte]) for byte in piece]
        while len(symbols) > 1:
            pairs = itertools.pairwise(symbols)
            rank, i = min((self.rank(left, right), i) for i, (left, right) in enumerate(pairs))
            if rank == _NEVER:
                break
            best = symbols[i], symbols[i + 1]
            symbols = _join(symbols, best)
        return symbols

    def rank(self, left: bytes, right: bytes) -> float:
        """When this pair was learned; infinite where it was not."""
        if self.merges is None:
            return self.vocab.get(left + right, _NEVER)
        return self._ranks.get((left, right), _NEVER)

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        names = self._names if specials else {}
        return b"".join(names[id].encode() if id in names else self.token_bytes(id) for id in ids).decode(errors="replace")

    def token_bytes(self, id: int) -> bytes:
        return self._symbols.get(id, b"")

    def normalize(self, text: str) -> str:
        if not self.nfc:
            return text
        import unicodedata

        return unicodedata.normalize("NFC", text)

    def fast(self) -> "LibraryTokenizer":
        """The same tokenizer, run by the `tokenizers` library."""
        from chainrule.tokenizers.fast import LibraryTokenizer, library_json

        return LibraryTokenizer(library_json(self), bos=self.bos, eos=self.eos)

    def save(self, folder: Path) -> None:
        self.fast().save(folder)


_NEVER = float("inf")


def _join(symbols: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    """Every occurrence of the pair, from left to right, as one symbol."""
    joined: list[bytes] = []
    i = 0
    while i < len(symbols):
        both = tuple(symbols[i : i + 2]) == pair
        joined.append(symbols[i] + symbols[i + 1] if both else symbols[i])
        i += 2 if both else 1
    return joined
