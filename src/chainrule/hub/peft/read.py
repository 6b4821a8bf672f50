"""A PEFT folder read: its adapters put beside a model's layers, its whole modules in the place of the model's own."""

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from chainrule.adapt.int4 import in_four_bits
from chainrule.adapt.lora import Lora, LoraLinear, adapters, linears, put
from chainrule.core.errors import CheckpointError, nearest, some
from chainrule.core.files import read_json_object
from chainrule.core.shapes import Tensor
from chainrule.hub.build import moves, published_config
from chainrule.hub.links import inside
from chainrule.hub.peft.layout import CONFIG, HEAD, STEM, TABLE, WEIGHTS, is_tied, rows_here
from chainrule.hub.peft.tables import merged_tables, split_tables
from chainrule.hub.safetensors import Mapped
from chainrule.hub.weights import fitting
from chainrule.models.moves import Move, loaded

NO_EFFECT = {
    "task_type", "base_model_name_or_path", "revision", "inference_mode", "lora_dropout", "target_modules", "exclude_modules",
    "layers_to_transform", "layers_pattern", "auto_mapping", "peft_version", "loftq_config", "megatron_config", "megatron_core",
    "runtime_config", "ensure_weight_tying", "qalora_group_size", "eva_config", "corda_config", "lora_ga_config",
}  # fmt: skip
"""Keys that say how the adapter was made; what it became stands in the tensors."""
READ = {
    "peft_type", "r", "lora_alpha", "bias", "fan_in_fan_out", "modules_to_save", "rank_pattern", "alpha_pattern", "use_rslora",
    "use_dora", "init_lora_weights", "trainable_token_indices",
}  # fmt: skip
OTHER_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin that change the base itself: such an adapter does not fit the base as it was published."""


def read_adapter(model: nn.Module, folder: str | Path) -> list[str]:
    """Put the adapter of a PEFT folder onto a model; the names of the layers it changes.

    Raises ``CheckpointError`` for a feature that is not supported, and for an adapter of another base, with both shapes.
    """
    folder = Path(folder)
    config = _config(folder)
    if adapters(model):
        raise CheckpointError("the model has an adapter already; load its base anew, or merge the first one")
    if not linears(model):
        raise CheckpointError(f"a {type(model).__name__} has no linear layers, so {folder} cannot be put beside any")
    tables, tensors = split_tables(_tensors(folder))
    changes = tuple(moves(published_config(model)))
    loras, whole = _split_loras_and_whole(tensors, folder)
    ready: dict[str, LoraLinear] = {}
    for module, parts in loras.items():
        part = _lora_of(config, module, parts["lora_A.weight"].shape[0])
        ready |= _lora_layers(model, module, parts, part, changes, folder)
        _check_rank(config, module, part, folder)
    with fitting(folder):
        ours = loaded(changes, whole)
    replaced = _without_tied_copy(model, _differing(model, ours), folder)
    replaced |= merged_tables(model, tables, ours, config, partial(_checked_lora, config, folder), changes, folder)
    _check_replacements(model, replaced, folder)
    model.requires_grad_(False)
    with torch.no_grad():
        for name, tensor in replaced.items():
            model.get_parameter(name).requires_grad_(True).copy_(tensor)
    noted: Any = model
    noted.replaced = tuple(sorted(replaced))
    for name, layer in ready.items():
        put(model, name, layer)
    return [*ready, *sorted(replaced)]


def _config(folder: Path) -> dict[str, Any]:
    if not (folder / CONFIG).exists():
        raise CheckpointError(f"{folder} holds no {CONFIG}, so it is no adapter; give the folder that PEFT wrote")
    config = read_json_object(inside(folder, CONFIG), error=CheckpointError)
    if config.get("peft_type") != "LORA":
        raise CheckpointError(f"{folder} is an adapter of type {config.get('peft_type')!r}; LORA (with DoRA) can be read")
    if config.get("bias", "none") != "none":
        raise CheckpointError(f"{folder}: bias={config['bias']!r} is not supported; only adapters with bias 'none' are")
    begun = str(config.get("init_lora_weights"))
    if begun.startswith(OTHER_BASE):
        raise CheckpointError(
            f"{folder} was begun by {begun!r}, which changes the base: it does not fit the published one; convert it to a "
            "plain LoRA of twice the rank (PEFT: path_initial_model_for_weight_conversion)"
        )
    for key, value in config.items():
        if key not in NO_EFFECT | READ and value not in (None, False, [], {}, "none"):
            raise CheckpointError(f"{folder}: the adapter uses {key}={value!r}, which is not supported{nearest(key, READ)}")
    for key in ("r", "lora_alpha", "lora_dropout"):
        if not isinstance(config.get(key) or 0, int | float):
            raise CheckpointError(f"{folder / CONFIG}: {key} is {config[key]!r}; it must be a number")
    for key in ("rank_pattern", "alpha_pattern"):
        if not isinstance(config.get(key) or {}, dict):
            raise CheckpointError(f"{folder / CONFIG}: {key} is {config[key]!r}; it must be a table of names and numbers")
        if bad := [value for value in (config.get(key) or {}).values() if not isinstance(value, int | float)]:
            raise CheckpointError(f"{folder / CONFIG}: {key} holds {bad[0]!r}; it must be a table of names and numbers")
    return config


def _tensors(folder: Path) -> dict[str, Tensor]:
    if not (folder / WEIGHTS).exists():
        pickled = " (adapter_model.bin is a pickle, which may run code: convert it)" * (folder / "adapter_model.bin").exists()
        raise CheckpointError(f"{folder} holds no {WEIGHTS}{pickled}; copy it again")
    file = Mapped(inside(folder, WEIGHTS))
    return {name: file.tensor(name).clone() for name in file.slots}


def _split_loras_and_whole(
    tensors: Mapping[str, Tensor], folder: Path
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """(module → its A, B and magnitude, published name → a tensor saved whole)."""
    loras: dict[str, dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"base_model\.model\.(.+)\.(lora_A\.weight|lora_B\.weight|lora_magnitude_vector)", name)
        if match:
            loras.setdefault(match[1], {})[match[2]] = tensor
        elif name.startswith(STEM) and re.search(r"\.(weight|bias)$", name) and "lora_" not in name:
            whole[name.removeprefix(STEM).replace(".base_layer.", ".")] = tensor  # PEFT adds the base of an adapted lm_head
        else:
            raise CheckpointError(f"{folder}: {name} is no part of a LoRA of linear layers, which alone can be read")
    halves = [module for module, parts in loras.items() if not {"lora_A.weight", "lora_B.weight"} <= set(parts)]
    if halves:
        raise CheckpointError(f"{folder}: {some(halves)} has only one of lora_A and lora_B; copy it again")
    for module, parts in loras.items():
        for name, tensor in parts.items():
            if tensor.ndim != (1 if name == "lora_magnitude_vector" else 2):
                raise CheckpointError(
                    f"{folder}: {module}.{name} is {tuple(tensor.shape)}; lora_A and lora_B are matrices, a magnitude is a "
                    "vector: copy it again"
                )
    return loras, whole


def _lora_of(config: Mapping[str, Any], module: str, rank: int) -> Lora:
    alpha = _pattern_value(config, "alpha_pattern", module, config.get("lora_alpha") or 8)
    dropout, dora = float(config.get("lora_dropout") or 0.0), bool(config.get("use_dora"))
    return Lora(rank=rank, alpha=float(alpha), dropout=dropout, stabilised=bool(config.get("use_rslora")), dora=dora)


def _check_rank(config: Mapping[str, Any], module: str, part: Lora, folder: Path) -> None:
    stated = _pattern_value(config, "rank_pattern", module, config.get("r") or part.rank)
    if stated != part.rank:
        raise CheckpointError(
            f"{folder}: its config gives {module} a rank of {stated}, its tensors have {part.rank}; copy both again"
        )


def _checked_lora(config: Mapping[str, Any], folder: Path, module: str, rank: int) -> Lora:
    part = _lora_of(config, module, rank)
    _check_rank(config, module, part, folder)
    return part


def _pattern_value(config: Mapping[str, Any], patterns: str, module: str, usual: float) -> float:
    """The number of the first of the ``patterns`` that a module's name ends in, else the usual one."""
    for pattern, value in (config.get(patterns) or {}).items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        except re.error as error:
            raise CheckpointError(f"{pattern!r} in the adapter's {patterns} is no pattern: {error}; copy it again") from error
    return usual


