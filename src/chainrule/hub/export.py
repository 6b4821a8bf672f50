"""A model into another program's file: GGUF for llama.cpp and ollama, ``.bin`` for llama2.c and llm.c, else a folder."""

import math
from collections.abc import Callable
from pathlib import Path

import torch

from chainrule.core.errors import CheckpointError, ConfigError, nearest
from chainrule.hub.build import moves, published_config
from chainrule.hub.encoder import MaskedLM
from chainrule.hub.gguf.mix import ALIASES, KINDS
from chainrule.hub.gguf.model import write_model
from chainrule.hub.llama2c import write_llama2c
from chainrule.hub.llmc import write_llmc
from chainrule.hub.lm import LM
from chainrule.hub.modelfile import write_modelfile
from chainrule.hub.save import check_plain
from chainrule.models.decoder import Decoder
from chainrule.models.moves import saved
from chainrule.tokenizers.llama2c import Llama2cTokenizer

TYPES = {"gguf": tuple(KINDS), "llama2c": ("f32", "int8"), "llmc": ("f32", "bf16"), "hf": ()}
"""Where a model can go → the number formats it can go in; the first is the usual one, but ``q8_0`` for GGUF."""


def export(
    lm: LM | MaskedLM,
    path: Path,
    *,
    to: str,
    kind: str | None = None,
    modelfile: bool = False,
    shard_gb: float | None = None,
    force: bool = False,
) -> list[str]:
    """Write a model to ``path``; returns what the user should know about the file.

    Raises ``CheckpointError`` where the format cannot hold the model, or something is there already, unless ``force``.
    """
    kind = checked(to, kind=kind, modelfile=modelfile, shard_gb=shard_gb)
    check_plain(lm.model)
    if to == "hf":
        lm.save(path, force=force, **({} if shard_gb is None else {"shard_bytes": max(1, round(shard_gb * 1e9))}))
        return []
    if not isinstance(lm, LM):
        raise CheckpointError(
            f"{lm.name} is an encoder, which nothing that reads {to} runs; export it as a folder: to='hf' (--to hf)"
        )
    beside = [path.with_name("Modelfile")] if modelfile else []
    if to == "llama2c" and _llama2c_tokenizer(lm) and not _beside(lm, path):
        beside.append(path.with_name("tokenizer.bin"))
    for file in [path, *beside]:
        if file.exists() and not force:
            raise CheckpointError(f"{file} exists already; give another name, or force=True (--force) to replace it")
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give the name of a file")
    notes = WRITERS[to](lm, path, str(kind))
    note = write_modelfile(lm, path) if modelfile else None
    return notes + ([note] if note else [])


def checked(to: str, *, kind: str | None = None, modelfile: bool = False, shard_gb: float | None = None) -> str | None:
    """How the weights are stored (None: as they are); raises ``ConfigError`` for settings that do not suit the format."""
    if to not in TYPES:
        raise ConfigError(f"to={to!r} (--to) is no format to export to{nearest(to, TYPES)}")
    if kind:
        kind = ALIASES.get(kind.lower(), kind.lower())
    else:
        kind = "q8_0" if to == "gguf" else next(iter(TYPES[to]), None)
    if kind is not None and kind not in TYPES[to]:
        known = f"{', '.join(TYPES[to])}" or "none: the weights stay as they are"
        raise ConfigError(
            f"kind={kind!r} (--type) does not suit {to}{nearest(kind, TYPES[to]) if TYPES[to] else ''} (its types: {known})"
        )
    if modelfile and to != "gguf":
        raise ConfigError(f"modelfile=True (--modelfile) goes with gguf, which ollama reads, not with {to}; leave it out")
    if shard_gb is not None and to != "hf":
        raise ConfigError(f"shard_gb={shard_gb:g} (--shard-gb) is about a folder, and {to} is one file; leave it out")
    if shard_gb is not None and not 0 < shard_gb * 1e9 < math.inf:
        raise ConfigError(f"shard_gb={shard_gb:g} (--shard-gb) is no size of a file; give a number of GB above 0, such as 5")
    return kind


def _llama2c(lm: LM, path: Path, kind: str) -> list[str]:
    if not isinstance(lm.model, Decoder):
        raise CheckpointError(f"llama2.c runs LLaMA alone; {lm.name} is a {type(lm.model).__name__}")
    write_llama2c(lm.model, path, 2 if kind == "int8" else 0)
    if tokenizer := _llama2c_tokenizer(lm):
        if not _beside(lm, path):
            tokenizer.save(path.parent)
        return [f"the tokenizer is beside it: {_beside(lm, path)}"]
    return ["llama2.c has tokenizers of its own kind alone, so none was written"]


def _llama2c_tokenizer(lm: LM) -> Llama2cTokenizer | None:
    return lm.tokenizer if isinstance(lm.tokenizer, Llama2cTokenizer) else None


def _beside(lm: LM, path: Path) -> Path | None:
    """The file beside a model's that holds the model's own llama2.c tokenizer already, under whatever name."""
    tokenizer = _llama2c_tokenizer(lm)
    files = sorted(file for file in path.parent.glob("tok*.bin") if file != path)
    return next((file for file in files if tokenizer and file.read_bytes() == tokenizer.file()), None)


def _llmc(lm: LM, path: Path, kind: str) -> list[str]:
    config = published_config(lm.model)
    if config.get("model_type") != "gpt2":
        raise CheckpointError(
            f"llm.c holds GPT-2 alone; {lm.name} is of type {config.get('model_type')!r}; export it with to='gguf' (--to gguf)"
        )
    tensors = saved(moves(config), {name: tensor.detach().cpu() for name, tensor in lm.model.state_dict().items()})
    write_llmc(config, tensors, path, torch.bfloat16 if kind == "bf16" else torch.float32)
    return ["llm.c's file holds the model alone; its tokenizer is GPT-2's"]


WRITERS: dict[str, Callable[[LM, Path, str], list[str]]] = {"gguf": write_model, "llama2c": _llama2c, "llmc": _llmc}
