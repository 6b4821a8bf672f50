"""A name to an ``LM``: a run folder, a folder in the Hugging Face layout, a llama2.c file, a text to count, or the truth.

runs/quickstart     a run: its ``model/`` folder
path/to/model       config.json, safetensors, tokenizer, template
stories260K.bin     llama2.c, with a ``tok*.bin`` beside it
ngram5:FILE         a text counted on the spot, byte by byte; without a number, trigrams
world               the exact distribution of the world
"""

import json
import re
from pathlib import Path
from typing import Any

import torch

from chainrule.core.device import DTYPES, pick_device
from chainrule.core.errors import CheckpointError, ConfigError, nearest
from chainrule.core.files import read_text
from chainrule.core.model import LanguageModel
from chainrule.core.tokenizer import Tokenizer
from chainrule.hub.build import build, moves
from chainrule.hub.llama2c import read_llama2c
from chainrule.hub.lm import LM
from chainrule.hub.weights import assign, read_weights
from chainrule.models.moves import loaded
from chainrule.tokenizers import load as load_tokenizer
from chainrule.tokenizers.byte import ByteTokenizer
from chainrule.tokenizers.chat import ChatTemplate, find_template
from chainrule.tokenizers.published import has_tokenizer

NGRAM = re.compile(r"ngram(\d*):(.+)", re.DOTALL)


def load(name: str | Path, *, device: str = "auto", dtype: str = "auto") -> LM:
    """The language model of that name. ``dtype`` ``auto`` keeps the format the weights are stored in.

    Raises ``CheckpointError`` with what is wrong and what would be right.
    """
    where = pick_device(device)
    if dtype not in ("auto", *DTYPES):
        raise ConfigError(f"unknown number format {dtype!r}{nearest(dtype, ['auto', *DTYPES])}")
    lm = _load(str(name), DTYPES.get(dtype))
    lm.model.to(where).eval()
    return lm


def _load(name: str, dtype: torch.dtype | None) -> LM:
    if name == "world":
        from chainrule.models.oracle import Oracle

        return LM(Oracle(), ByteTokenizer(), name=name)
    if counted := NGRAM.fullmatch(name):
        return _count(counted[2], int(counted[1] or 3), name)
    path = Path(name)
    if not path.exists():
        raise CheckpointError(
            f"{name} does not exist here; give a run (runs/NAME), a folder with config.json and safetensors, "
            "a llama2.c .bin file, ngram:FILE, or world"
        )
    if path.is_file():
        return _file(path)
    if (path / "recipe.yaml").exists() or (path / "model" / "config.json").exists():
        if not (path / "model" / "config.json").exists():
            raise CheckpointError(f"{path} is a run without a model yet; let it finish: chainrule train ... --resume")
        path = path / "model"
    return _folder(path, dtype)


def _count(text: str, order: int, name: str) -> LM:
    from chainrule.models.ngram import NGram

    if not 1 <= order <= 8:
        raise ConfigError(f"{name} asks for order {order}; n-grams here have orders 1 to 8")
    tokenizer = ByteTokenizer()
    ids = [256, *tokenizer.encode(read_text(Path(text))), 256]
    return LM(NGram.fit([ids], order=order, vocab_size=tokenizer.vocab_size), tokenizer, name=name)


def _file(path: Path) -> LM:
    if path.suffix != ".bin":
        raise CheckpointError(f"{path} is no model file known here; llama2.c's end in .bin (for a text, say ngram:{path})")
    model = read_llama2c(path)
    beside = sorted(path.parent.glob("tok*.bin"))
    tokenizer = load_tokenizer(beside[0]) if len(beside) == 1 else None
    _fits(model, tokenizer, path)
    return LM(model, tokenizer, name=path.stem)


def _folder(folder: Path, dtype: torch.dtype | None) -> LM:
    config = _config(folder)
    with torch.device("meta"):
        model = build(config)
    assign(model, loaded(moves(config), read_weights(folder, dtype)), folder)
    model.requires_grad_(True)
    tokenizer = load_tokenizer(folder) if has_tokenizer(folder) else None
    _fits(model, tokenizer, folder)
    source = find_template(folder)
    template = None if source is None or tokenizer is None else ChatTemplate(source, tokenizer)
    name = folder.parent.name if folder.name == "model" else folder.name
    return LM(model, tokenizer, template, name=name)


def _config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").exists():
        raise CheckpointError(f"{folder} holds no config.json, so it is no model; give the folder that holds one")
    try:
        return json.loads(read_text(folder / "config.json"))
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{folder / 'config.json'} is not JSON: {error}; copy it again") from error


def _fits(model: LanguageModel, tokenizer: Tokenizer | None, where: Path) -> None:
    if tokenizer is not None and tokenizer.vocab_size > model.vocab_size:
        raise CheckpointError(
            f"{where}: the tokenizer has {tokenizer.vocab_size} ids but the model scores {model.vocab_size}; "
            "they do not belong together"
        )
