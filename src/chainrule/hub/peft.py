"""PEFT's adapter folders, read and written: ``adapter_config.json`` and ``adapter_model.safetensors``.

    base_model.model.<module>.lora_A.weight   r × in          base_model.model.<module>.lora_B.weight   out × r
    base_model.model.<module>.lora_magnitude_vector   out     (DoRA)
    base_model.model.<module>.weight          a module of ``modules_to_save``, whole

Modules carry their published names; the family's moves say where they are here. A matrix that is published whole and stands in
parts here (Phi-3's q, k and v) has its B cut like its rows, and A for each part.

https://huggingface.co/docs/peft/developer_guides/checkpoint
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from chainrule.adapt.int4 import in_four_bits
from chainrule.adapt.lora import Lora, LoraLinear, adapters, linears, put
from chainrule.core.errors import CheckpointError, nearest
from chainrule.core.files import read_json_object, whole_folder
from chainrule.core.masked import MaskedModel
from chainrule.core.shapes import Tensor
from chainrule.hub.build import moves, published_config
from chainrule.hub.safetensors import Mapped, write_tensors
from chainrule.hub.weights import inside, some
from chainrule.models.moves import Move, Transpose, loaded, saved
from chainrule.models.seq2seq import Seq2Seq

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
STEM = "base_model.model."
TABLE, HEAD = "embed_tokens.weight", "lm_head.weight"
NO_EFFECT = {
    "task_type", "base_model_name_or_path", "revision", "inference_mode", "lora_dropout", "target_modules", "exclude_modules",
    "layers_to_transform", "layers_pattern", "auto_mapping", "peft_version", "loftq_config", "megatron_config", "megatron_core",
    "runtime_config", "ensure_weight_tying", "qalora_group_size", "eva_config", "corda_config", "lora_ga_config",
}  # fmt: skip
"""Keys that say how the adapter was made; what it became stands in the tensors."""
READ = {
    "peft_type", "r", "lora_alpha", "bias", "fan_in_fan_out", "modules_to_save", "rank_pattern", "alpha_pattern", "use_rslora",
    "use_dora", "init_lora_weights",
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
    tensors = _tensors(folder)
    changes = tuple(moves(published_config(model)))
    loras, whole = _sorted(tensors, folder)
    ready: dict[str, LoraLinear] = {}
    for module, parts in loras.items():
        part = _part(config, module, parts["lora_A.weight"].shape[0])
        ready |= _placed(model, module, parts, part, changes, folder)
        stated = _of(config, "rank_pattern", module, config.get("r") or part.rank)
        if stated != part.rank:
            raise CheckpointError(
                f"{folder}: its config gives {module} a rank of {stated}, its tensors have {part.rank}; copy both again"
            )
    replaced = _once(model, _changed(model, loaded(changes, whole)), folder)
    _check_whole(model, replaced, folder)
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


def _sorted(tensors: Mapping[str, Tensor], folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
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
    return loras, whole


def _part(config: Mapping[str, Any], module: str, rank: int) -> Lora:
    alpha = _of(config, "alpha_pattern", module, config.get("lora_alpha") or 8)
    dropout, dora = float(config.get("lora_dropout") or 0.0), bool(config.get("use_dora"))
    return Lora(rank=rank, alpha=float(alpha), dropout=dropout, stabilised=bool(config.get("use_rslora")), dora=dora)


def _of(config: Mapping[str, Any], patterns: str, module: str, usual: float) -> float:
    """The number of the first of the ``patterns`` that a module's name ends in, else the usual one."""
    for pattern, value in (config.get(patterns) or {}).items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return value
        except re.error as error:
            raise CheckpointError(f"{pattern!r} in the adapter's {patterns} is no pattern: {error}; copy it again") from error
    return usual


