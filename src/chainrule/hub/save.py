"""A model to a folder in the Hugging Face layout, whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from chainrule.core.errors import CheckpointError
from chainrule.core.files import whole_folder
from chainrule.core.masked import Model
from chainrule.core.model import LanguageModel
from chainrule.core.shapes import Tensor
from chainrule.core.tokenizer import Tokenizer
from chainrule.hub.build import moves, published_config
from chainrule.hub.safetensors import write_tensors
from chainrule.hub.weights import SINGLE
from chainrule.models.moves import saved

DTYPES = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}


def save(
    folder: str | Path,
    model: Model,
    tokenizer: Tokenizer | None = None,
    template: str | None = None,
    *,
    force: bool = False,
    extra: Mapping[str, Any] | None = None,
    generation: Mapping[str, Any] | None = None,
) -> Path:
    """Write config, weights, tokenizer and template; ``extra`` goes into ``config.json`` under ``chainrule``.

    Raises ``CheckpointError`` where the folder holds something, unless ``force``.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not force:
        raise CheckpointError(f"{folder} exists already; give a new folder, or force=True (--force) to replace it")
    config = published_config(model)
    names = saved(moves(config), _unique(model))
    ids = _ids(tokenizer)
    if isinstance(model, LanguageModel) and model.start is not None:
        ids |= {"decoder_start_token_id": model.start}
    config |= ids | {"dtype": DTYPES.get(next(iter(names.values())).dtype, "float32")}
    with whole_folder(folder) as aside:
        _write(aside / "config.json", config if not extra else config | {"chainrule": config.get("chainrule", dict(extra))})
        _write(aside / "generation_config.json", {**(generation or {}), **ids})
        write_tensors(names, aside / SINGLE)
        if tokenizer is not None:
            tokenizer.save(aside)
        if template is not None:
            (aside / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def _unique(model: Model) -> dict[str, Tensor]:
    """Every tensor once, on the CPU, contiguous."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}


def _ids(tokenizer: Tokenizer | None) -> dict[str, Any]:
    if tokenizer is None:
        return {}
    ids: dict[str, Any] = {"bos_token_id": tokenizer.begin}
    eos = list(tokenizer.eos)
    return ids | {"eos_token_id": eos[0] if len(eos) == 1 else eos or None}


def _write(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
