"""A model to a folder in the Hugging Face layout, whole or not at all."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from chainrule.adapt.int4 import in_four_bits
from chainrule.adapt.lora import adapters
from chainrule.core.device import DTYPES, format_name
from chainrule.core.errors import CheckpointError, ConfigError
from chainrule.core.files import whole_folder
from chainrule.core.masked import Model
from chainrule.core.model import LanguageModel
from chainrule.core.shapes import Tensor
from chainrule.core.tokenizer import Tokenizer
from chainrule.hub.build import moves, parts, published_config
from chainrule.hub.safetensors import shards, write_tensors
from chainrule.hub.weight_files import INDEX, SINGLE
from chainrule.models.families import glm
from chainrule.models.moves import saved
from chainrule.tokenizers.chat import MORE_TEMPLATES, TOOL_USE

SHARD_BYTES = 50 * 10**9
"""Weights beyond this go into several files, as with transformers 5."""
ALSO_SAID: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "gpt2": lambda config: {"n_ctx": parts(config).context},
    "glm": glm.also_said,
    "deepseek_v3": lambda config: {"scoring_func": "sigmoid", "topk_method": "noaux_tc"},
    "ernie4_5_moe": lambda config: {"moe_num_shared_experts": 0},
    "minimax_m2": lambda config: {
        "scoring_func": "sigmoid",
        "rotary_dim": parts(config).position.d_rotary or config.get("head_dim") or 128,
    },
}
"""Keys of published configs that transformers leaves out when it saves, and llama.cpp's converter cannot do without."""
NO_MTP = ("deepseek_v3", "ernie4_5_moe", "glm4_moe")
"""Published with layers that predict further tokens, which are not loaded: what is saved says that there are none, or other
programs would look for them."""


def save(
    folder: str | Path,
    model: Model,
    tokenizer: Tokenizer | None = None,
    template: str | None = None,
    *,
    force: bool = False,
    generation: Mapping[str, Any] | None = None,
    shard_bytes: int = SHARD_BYTES,
    tool_use: str | None = None,
) -> Path:
    """Write config, weights, tokenizer and template, and the template for tools where there is one.

    Weights of more than ``shard_bytes`` are cut into several files with an index. Raises ``CheckpointError`` where the folder
    holds something, unless ``force``.
    """
    if shard_bytes < 1:
        raise ConfigError(f"shard_bytes is {shard_bytes}; a file of weights must be allowed 1 byte or more, such as 5000000000")
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not force:
        raise CheckpointError(f"{folder} exists already; give a new folder, or force=True (--force) to replace it")
    check_plain(model)
    config = published_config(model)
    config = ALSO_SAID.get(config.get("model_type", ""), lambda config: {})(config) | config
    if config.get("model_type") in NO_MTP:
        config["num_nextn_predict_layers"] = 0
    names = saved(moves(config), _unique(model))
    ids = _ids(tokenizer)
    if isinstance(model, LanguageModel) and model.start is not None:
        ids |= {"decoder_start_token_id": model.start}
    config = {key: value for key, value in config.items() if key != "torch_dtype"}  # transformers 4's name for dtype
    dtype = next(iter(names.values())).dtype
    config |= ids | {"dtype": format_name(dtype if dtype in DTYPES.values() else torch.float32)}
    with whole_folder(folder) as aside:
        _write(aside / "config.json", config)
        _write(aside / "generation_config.json", {**(generation or {}), **ids})
        _write_weights(names, aside, shard_bytes)
        if tokenizer is not None:
            tokenizer.save(aside)
        if template is not None:
            (aside / "chat_template.jinja").write_text(template, encoding="utf-8")
        if tool_use is not None:
            (aside / MORE_TEMPLATES).mkdir()
            (aside / MORE_TEMPLATES / f"{TOOL_USE}.jinja").write_text(tool_use, encoding="utf-8")
    return folder


def check_plain(model: Model) -> None:
    """Raise ``CheckpointError`` for weights that no other program has a name for: an adapter beside them, or four bits."""
    if adapters(model):
        raise CheckpointError(
            "the model has an adapter beside its weights; merge the two first (chainrule.adapt.lora.merge), or write the "
            "adapter alone (chainrule.hub.peft.write_adapter)"
        )
    if packed := in_four_bits(model):
        raise CheckpointError(
            f"the model was loaded as int4, and {packed[0]} has lost what four bits do not hold; "
            "load it in bf16 to save it (--dtype bf16)"
        )


def _write_weights(tensors: dict[str, Tensor], folder: Path, shard_bytes: int) -> None:
    """One file, or several and the index that says which tensor is in which."""
    groups = list(shards(tensors, shard_bytes))
    if len(groups) <= 1:
        write_tensors(tensors, folder / SINGLE)
        return
    where: dict[str, str] = {}
    for number, group in enumerate(groups, 1):
        file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        write_tensors(group, folder / file)
        where |= dict.fromkeys(group, file)
    total = {
        "total_parameters": sum(tensor.numel() for tensor in tensors.values()),
        "total_size": sum(tensor.nbytes for tensor in tensors.values()),
    }
    _write(folder / INDEX, {"metadata": total, "weight_map": dict(sorted(where.items()))})


def _unique(model: Model) -> dict[str, Tensor]:
    """Every tensor once, on the CPU, contiguous."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}


def _ids(tokenizer: Tokenizer | None) -> dict[str, Any]:
    if tokenizer is None:
        return {}
    ids: dict[str, Any] = {} if tokenizer.bos is None else {"bos_token_id": tokenizer.bos}
    eos = list(tokenizer.eos)
    return ids | {"eos_token_id": eos[0] if len(eos) == 1 else eos or None}


def _write(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
