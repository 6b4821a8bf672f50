"""llama2.c's tokenizer: the pieces of a SentencePiece model with scores, merged best score first.

A ``tok512.bin`` holds, little-endian: int32 the longest piece, then for every id a float32 score, an int32 length and the
piece's bytes. Ids 0, 1, 2 are <unk>, <s>, </s>; 3 … 258 are the bytes. A text gets one space in front, is cut into
characters (a character without a piece into its bytes), and the neighbours whose merger has the best score are merged
until none is left (karpathy/llama2.c, run.c).
"""

import struct
from collections.abc import Iterable
from pathlib import Path

from chainrule.core.errors import TokenizerError
from chainrule.core.files import whole_file
from chainrule.core.tokenizer import Tokenizer
from chainrule.tokenizers.merging import merge_best

FIRST_BYTE = 3


class Llama2cTokenizer(Tokenizer):
    """Pieces with scores, as llama2.c reads them."""

    lossless = True
    specials = {"<unk>": 0, "<s>": 1, "</s>": 2}  # noqa: RUF012
    bos = 1
    eos = (2, 1)

    def __init__(self, pieces: list[bytes], scores: list[float]) -> None:
        self.pieces, self.scores, self.vocab_size = pieces, scores, len(pieces)
        first = FIRST_BYTE + 256
        self._ids = {piece: id for id, piece in reversed(list(enumerate(pieces))) if id >= first}
        self._best = {piece: scores[id] for piece, id in self._ids.items()}

    @classmethod
    def read(cls, path: Path) -> "Llama2cTokenizer":
        """The tokenizer of a ``tok*.bin``; raises where the file is cut off or holds no byte pieces."""
        data, at = path.read_bytes(), 4
        pieces: list[bytes] = []
        scores: list[float] = []
        while at < len(data):
            if at + 8 > len(data):
                raise TokenizerError(f"{path} ends inside piece {len(pieces)}; copy the file again")
            score, length = struct.unpack_from("<fi", data, at)
            if not 0 <= length <= len(data) - at - 8:
                raise TokenizerError(f"{path}: piece {len(pieces)} claims {length} bytes; this is no llama2.c tokenizer")
            pieces.append(data[at + 8 : at + 8 + length])
            scores.append(score)
            at += 8 + length
        if len(pieces) < FIRST_BYTE + 256:
            raise TokenizerError(f"{path} holds {len(pieces)} pieces, fewer than <unk>, <s>, </s> and 256 bytes")
        return cls(pieces, scores)

    def encode(self, text: str) -> list[int]:
        if not text:
            return []
        symbols: list[bytes] = []
        for character in " " + text:
            data = character.encode()
            symbols += [data] if data in self._ids else [bytes([byte]) for byte in data]
        return [
            self._ids[symbol] if symbol in self._ids else FIRST_BYTE + symbol[0] for symbol in merge_best(symbols, self._best)
        ]

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        names = {id: name.encode() for name, id in self.specials.items()} if specials else {}
        data = b"".join(names[id] if id in names else self.token_bytes(id) for id in ids)
        return data.removeprefix(b" ").decode(errors="replace")

    def token_bytes(self, id: int) -> bytes:
        if not FIRST_BYTE <= id < self.vocab_size:
            return b""
        return bytes([id - FIRST_BYTE]) if id < FIRST_BYTE + 256 else self.pieces[id]

    def save(self, folder: Path) -> None:
        with whole_file(folder / "tokenizer.bin") as aside:
            aside.write_bytes(self.file())

    def file(self) -> bytes:
        """What its file holds."""
        rows = [struct.pack("<fi", score, len(piece)) + piece for piece, score in zip(self.pieces, self.scores, strict=True)]
        return struct.pack("<i", max(map(len, self.pieces))) + b"".join(rows)
