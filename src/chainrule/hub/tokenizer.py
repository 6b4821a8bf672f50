"""A name to a tokenizer, without its model.

bytes                                   every byte a token
runs/quickstart, path/to/folder         a run or a folder that holds one
tokenizer.json, vocab.txt, ...          a published file, as ``tokenizers.load`` reads it
model.gguf                              the one inside llama.cpp's file
gpt2, org/name, modelscope:org/name     a model of a hub, of which the small files alone are fetched
"""

from pathlib import Path

from chainrule.core.errors import TokenizerError
from chainrule.core.tokenizer import Tokenizer
from chainrule.hub.links import refuse_links_out
from chainrule.hub.names import resolve_tokenizer
from chainrule.tokenizers import load
from chainrule.tokenizers.byte import ByteTokenizer
from chainrule.tokenizers.published import has_tokenizer


def find_tokenizer(name: str, *, pattern: str | None = None) -> Tokenizer:
    """The tokenizer of that name; raises ``ChainruleError`` with what is wrong and what would be right.

    ``pattern`` names how a ``.tiktoken`` file cuts texts.
    """
    if pattern is not None:
        if name == "bytes":
            raise TokenizerError(f"bytes are cut by no pattern, so {pattern!r} would change nothing; leave it out")
        return load(resolve_tokenizer(name), pattern=pattern)
    if name == "bytes":
        return ByteTokenizer()
    path = resolve_tokenizer(name)
    if path.suffix == ".gguf":
        return _of_gguf(path)
    places = (path, path / "model", path / "tokenizer")  # a run keeps it with its model, or before that is there beside it
    place = next((place for place in places if place.is_dir() and has_tokenizer(place)), path)
    if place.is_dir():
        refuse_links_out(place)
    return load(place)


def _of_gguf(path: Path) -> Tokenizer:
    from chainrule.hub.gguf.read import GGUF
    from chainrule.hub.gguf.vocab import read_vocabulary

    tokenizer = read_vocabulary(GGUF(path).metadata, path)
    if tokenizer is None:
        raise TokenizerError(f"{path} holds no tokenizer; give the model's folder or name, or a file with one")
    return tokenizer
