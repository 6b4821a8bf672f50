"""The byte tokenizer: a text is its UTF-8 bytes, and one more id marks where a text begins and ends."""

import json
from collections.abc import Iterable
from pathlib import Path

from chainrule.core.files import write_text
from chainrule.core.tokenizer import Tokenizer

END_OF_TEXT = "<|endoftext|>"


class ByteTokenizer(Tokenizer):
    """Ids 0 … 255 are bytes, 256 is ``<|endoftext|>``."""

    vocab_size = 257
    lossless = True
    specials = {END_OF_TEXT: 256}  # noqa: RUF012
    bos = 256
    eos = (256,)

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        end = END_OF_TEXT.encode() if specials else b""
        return b"".join(end if id == 256 else self.token_bytes(id) for id in ids).decode(errors="replace")

    def token_bytes(self, id: int) -> bytes:
        return bytes([id]) if 0 <= id < 256 else b""

    def save(self, folder: Path) -> None:
        write_text(folder / "tokenizer_config.json", json.dumps({"tokenizer_class": "ByteTokenizer"}, indent=2))