def _lora_layers(
    model: nn.Module, module: str, parts: Mapping[str, Tensor], part: Lora, changes: tuple[Move, ...], folder: Path
) -> dict[str, LoraLinear]:
    """The adapters that one published module's A and B are here, not yet put in their places."""
    a, b = parts["lora_A.weight"].float(), parts["lora_B.weight"].float()
    if a.shape[0] != b.shape[1]:
        raise CheckpointError(f"{folder}: {module} has lora_A of {a.shape[0]} rows and lora_B of {b.shape[1]} columns")
    if part.dora != ("lora_magnitude_vector" in parts):
        said = f"use_dora={str(part.dora).lower()}"
        raise CheckpointError(
            f"{folder}: {CONFIG} says {said}, which {module}'s tensors contradict; they do not belong together"
        )
    rows = rows_here(changes, module, b)
    sizes = rows_here(changes, module, parts["lora_magnitude_vector"].float()[:, None]) if part.dora else {}
    ready: dict[str, LoraLinear] = {}
    layers = linears(model)
    for name, one in rows.items():
        path = name.removesuffix(".weight")
        layer = layers.get(path)
        if layer is None:
            tied = "; the readout here is the embedding table" * (path == "lm_head")
            raise CheckpointError(f"{folder} is for another base: it changes {module}, which this model does not have{tied}")
        if (one.shape[0], a.shape[1]) != (layer.out_features, layer.in_features):
            theirs, ours = f"{one.shape[0]} × {a.shape[1]}", f"{layer.out_features} × {layer.in_features}"
            raise CheckpointError(f"{folder} is for another base: its {module} is {theirs}, but this model's is {ours}")
        if part.dora and len(sizes[name]) != len(one):
            raise CheckpointError(
                f"{folder}: {module} has a magnitude for {len(sizes[name])} rows, but lora_B has {len(one)}; copy it again"
            )
        lora = LoraLinear(layer, part)
        with torch.no_grad():
            lora.a.copy_(a)
            lora.b.copy_(one)
            if lora.magnitude is not None:
                lora.magnitude.copy_(sizes[name][:, 0])
        ready[path] = lora
    return ready


