"""A text's states to one vector, as a folder of sentence-transformers says: modules.json and a folder a module.

    modules.json               Transformer, Pooling, Normalize: in this order, each with its folder
    1_Pooling/config.json      which pooling: the mean of the states, or the first
    sentence_bert_config.json  how many tokens a text may have

Reimers & Gurevych 2019, arXiv:1908.10084. A folder without them takes the mean, as that library does.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch.nn.functional as F

from chainrule.core.datum import Layout
from chainrule.core.errors import CheckpointError, nearest
from chainrule.core.files import read_json, read_json_object, write_text
from chainrule.core.shapes import Float, Tensor
from chainrule.hub.links import inside

MODULES = "modules.json"
POOLINGS = {"mean": "pooling_mode_mean_tokens", "cls": "pooling_mode_cls_token"}
"""The poolings known here → the key that older folders switch them on by."""
KNOWN = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True)
class Pooling:
    """How the states of a text become one vector; ``limit`` is the longest text in tokens, where the folder names one."""

    how: Literal["mean", "cls"] = "mean"
    normalize: bool = False
    limit: int | None = None

    def pool(self, states: Float[Tensor, "b t d"], layout: Layout) -> Float[Tensor, "b d"]:
        """The mean over the real tokens of each row, or the first state; of length one where ``normalize``."""
        real = layout.real[:, :, None].to(states.dtype)
        x = states[:, 0] if self.how == "cls" else (states * real).sum(1) / real.sum(1)
        return F.normalize(x, dim=-1) if self.normalize else x


def transformer_folder(folder: Path) -> Path:
    """The folder within a sentence model's that holds the encoder itself."""
    if not (folder / MODULES).exists():
        return folder
    return inside(folder, next((module["path"] for module in _modules(folder) if _kind(module) == "Transformer"), ""))


def read_pooling(folder: Path) -> Pooling:
    """The pooling of a folder; raises ``CheckpointError`` for a module or a pooling not known here."""
    if not (folder / MODULES).exists():
        return Pooling()
    modules = {_kind(module): module for module in _modules(folder)}
    unknown = [kind for kind in modules if kind not in KNOWN]
    if unknown:
        raise CheckpointError(
            f"{folder / MODULES} has a module {unknown[0]!r}, which is not supported; known are {', '.join(KNOWN)}"
        )
    if tuple(modules) not in (KNOWN, KNOWN[:2]):
        raise CheckpointError(f"{folder / MODULES} lists {', '.join(modules)}; the order must be {', '.join(KNOWN)}")
    limit = _settings(transformer_folder(folder), "sentence_bert_config.json").get("max_seq_length")
    if limit is not None and (type(limit) is not int or limit < 1):
        raise CheckpointError(f"{folder}: max_seq_length is {limit!r}; it must be a number of tokens, 1 or more")
    how = _how(_settings(folder, Path(modules["Pooling"]["path"], "config.json")), folder)
    return Pooling(how, "Normalize" in modules, limit)


def write_pooling(pooling: Pooling, width: int, folder: Path) -> None:
    """Write what ``read_pooling`` and sentence-transformers read."""
    kinds = KNOWN if pooling.normalize else KNOWN[:2]
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    rows = [
        {"idx": i, "name": str(i), "path": paths[kind], "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    modes = {key: how == pooling.how for how, key in POOLINGS.items()}
    write_text(folder / MODULES, json.dumps(rows, indent=2))
    write_text(folder / "1_Pooling" / "config.json", json.dumps({"word_embedding_dimension": width} | modes, indent=2))
    if pooling.normalize:
        (folder / "2_Normalize").mkdir(exist_ok=True)
    if pooling.limit is not None:
        write_text(folder / "sentence_bert_config.json", json.dumps({"max_seq_length": pooling.limit, "do_lower_case": False}))


def _how(config: dict[str, Any], folder: Path) -> Literal["mean", "cls"]:
    older = [key for key, on in config.items() if key.startswith("pooling_mode_") and on is True]
    names = {key: how for how, key in POOLINGS.items()}
    found: Any = config.get("pooling_mode", [names.get(key, key) for key in older])
    found = list(found) if isinstance(found, list | tuple) else [found]
    if len(found) != 1 or found[0] not in tuple(POOLINGS):
        said = " and ".join(map(str, found)) or "none"
        raise CheckpointError(f"{folder} pools by {said}, which is not supported{nearest(said, POOLINGS)}")
    return found[0]


def _modules(folder: Path) -> list[dict[str, Any]]:
    modules = read_json(inside(folder, MODULES), error=CheckpointError)
    if not isinstance(modules, list) or not all(
        isinstance(row, dict) and isinstance(row.get("type"), str) and isinstance(row.get("path"), str) for row in modules
    ):
        raise CheckpointError(f"{folder / MODULES} is no list of modules with a type and a path; copy it again")
    return modules


def _kind(module: dict[str, Any]) -> str:
    return module["type"].rpartition(".")[2]


def _settings(folder: Path, name: str | Path) -> dict[str, Any]:
    path = inside(folder, name)
    return read_json_object(path, error=CheckpointError) if path.exists() else {}