def _placed(
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
    rows = _rows(changes, module, b)
    sizes = _rows(changes, module, parts["lora_magnitude_vector"].float()[:, None]) if part.dora else {}
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
        lora = LoraLinear(layer, part)
        with torch.no_grad():
            lora.a.copy_(a)
            lora.b.copy_(one)
            if lora.magnitude is not None:
                lora.magnitude.copy_(sizes[name][:, 0])
        ready[path] = lora
    return ready


def _rows(changes: tuple[Move, ...], module: str, tensor: Tensor) -> dict[str, Tensor]:
    """A tensor with a row for each output of a module, moved as its matrix is: name of ours → its rows."""
    name = f"{module}.weight"
    return loaded(changes, {name: tensor.mT if _other_way(changes, name, tensor) else tensor})


def _other_way(changes: tuple[Move, ...], name: str, tensor: Tensor) -> bool:
    """Whether a matrix is published with its inputs first, as GPT-2's Conv1D are; the adapter's two never are."""
    tensors = {name: tensor}
    for move in changes:
        if isinstance(move, Transpose):
            return any(re.search(move.pattern, one) for one in tensors)
        tensors = move.load(tensors)
    return False


def _changed(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that are not the model's own, to the bit; a tied readout is the table."""
    own = dict(model.named_parameters())
    if HEAD not in own and TABLE in own:
        own[HEAD] = own[TABLE]
    return {
        name: tensor
        for name, tensor in tensors.items()
        if name not in own or tensor.shape != own[name].shape or not torch.equal(tensor.to(own[name]), own[name])
    }


def _once(model: nn.Module, tensors: dict[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """The tensors without PEFT's copy of a table that the model reads and writes with; one of the two alone is an error."""
    both = [name for name in (TABLE, HEAD) if name in tensors]
    if not both or not _tied(model):
        return tensors
    if len(both) == 1 or not torch.equal(tensors[TABLE], tensors[HEAD]):
        raise CheckpointError(
            f"{folder} replaces {both[0]} alone, but this model reads and writes with one table; make the adapter with "
            "ensure_weight_tying=True, or set tie_word_embeddings to false in the base"
        )
    return {name: tensor for name, tensor in tensors.items() if name != HEAD}


def _tied(model: Any) -> bool:
    return bool(getattr(model.config, "tied", False))


def _check_whole(model: nn.Module, tensors: Mapping[str, Tensor], folder: Path) -> None:
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


def write_adapter(model: nn.Module, folder: str | Path, *, base: str = "", force: bool = False) -> Path:
    """Write a model's adapters as PEFT does, whole or not at all; ``base`` is the name of the model they belong to."""
    folder, found = Path(folder), adapters(model)
    if not found:
        raise CheckpointError("the model has no adapters to write; attach some first, or save the model itself")
    if folder.exists() and any(folder.iterdir()) and not force:
        raise CheckpointError(f"{folder} exists already; give a new folder, or force=True (--force) to replace it")
    config = published_config(model)
    changes = tuple(moves(config))
    tensors, parts = _published(found, changes)
    if len({(part.stabilised, part.dora) for part in parts.values()}) > 1:
        raise CheckpointError("the adapters are of different kinds (DoRA, rank-stabilised), which one config cannot say")
    whole = _replaced(model, changes, parts)
    stored = [_other_way(changes, f"{name}.weight", tensors[f"{STEM}{name}.lora_B.weight"]) for name in parts]
    said = _said(parts, base, any(stored)) | {"task_type": _task(model)} | _kept_whole(model, whole)
    with whole_folder(folder) as aside:
        (aside / CONFIG).write_text(json.dumps(said, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        write_tensors(tensors | whole, aside / WEIGHTS)
    return folder


def _replaced(model: nn.Module, changes: tuple[Move, ...], parts: Mapping[str, Lora]) -> dict[str, Tensor]:
    """The modules that the adapter which was read replaced whole, under PEFT's names; of an adapted one it is the base."""
    own: dict[str, Tensor] = {}
    for path in {name.rpartition(".")[0] for name in getattr(model, "replaced", ())}:
        layer = model.get_submodule(path)
        plain = layer.base if isinstance(layer, LoraLinear) else layer
        own |= {f"{path}.{leaf}": tensor.detach().cpu() for leaf, tensor in plain.named_parameters(recurse=False)}
    if TABLE in own and _tied(model):
        own[HEAD] = own[TABLE]  # PEFT writes, and wants to read, both
    published, lost = _joined(changes, own)
    if lost:
        raise CheckpointError(
            f"{some(sorted(own))} was replaced in part: with {some(sorted(lost))} it is one matrix in published checkpoints; "
            "merge the adapter and save the model itself"
        )
    tensors: dict[str, Tensor] = {}
    for name, tensor in published.items():
        module, _, leaf = name.rpartition(".")
        tensors[f"{STEM}{module}{'.base_layer' * (module in parts)}.{leaf}"] = tensor.contiguous()
    return tensors


def _kept_whole(model: nn.Module, whole: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings that go with what is written whole; names are in full, since PEFT takes all that end in them."""
    modules = sorted({name.removeprefix(STEM).rpartition(".")[0] for name in whole if ".base_layer." not in name})
    tied = _tied(model) and TABLE in getattr(model, "replaced", ())
    return {"modules_to_save": modules or None} | ({"ensure_weight_tying": True} if tied else {})


def _task(model: nn.Module) -> str | None:
    """PEFT's word for what a model is for; it has none for filling in masked words."""
    if isinstance(model, MaskedModel):
        return None if model.fills else "FEATURE_EXTRACTION"
    return "SEQ_2_SEQ_LM" if isinstance(model, Seq2Seq) else "CAUSAL_LM"


def _published(found: Mapping[str, LoraLinear], changes: tuple[Move, ...]) -> tuple[dict[str, Tensor], dict[str, Lora]]:
    """(the tensors of all adapters under PEFT's names, published module → how large its adapter is)."""
    whole = _whole_rows(changes, {f"{name}.weight": layer.b.detach().cpu() for name, layer in found.items()})
    back = {name: tuple(_rows(changes, name.removesuffix(".weight"), b)) for name, b in whole.items()}
    tensors: dict[str, Tensor] = {}
    parts: dict[str, Lora] = {}
    for name, b in whole.items():
        layers = [found[ours.removesuffix(".weight")] for ours in back[name]]
        if any(not torch.equal(layer.a, layers[0].a) for layer in layers):
            raise CheckpointError(
                f"{name} is one matrix in published checkpoints, but its parts learned each their own; merge them"
            )
        module = name.removesuffix(".weight")
        parts[module], stem = layers[0].part, STEM + module
        tensors[stem + ".lora_A.weight"] = layers[0].a.detach().cpu().contiguous()
        tensors[stem + ".lora_B.weight"] = b.contiguous()
    return tensors | _magnitudes(found, changes), parts


def _magnitudes(found: Mapping[str, LoraLinear], changes: tuple[Move, ...]) -> dict[str, Tensor]:
    """DoRA's magnitudes: a number for each row, moved as the rows are."""
    sizes = {name: layer.magnitude for name, layer in found.items() if layer.magnitude is not None}
    whole = _whole_rows(changes, {f"{name}.weight": size.detach().cpu()[:, None] for name, size in sizes.items()})
    return {
        f"{STEM}{name.removesuffix('.weight')}.lora_magnitude_vector": column.flatten().contiguous()
        for name, column in whole.items()
    }


def _joined(changes: tuple[Move, ...], ours: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], set[str]]:
    """(Our tensors as published ones, the names of those that are lost since other parts of their matrix are not there)."""
    try:
        whole = saved(changes, dict(ours))
    except KeyError as missing:
        return {}, {str(missing.args[0])}
    return whole, set(ours) - {name for one, tensor in whole.items() for name in loaded(changes, {one: tensor})}


def _whole_rows(changes: tuple[Move, ...], rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rows of our matrices as rows of the published ones."""
    whole, lost = _joined(changes, rows)
    if lost:
        raise CheckpointError(
            f"{some(sorted(lost))} is one matrix with its neighbours in published checkpoints; "
            "put an adapter beside all of them or none"
        )
    return {name: tensor.mT if _other_way(changes, name, tensor) else tensor for name, tensor in whole.items()}


def _said(parts: Mapping[str, Lora], base: str, other_way: bool) -> dict[str, Any]:
    """``adapter_config.json``: what most adapters have, and the others by name."""
    first = next(iter(parts.values()))
    return {
        "peft_type": "LORA", "base_model_name_or_path": base, "revision": None,
        "r": first.rank, "lora_alpha": _whole(first.alpha), "lora_dropout": first.dropout, "bias": "none",
        "fan_in_fan_out": other_way, "target_modules": sorted({name.split(".")[-1] for name in parts}),
        "rank_pattern": {name: part.rank for name, part in parts.items() if part.rank != first.rank},
        "alpha_pattern": {name: _whole(part.alpha) for name, part in parts.items() if part.alpha != first.alpha},
        "layers_to_transform": None, "layers_pattern": None, "exclude_modules": None, "use_rslora": first.stabilised,
        "use_dora": first.dora, "init_lora_weights": True, "inference_mode": True, "trainable_token_indices": None,
    }  # fmt: skip


def _whole(number: float) -> float | int:
    return int(number) if float(number).is_integer() else number
