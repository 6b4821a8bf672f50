"""What a plan is about: a name to a model that holds shapes alone, and how a recipe would train it.

runs/NAME               a run: its model, trained as its recipe says
path/to/model           a folder with config.json, or a config.json itself
org/name                a model in the cache of its hub
meta-llama/...          the id of a config that ships (``hub.shipped``)
recipe.yaml             a recipe whose model is fresh, or the name of one that ships
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from chainrule.core.errors import CheckpointError, ConfigError
from chainrule.core.files import read_json_object
from chainrule.core.masked import Model
from chainrule.data.streams import check_split
from chainrule.eval.anatomy import Anatomy, take_apart
from chainrule.eval.counted import Counted, count
from chainrule.hub.build import shapes
from chainrule.hub.links import inside
from chainrule.hub.load import read_config
from chainrule.hub.names import here, place
from chainrule.hub.shipped import is_shipped, nearest_shipped, shipped_config
from chainrule.train.material import fresh_model
from chainrule.train.recipe import SHIPPED, Bpe, Bytes, Recipe, Start, read_recipe

ROW = 4096
"""So many tokens has a row where nothing else is said, or as many as the model reads."""


@dataclass(frozen=True)
class Subject:
    """A decoder's anatomy, or what can be counted of another model; and the settings of its recipe, or usual ones."""

    anatomy: Anatomy | Counted
    rows: int = 1
    length: int = ROW
    optimizer: Literal["adamw", "muon", "sgd"] = "adamw"
    micro_batches: int = 1


def subject(name: str) -> Subject:
    """The subject of that name; raises ``CheckpointError`` with what would be right."""
    path = place(name)
    if path is not None and path.is_dir():
        return _folder(path)
    if path is not None and path.suffix == ".json":
        return _config(read_json_object(path, error=CheckpointError), name)
    file = path is not None and path.is_file()
    if file or place(str(SHIPPED / f"{name}.yaml")):
        if path is not None and file and path.suffix not in (".yaml", ".yml"):
            raise CheckpointError(
                f"{name} is no recipe; plan reads recipes (.yaml), a config.json, folders that hold one, runs and ids"
            )
        return _recipe(read_recipe(name), name)
    if path is None and (cached := here(name)) is not None:
        return _folder(cached)
    if is_shipped(name):
        return _config(shipped_config(name), name)
    raise CheckpointError(
        f"{name} is neither here nor among the configs that ship{nearest_shipped(name)}; "
        "or give a run, a folder with config.json, or a recipe"
    )


def _folder(path: Path) -> Subject:
    folder = next((at for at in (path, path / "model") if (at / "config.json").exists()), None)
    recipe = read_recipe(str(inside(path, "recipe.yaml"))) if (path / "recipe.yaml").exists() else None
    if folder is None and recipe is None:
        raise CheckpointError(f"{path} holds no config.json and no recipe.yaml; give a model's folder or a run")
    if folder is None:
        assert recipe is not None
        return _recipe(recipe, str(path))
    plain = _config(read_config(folder), str(path))
    return plain if recipe is None else _trained(plain.anatomy, recipe)


def _config(config: dict[str, Any], name: str) -> Subject:
    model = shapes(config)
    return Subject(_taken_apart(model, name), length=min(ROW, model.context or ROW))


def _taken_apart(model: Model, name: str) -> Anatomy | Counted:
    return take_apart(model, name) if getattr(model.config, "kind", "") == "decoder" else count(model, name)


def _recipe(recipe: Recipe, name: str) -> Subject:
    """The fresh model of a recipe, of which nothing is drawn."""
    if isinstance(recipe.model, Start):
        return _trained(subject(recipe.model.path).anatomy, recipe)
    with torch.device("meta"):
        model = fresh_model(recipe, _vocabulary(recipe))
    return _trained(_taken_apart(model, name), recipe)


def _trained(anatomy: Anatomy | Counted, recipe: Recipe) -> Subject:
    rows = min(recipe.micro_rows or recipe.batch_rows, recipe.batch_rows)
    check_split(recipe.batch_rows, rows)
    return Subject(anatomy, rows, recipe.context, recipe.optimizer.kind, recipe.batch_rows // rows)


def _vocabulary(recipe: Recipe) -> int:
    """How many tokens the recipe's tokenizer will have."""
    if isinstance(recipe.tokenizer, Bytes):
        return 257
    if isinstance(recipe.tokenizer, Bpe):
        return recipe.tokenizer.vocab_size
    from chainrule.tokenizers import load

    size = load(Path(recipe.tokenizer.path)).vocab_size
    if size < 1:
        raise ConfigError(f"{recipe.tokenizer.path} has no tokens")
    return size
