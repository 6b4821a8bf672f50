"""A model out of a GGUF file, and into one: keys to a published config, tensors to published names; the family does the rest.

file -> metadata -> config.json -> parts        file -> tensors -> moves of the architecture -> moves of the family -> model
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from chainrule.core.errors import CheckpointError
from chainrule.core.shapes import Tensor
from chainrule.hub.build import moves, published_config, shapes
from chainrule.hub.gguf.config import (
    architecture,
    check_round_trip,
    deviations,
    metadata_of,
    mtp_layers,
    published,
    stored_name,
)
from chainrule.hub.gguf.mix import KINDS, file_type, mix
from chainrule.hub.gguf.names import ARCHS
from chainrule.hub.gguf.read import FLOATS, GGUF
from chainrule.hub.gguf.rope import FREQS, rope_tables, tables_read
from chainrule.hub.gguf.tables import ARCH_OF, TABLES
from chainrule.hub.gguf.vocab import FOR_TOOLS, TEMPLATE, read_vocabulary
from chainrule.hub.gguf.vocab_write import write_vocabulary
from chainrule.hub.gguf.write import write_gguf
from chainrule.hub.lm import LM
from chainrule.hub.stored import Stored
from chainrule.hub.trace import Stopwatch
from chainrule.hub.weights import Wish, fill, left_out
from chainrule.models.families.gpt2 import spelled
from chainrule.models.moves import saved
from chainrule.tokenizers.chat import ChatTemplate

EMBEDDING, HEAD, OUTPUT = "token_embd.weight", "output.weight", "blk.0.attn_output.weight"


def read_model(path: Path, wish: Wish, watch: Stopwatch) -> LM:
    """The model, tokenizer and template in a file; without a wished format, in that of most matrices (blocks: float32)."""
    file = GGUF(path)
    watch.lap("open", f"{len(file.slots)} tensors, mapped", file=path, size_bytes=path.stat().st_size, made=file.slots)
    if file.metadata.get("split.count", 1) not in (0, 1):
        raise CheckpointError(
            f"{path} is one of several parts; join them first: llama-gguf-split --merge {path.name} whole.gguf"
        )
    arch = architecture(file.metadata, path)
    sizes = {name: slot.shape for name, slot in file.slots.items()}
    tables = {name: file.tensor(name).float() for name in tables_read(arch) if name in sizes}
    config = published(arch, file.metadata, sizes, tables, path)
    watch.lap("config", f"the architecture {arch} is model_type {config['model_type']!r}", file=path, made=config)
    model = shapes(config)
    n = model_layers(config)
    further = tuple(f"blk.{i}." for i in range(n, n + mtp_layers(arch, file.metadata, path)))
    stored = {name: _stored(file, name) for name in file.slots}
    for name in [name for name in stored if name in tables or name.startswith(further)]:
        why = "part of rope's settings" if name in tables else "of a layer that guesses further tokens"
        watch.lap("tensor", **left_out(name, stored.pop(name), why))
    way = (*ARCHS[arch].to_published(config), *moves(config))
    fill(model, stored, way, path, replace(wish, dtype=wish.dtype or _usual(file)), watch)
    model.requires_grad_(True)
    tokenizer = read_vocabulary(file.metadata, path)
    source, tool_use = file.metadata.get(TEMPLATE), file.metadata.get(FOR_TOOLS)
    template = None
    if isinstance(source, str) and tokenizer is not None:
        template = ChatTemplate(source, tokenizer, tool_use=tool_use if isinstance(tool_use, str) else None)
    return LM(model, tokenizer, template, name=path.stem)


def _stored(file: GGUF, name: str) -> Stored:
    """A tensor of the file, not yet read."""
    slot = file.slots[name]
    block = None if slot.format in FLOATS else slot.format
    return Stored(file.path, slot.dtype, slot.shape, partial(file.tensor, name), block, slot.size_bytes)


def model_layers(config: Mapping[str, Any]) -> int:
    """How many layers a published config has."""
    return config.get("num_hidden_layers") or config["n_layer"]


def _usual(file: GGUF) -> torch.dtype:
    """The number format of most matrices, which the few tensors kept finer follow: a layer computes in one format."""
    counts = Counter(slot.dtype for slot in file.slots.values() if len(slot.shape) > 1)
    return counts.most_common(1)[0][0] if counts else torch.float32


def write_model(lm: LM, path: Path, kind: str) -> list[str]:
    """Write a model with its tokenizer and template; returns what the user should know about the file."""
    arch, config, notes = _architecture(published_config(lm.model))
    general = _general(arch, lm.name or path.stem, kind)
    tables = rope_tables(arch, config)
    tensors = tables | stored_tensors(lm.model.state_dict(), arch, config)
    keys = metadata_of(arch, config)
    check_round_trip(config, published(arch, keys, _shapes(tensors), tables, path))
    _check_loadable(arch, tensors)
    head = _own_head(arch, tensors)
    notes += [f"llama.cpp wants a head of its own for {arch}, so the file holds the embedding twice"] * len(head)
    tensors |= head
    vocabulary, note = write_vocabulary(lm.tokenizer, config["vocab_size"])
    notes += [note] if note else []
    notes += deviations(arch, config)
    template = {} if lm.template is None else {TEMPLATE: lm.template.source}
    template |= {FOR_TOOLS: lm.template.tool_use} if lm.template is not None and lm.template.tool_use is not None else {}
    n, experts = model_layers(config), keys.get(f"{stored_name(arch)}.expert_count", 0)
    formats = mix(_shapes(tensors), kind, n_layers=n, n_experts=experts, seventy=_seventy(arch, config))
    write_gguf(path, general | keys | vocabulary | template, tensors, formats)
    return notes


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _general(arch: str, name: str, kind: str) -> dict[str, Any]:
    """The keys that every file has."""
    keys = {"architecture": stored_name(arch), "name": name, "file_type": file_type(kind)}
    if KINDS[kind][0] not in FLOATS:
        keys["quantization_version"] = 2
    return {f"general.{key}": value for key, value in keys.items()}


def _check_loadable(arch: str, tensors: Mapping[str, Tensor]) -> None:
    """Raise ``CheckpointError`` for what llama.cpp would not load."""
    table = TABLES[arch]
    if FREQS in tensors and not table.factors:
        raise CheckpointError(
            f"llama.cpp reads no factors of rope (LLaMA 3's scaling) for {arch}; export it with to='hf' (--to hf)"
        )
    heads, d = tensors[OUTPUT].shape[::-1] if table.square else (0, 0)
    if heads != d:
        raise CheckpointError(
            f"llama.cpp takes the heads of {arch} together to be as wide as the model, and here they are {heads} wide "
            f"in a model of {d}; export it with to='hf' (--to hf)"
        )
    if table.head == "tied" and HEAD in tensors:
        raise CheckpointError(
            f"llama.cpp ties the head of {arch} to its embedding, and here its head is not tied; "
            "export it with to='hf' (--to hf)"
        )


def _own_head(arch: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head that llama.cpp wants of its own where the model has none: the embedding once more."""
    return {HEAD: tensors[EMBEDDING]} if TABLES[arch].head == "own" and HEAD not in tensors else {}


