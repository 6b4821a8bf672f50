"""A PEFT folder written: a model's adapters, and the modules that an adapter which was read replaced whole."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from chainrule.adapt.lora import Lora, LoraLinear, adapters
from chainrule.core.errors import CheckpointError, some
from chainrule.core.files import whole_folder
from chainrule.core.masked import MaskedModel
from chainrule.core.shapes import Tensor
from chainrule.hub.build import moves, published_config
from chainrule.hub.peft.layout import CONFIG, HEAD, STEM, TABLE, WEIGHTS, inputs_first, is_tied, rows_here
from chainrule.hub.safetensors import write_tensors
from chainrule.models.moves import Move, loaded, saved
from chainrule.models.seq2seq import Seq2Seq


def write_adapter(model: nn.Module, folder: str | Path, *, base: str = "", force: bool = False) -> Path:
    """Write a model's adapters as PEFT does, whole or not at all; ``base`` is the name of the model they belong to."""
    folder, found = Path(folder), adapters(model)
    if not found:
        raise CheckpointError("the model has no adapters to write; attach some first, or save the model itself")
    if folder.exists() and any(folder.iterdir()) and not force:
        raise CheckpointError(f"{folder} exists already; give a new folder, or force=True (--force) to replace it")
    config = published_config(model)
    changes = tuple(moves(config))
    tensors, parts = _published_loras(found, changes)
    if len({(part.stabilised, part.dora) for part in parts.values()}) > 1:
        raise CheckpointError("the adapters are of different kinds (DoRA, rank-stabilised), which one config cannot say")
    whole = _replaced_modules(model, changes, parts)
    turned = [inputs_first(changes, f"{name}.weight", tensors[f"{STEM}{name}.lora_B.weight"]) for name in parts]
    settings = _config_of(parts, base, any(turned)) | {"task_type": _task_type(model)} | _settings_of_whole(model, whole)
    with whole_folder(folder) as aside:
        (aside / CONFIG).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        write_tensors(tensors | whole, aside / WEIGHTS)
    return folder


def _published_loras(found: Mapping[str, LoraLinear], changes: tuple[Move, ...]) -> tuple[dict[str, Tensor], dict[str, Lora]]:
    """(the tensors of all adapters under PEFT's names, published module → how large its adapter is)."""
    whole = _published_rows(changes, {f"{name}.weight": layer.b.detach().cpu() for name, layer in found.items()})
    back = {name: tuple(rows_here(changes, name.removesuffix(".weight"), b)) for name, b in whole.items()}
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
    whole = _published_rows(changes, {f"{name}.weight": size.detach().cpu()[:, None] for name, size in sizes.items()})
    return {
        f"{STEM}{name.removesuffix('.weight')}.lora_magnitude_vector": column.flatten().contiguous()
        for name, column in whole.items()
    }


def _published_rows(changes: tuple[Move, ...], rows: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rows of our matrices as rows of the published ones."""
    whole, lost = _as_published(changes, rows)
    if lost:
        raise CheckpointError(
            f"{some(sorted(lost))} is one matrix with its neighbours in published checkpoints; "
            "put an adapter beside all of them or none"
        )
    return {name: tensor.mT if inputs_first(changes, name, tensor) else tensor for name, tensor in whole.items()}


def _replaced_modules(model: nn.Module, changes: tuple[Move, ...], parts: Mapping[str, Lora]) -> dict[str, Tensor]:
    """The modules that the adapter which was read replaced whole, under PEFT's names; of an adapted one it is the base."""
    own: dict[str, Tensor] = {}
    for path in {name.rpartition(".")[0] for name in getattr(model, "replaced", ())}:
        layer = model.get_submodule(path)
        plain = layer.base if isinstance(layer, LoraLinear) else layer
        own |= {f"{path}.{leaf}": tensor.detach().cpu() for leaf, tensor in plain.named_parameters(recurse=False)}
    if TABLE in own and is_tied(model):
        own[HEAD] = own[TABLE]  # PEFT writes, and wants to read, both
    published, lost = _as_published(changes, own)
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


def _as_published(changes: tuple[Move, ...], ours: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], set[str]]:
    """(Our tensors as published ones, the names of those that are lost since other parts of their matrix are not there)."""
    try:
        whole = saved(changes, dict(ours))
    except KeyError as missing:
        return {}, {str(missing.args[0])}
    return whole, set(ours) - {name for one, tensor in whole.items() for name in loaded(changes, {one: tensor})}


def _config_of(parts: Mapping[str, Lora], base: str, turned: bool) -> dict[str, Any]:
    """``adapter_config.json``: what most adapters have, and the others by name."""
    first = next(iter(parts.values()))
    return {
        "peft_type": "LORA", "base_model_name_or_path": base, "revision": None,
        "r": first.rank, "lora_alpha": _int_if_whole(first.alpha), "lora_dropout": first.dropout, "bias": "none",
        "fan_in_fan_out": turned, "target_modules": sorted({name.split(".")[-1] for name in parts}),
        "rank_pattern": {name: part.rank for name, part in parts.items() if part.rank != first.rank},
        "alpha_pattern": {name: _int_if_whole(part.alpha) for name, part in parts.items() if part.alpha != first.alpha},
        "layers_to_transform": None, "layers_pattern": None, "exclude_modules": None, "use_rslora": first.stabilised,
        "use_dora": first.dora, "init_lora_weights": True, "inference_mode": True, "trainable_token_indices": None,
    }  # fmt: skip


def _settings_of_whole(model: nn.Module, whole: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings that go with what is written whole; names are in full, since PEFT takes all that end in them."""
    modules = sorted({name.removeprefix(STEM).rpartition(".")[0] for name in whole if ".base_layer." not in name})
    tied = is_tied(model) and TABLE in getattr(model, "replaced", ())
    return {"modules_to_save": modules or None} | ({"ensure_weight_tying": True} if tied else {})


def _task_type(model: nn.Module) -> str | None:
    """PEFT's word for what a model is for; it has none for filling in masked words."""
    if isinstance(model, MaskedModel):
        return None if model.fills else "FEATURE_EXTRACTION"
    return "SEQ_2_SEQ_LM" if isinstance(model, Seq2Seq) else "CAUSAL_LM"


def _int_if_whole(number: float) -> float | int:
    return int(number) if float(number).is_integer() else number
