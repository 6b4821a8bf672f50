"""The character tokenizer: one id a character that was seen, and an error for any other."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from chainrule.core.errors import TokenizerError
from chainrule.core.files import write_text
from chainrule.core.tokenizer import Tokenizer
from chainrule.tokenizers.byte import END_OF_TEXT


class CharTokenizer(Tokenizer):
    """Ids follow the sorted characters; the last one is ``<|endoftext|>``.

    >>> CharTokenizer("ab").encode("ba")
    [1, 0]
    """

    lossless = True

    def __init__(self, characters: Iterable[str]) -> None:
        self.characters = sorted(set(characters))
        self._ids = {character: id for id, character in enumerate(self.characters)}
        self.vocab_size = len(self.characters) + 1
        self.specials: Mapping[str, int] = {END_OF_TEXT: len(self.characters)}
        self.bos = len(self.characters)
        self.eos = (self.bos,)

    @classmethod
    def train(cls, texts: Iterable[str]) -> "CharTokenizer":
        """The tokenizer of every character in these texts."""
        return cls(character for text in texts for character in text)

    def encode(self, text: str) -> list[int]:
        try:
            return [self._ids[character] for character in text]
        except KeyError as error:
            character = error.args[0]
            raise TokenizerError(
                f"the character {character!r} (U+{ord(character):04X}) was not in the text this tokenizer was made "
                "from; leave it out, or use a byte tokenizer, which can express anything"
            ) from None

    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        end = END_OF_TEXT if specials else ""
        return "".join(end if id == self.bos else self._character(id) for id in ids)

    def token_bytes(self, id: int) -> bytes:
        return self._character(id).encode()

    def _character(self, id: int) -> str:
        return self.characters[id] if 0 <= id < len(self.characters) else ""

    def save(self, folder: Path) -> None:
        config = {"tokenizer_class": "CharTokenizer", "characters": "".join(self.characters)}
        write_text(folder / "tokenizer_config.json", json.dumps(config, ensure_ascii=False, indent=2))