def _differing(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that are not the model's own, to the bit; a tied readout is the table."""
    own = dict(model.named_parameters())
    if HEAD not in own and TABLE in own:
        own[HEAD] = own[TABLE]
    return {
        name: tensor
        for name, tensor in tensors.items()
        if name not in own or tensor.shape != own[name].shape or not torch.equal(tensor.to(own[name]), own[name])
    }


def _without_tied_copy(model: nn.Module, tensors: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """The tensors without PEFT's copy of a table that the model reads and writes with; one of the two alone is an error."""
    both = [name for name in (TABLE, HEAD) if name in tensors]
    if not both or not is_tied(model):
        return tensors
    if len(both) == 1 or not torch.equal(tensors[TABLE], tensors[HEAD]):
        raise CheckpointError(
            f"{folder} replaces {both[0]} alone, but this model reads and writes with one table; make the adapter with "
            "ensure_weight_tying=True, or set tie_word_embeddings to false in the base"
        )
    return {name: tensor for name, tensor in tensors.items() if name != HEAD}


def _check_replacements(model: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
    parameters = dict(model.named_parameters())
    packed = in_four_bits(model)
    for name, tensor in tensors.items():
        if name.removesuffix(".weight") in packed:
            raise CheckpointError(f"{folder} replaces {name}, which lies in four bits here; load the base in bf16")
        if name not in parameters:
            raise CheckpointError(f"{folder} is for another base: it replaces {name}, which this model does not have")
        if parameters[name].shape != tensor.shape:
            ours = tuple(parameters[name].shape)
            raise CheckpointError(f"{folder} is for another base: its {name} is {tuple(tensor.shape)}, this model's {ours}")