def stored_tensors(state: Mapping[str, Tensor], arch: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Our parameters as the file holds them, by GGUF's names."""
    way = (*ARCHS[arch].to_published(config), *moves(config))
    return saved(way, {name: tensor.detach() for name, tensor in state.items()})


def _architecture(config: dict[str, Any]) -> tuple[str, dict[str, Any], list[str]]:
    """(llama.cpp's architecture for a published config, the config as the file will mean it, notes)."""
    kind = config.get("model_type")
    if kind not in ARCH_OF:
        known = ", ".join(sorted(ARCH_OF))
        raise CheckpointError(
            f"no GGUF is written here of a model of type {kind!r}, only of {known}; export it with to='hf' (--to hf)"
        )
    if kind == "gpt2":
        return ARCH_OF[kind], spelled(config), []
    window, context = config.get("sliding_window"), config.get("max_position_embeddings", 0)
    if kind not in ("mistral", "mixtral") or window is None:
        return ARCH_OF[kind], config, []
    notes = [f"llama.cpp gives this architecture no window, so the file's context is the window: {window} tokens"]
    means = {**config, "sliding_window": None, "max_position_embeddings": min(window, context)}
    return ARCH_OF[kind], means, notes if window < context else []


def _seventy(arch: str, config: Mapping[str, Any]) -> bool:
    groups = config.get("num_key_value_heads")
    return arch == "llama" and config["num_hidden_layers"] == 80 and groups not in (None, config["num_attention_heads"])
