"""What a tokenizer is: text to ids and back, and the few ids that no text can yield. Imports no torch."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from chainrule.core.errors import RequestError


class Tokenizer(ABC):
    """Text to ids and back.

    ``decode(encode(s)) == normalize(s)`` for every text, except that a tokenizer with ``lossless`` False may lose
    what its ``normalize`` cannot express. ``specials`` maps the strings of special tokens to ids that ``encode``
    never returns: a text that spells ``<|im_end|>`` is a text. ``encode`` adds nothing in front or behind.
    """

    vocab_size: int
    lossless: bool
    specials: Mapping[str, int]
    added: Mapping[str, int] = MappingProxyType({})
    """Tokens added to the vocabulary once it was learned: special ones, and others that a text may spell."""
    strips: Mapping[str, tuple[bool, bool]] = MappingProxyType({})
    """Whether an added token takes the white space on its left, and on its right, with it."""
    published_names: Mapping[str, str] = MappingProxyType({})
    """``bos_token``, ``eos_token`` and their like as the publisher names them, which chat templates write."""
    bos: int | None = None
    """Put before every document and prompt, once; None where the model was trained without."""
    eos: tuple[int, ...] = ()
    """Any of these ends a document or a reply; the first is the one that training appends."""

    @property
    def begin(self) -> int | None:
        """The token a document's probability is conditioned on: BOS, else the end-of-text token, else None."""
        return self.bos if self.bos is not None else self.end

    @property
    def end(self) -> int | None:
        """The token that closes a document in training and scoring."""
        return self.eos[0] if self.eos else None

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of a text; never a special id. Raises ``TokenizerError`` for what it cannot express."""

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of many texts: those of ``encode``, which some tokenizers find on all cores at once."""
        return [self.encode(text) for text in texts]

    def framed(self, ids: Iterable[int], *, begin: bool = True, end: bool = True) -> list[int]:
        """A document as models read it: begin, the ids of its text, end; without what this tokenizer has none of."""
        first = [self.begin] if begin and self.begin is not None else []
        last = [self.end] if end and self.end is not None else []
        return [*first, *ids, *last]

    def with_specials(self, names: frozenset[str]) -> "Tokenizer":
        """The same tokenizer with these of the ``added`` tokens special too: no text yields them any more."""
        return self

    def inside(self) -> "Tokenizer":
        """The same tokenizer, as it cuts what stands behind a special token."""
        return self

    @abstractmethod
    def decode(self, ids: Iterable[int], *, specials: bool = False) -> str:
        """The text of ids; special tokens are left out, or spelt. Broken UTF-8 becomes U+FFFD."""

    @abstractmethod
    def token_bytes(self, id: int) -> bytes:
        """The bytes an id contributes to a text (a special token, or one beyond the table: none). Partial UTF-8 is normal."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the files from which ``tokenizers.load(folder)`` makes this tokenizer again."""

    def normalize(self, text: str) -> str:
        """The text as this tokenizer will give it back."""
        return text

    def piece(self, id: int) -> str:
        """An id as a reader may see it: its text, its special name, or (a part of a character) its bytes in hex."""
        for name, special in self.specials.items():
            if special == id:
                return name
        data = self.token_bytes(id)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return "".join(f"<{byte:02X}>" for byte in data)


def needed(tokenizer: Tokenizer | None, model: str) -> Tokenizer:
    """The tokenizer of a model; raises ``RequestError`` where it came without one."""
    if tokenizer is None:
        raise RequestError(f"the model {model} came without a tokenizer, so it has no texts; use lm.model on ids")
    return tokenizer
