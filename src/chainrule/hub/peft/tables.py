"""Adapters of an embedding table, which become a part of it: a LoRA of the whole table, or new rows for chosen tokens.

    base_model.model.<module>.lora_embedding_A   r × v     base_model.model.<module>.lora_embedding_B   d × r      E + s (B A)ᵀ
    base_model.model.<module>.token_adapter.trainable_tokens_delta   n × d      the rows of ``trainable_token_indices``

A table read and written with is one: new rows are new in both places, as in PEFT; a LoRA that PEFT gives the reading alone is
refused.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from chainrule.adapt.lora import Lora
from chainrule.core.errors import CheckpointError
from chainrule.core.shapes import Tensor
from chainrule.hub.peft.layout import CONFIG, TABLE, is_tied
from chainrule.models.moves import Move, loaded

A, B, ROWS = "lora_embedding_A", "lora_embedding_B", "token_adapter.trainable_tokens_delta"
NAME = re.compile(rf"base_model\.model\.(.+)\.({A}|{B}|{re.escape(ROWS)})")


def split_tables(tensors: Mapping[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """(module → what adapts its table, all other tensors)."""
    tables: dict[str, dict[str, Tensor]] = {}
    others: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if match := NAME.fullmatch(name):
            tables.setdefault(match[1], {})[match[2]] = tensor
        else:
            others[name] = tensor
    return tables, others


def merged_tables(
    model: nn.Module,
    tables: Mapping[str, Mapping[str, Tensor]],
    saved: Mapping[str, Tensor],
    config: Mapping[str, Any],
    lora_of: Callable[[str, int], Lora],
    changes: tuple[Move, ...],
    folder: Path,
) -> dict[str, Tensor]:
    """The adapted tables, under our names: what they were (in the model, or ``saved`` whole) and what was learned, in one."""
    if config.get("trainable_token_indices") and not any(ROWS in parts for parts in tables.values()):
        raise CheckpointError(f"{folder}: {CONFIG} names trainable_token_indices, but {ROWS} is nowhere; copy it again")
    own, merged = dict(model.named_parameters()), {}
    for module, parts in tables.items():
        name = next(iter(loaded(changes, {f"{module}.weight": torch.zeros(1, 1)})))
        if name not in own:
            raise CheckpointError(f"{folder} is for another base: it changes {module}, of which this model has no table")
        table = saved.get(name, own[name]).detach().float()
        if ROWS in parts:
            merged[name] = _with_rows(table, module, parts[ROWS].float(), config, folder)
        else:
            one = is_tied(model) or getattr(getattr(model.config, "head", None), "tied", False)
            merged[name] = table + _learned(table, module, parts, one and name == TABLE, lora_of, folder)
    return merged


def _with_rows(table: Tensor, module: str, rows: Tensor, config: Mapping[str, Any], folder: Path) -> Tensor:
    tokens = _tokens(config.get("trainable_token_indices"), module)
    fits = tokens is not None and rows.shape == (len(tokens), table.shape[1]) and set(tokens) <= set(range(len(table)))
    if not fits:
        raise CheckpointError(
            f"{folder} has {tuple(rows.shape)} new rows of {module} for the tokens {str(tokens)[:60]}; "
            f"this model's table is {tuple(table.shape)}: it is for another base, or {CONFIG} is not its own"
        )
    return table.index_copy(0, torch.tensor(tokens, device=table.device), rows.to(table))


def _tokens(said: Any, module: str) -> list[int] | None:
    """The tokens of a module: of every one, or by the end of its name."""
    if isinstance(said, dict):
        said = next((tokens for end, tokens in said.items() if f".{module}".endswith(f".{end}")), None)
    return said if isinstance(said, list) and all(type(one) is int for one in said) else None


def _learned(
    table: Tensor, module: str, parts: Mapping[str, Tensor], tied: bool, lora_of: Callable[[str, int], Lora], folder: Path
) -> Tensor:
    """What a LoRA adds to a table."""
    if set(parts) != {A, B}:
        raise CheckpointError(f"{folder}: {module} has only one of {A} and {B}; copy it again")
    if tied:
        raise CheckpointError(
            f"{folder} adapts {module} alone, but this model reads and writes with one table; "
            "set tie_word_embeddings to false in the base"
        )
    a, b = parts[A].float(), parts[B].float()
    if a.ndim != 2 or b.ndim != 2:
        raise CheckpointError(f"{folder}: {A} and {B} of {module} are {tuple(a.shape)} and {tuple(b.shape)}; both are matrices")
    lora = lora_of(module, len(a))
    if lora.dora:
        raise CheckpointError(f"{folder} has a DoRA of the table {module}, which is not supported; only a LoRA of it is")
    if len(a) != b.shape[1] or (a.shape[1], len(b)) != table.shape:
        raise CheckpointError(
            f"{folder} is for another base: its {module} is {a.shape[1]} × {len(b)} (ranks {len(a)} and {b.shape[1]}), "
            f"but this model's is {table.shape[0]} × {table.shape[1]}"
        )
    return lora.scale * (b @ a).mT.to(table)
