"""The text that a ladder stands on: tokens to learn from, documents to be measured on, one tokenizer for all models.

Of the world, training reads the first documents of a seed, and others whose facts it never reads are measured. A user's own
text is cut: its last part is held out, as a run's is, and long texts are measured in pieces.
"""

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from chainrule.core.errors import ConfigError, DataError
from chainrule.core.files import whole_folder
from chainrule.core.tokenizer import Tokenizer
from chainrule.data.documents import beginning, hold_out, read_documents
from chainrule.data.packing import Ids
from chainrule.tokenizers import load as load_tokenizer
from chainrule.tokenizers.bpe import BPE
from chainrule.train.material import SPECIALS, encode_texts, world_texts
from chainrule.train.recipe import Text, World
from chainrule.world import VERSION, documents
from chainrule.world.words import cut_nouns

SAMPLE_BYTES, DOCUMENT_BYTES = 1_000_000, 480
"""The tokenizer learns from so much of the text; about so many bytes has a document of the world."""
PIECE = 2000
"""Longer texts are measured in pieces of about so many characters, cut at line ends."""


@dataclass(frozen=True)
class Corpus:
    """Training documents as ids with their begin and end, held-out documents with their languages, and what a recipe says.

    ``seed`` is that of the world's documents.
    """

    tokenizer: Tokenizer
    ids: list[Ids]
    held: list[str]
    languages: list[str]
    data: World | Text
    seed: int

    @property
    def tokens(self) -> int:
        """How many training tokens there are."""
        return sum(map(len, self.ids))

    def for_tokens(self, tokens: int) -> "Corpus":
        """The same with as many documents of the world as have so many tokens; a user's text is as long as it is."""
        if isinstance(self.data, Text):
            return self
        n = max(100, math.ceil(tokens * len(self.ids) / self.tokens))
        return replace(self, ids=encoded(world_texts(self.seed, n), self.tokenizer), data=World(documents=n))


def source(text: Path | None) -> str:
    """What the text is, in a word."""
    return f"world {VERSION}" if text is None else str(text)


def version(text: Path | None) -> int | None:
    """The version of the world where that is the text, None for a user's own."""
    return VERSION if text is None else None


def check_seed(seed: int) -> None:
    """Refuse a seed that not every generator of a run would take, before any of them is asked."""
    if not 0 <= seed < 2**63:
        raise ConfigError(f"the seed is {seed}; it must be 0 or more, and a number of 64 bits (below 2^63)")


def read_corpus(
    folder: Path,
    text: Path | None,
    *,
    seed: int,
    held_out: int,
    vocab_size: int,
    row: int,
    n: int | None = None,
    specials: Sequence[str] = SPECIALS,
) -> Corpus:
    """The corpus of a file, or of the world, its tokenizer kept in the run's ``folder``.

    Raises ``DataError`` where there are fewer training tokens than a ``row`` holds.
    """
    if text is None:
        corpus = world_corpus(folder, seed=seed, held_out=held_out, vocab_size=vocab_size, n=n, specials=specials)
    else:
        corpus = text_corpus(folder, text, held_out=held_out, vocab_size=vocab_size, specials=specials)
    if corpus.tokens < row:
        raise DataError(
            f"{source(text)} has {corpus.tokens} tokens to learn from, less than the {row} of a row; give more text"
        )
    return corpus


def world_corpus(
    folder: Path, *, seed: int, held_out: int, vocab_size: int, n: int | None = None, specials: Sequence[str] = SPECIALS
) -> Corpus:
    """``n`` documents of the world, or as many as the tokenizer learns from."""
    held = list(islice(documents(seed + 1000, split="heldout"), held_out))
    sample = world_texts(seed, n or SAMPLE_BYTES // DOCUMENT_BYTES)
    pieces = [noun for text in beginning(sample, SAMPLE_BYTES) for noun in cut_nouns(text)]
    tokenizer = learned_tokenizer(folder, pieces, vocab_size, "world", specials)
    ids = encoded(sample, tokenizer)
    return Corpus(tokenizer, ids, [one.text for one in held], [one.language for one in held], World(documents=len(ids)), seed)


def text_corpus(folder: Path, path: Path, *, held_out: int, vocab_size: int, specials: Sequence[str] = SPECIALS) -> Corpus:
    """A user's own text, all of it but the part that is held out; of that the first ``held_out`` pieces are measured on."""
    data = Text(path=str(path))
    train, held = (in_pieces(texts) for texts in hold_out(read_documents(path), data.held_out))
    some = held[:held_out]
    if len(some) < len(held):
        left_out = f"of {len(held):,} pieces of held-out text the first {len(some):,} are measured on"
        print(f"  {left_out}; --documents says how many", file=sys.stderr, flush=True)
    tokenizer = learned_tokenizer(folder, beginning(train, SAMPLE_BYTES), vocab_size, "cl100k", specials)
    return Corpus(tokenizer, encoded(train, tokenizer), some, ["text"] * len(some), data, 0)


def encoded(texts: Sequence[str], tokenizer: Tokenizer) -> list[Ids]:
    """The ids of every text, each with its begin and end."""
    return [ids for ids, _ in encode_texts(list(texts), tokenizer)]


def learned_tokenizer(folder: Path, pieces: Iterable[str], vocab_size: int, pattern: str, specials: Sequence[str]) -> Tokenizer:
    """BPE of the text, kept in the run's folder; one that is there already is read."""
    there = folder / "tokenizer"
    if there.exists():
        return load_tokenizer(there)
    tokenizer = BPE.train(pieces, vocab_size, pattern=pattern, specials=tuple(specials)).fast()
    with whole_folder(there) as aside:
        tokenizer.save(aside)
    return tokenizer


def in_pieces(texts: Sequence[str], size: int = PIECE) -> list[str]:
    """Long texts as pieces of about so many characters, cut at line ends; blank ones are left out."""
    pieces: list[str] = []
    for text in texts:
        piece = ""
        for line in text.splitlines(keepends=True):
            if piece and len(piece) + len(line) > size:
                pieces.append(piece)
                piece = ""
            piece += line
        pieces.append(piece)
    kept = [piece for piece in pieces if piece.strip()]
    if not kept:
        raise DataError(f"the text is too short: what is held out, or what is left, is {''.join(texts)[:40]!r}; give more text")
    return kept
