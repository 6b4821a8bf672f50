"""Recipes: what to train, on what, how. A YAML file checked against the dataclasses below; imports no torch.

An unknown key is an error that names the nearest known one; ``key.sub=value`` on the command line overrides. Nothing in a
recipe depends on the wall clock: a run is so many steps.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from chainrule.core.errors import ConfigError
from chainrule.core.files import exists, read_text
from chainrule.core.schema import dump, parse
from chainrule.train.schedule import Schedule

VERSION = 1
EXPONENT = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$")
"""A number as JSON may write it, which YAML 1.1 reads as text where a point or a sign is missing: 1e-05."""


@dataclass(frozen=True, kw_only=True)
class Fresh:
    """A new decoder of LLaMA's shape."""

    kind: Literal["fresh"] = "fresh"
    n_layers: int = 4
    d_model: int = 192
    n_heads: int = 6
    n_kv_heads: int | None = None
    d_ff: int = 512
    rope_theta: float = 10000.0
    tied: bool = True
    init: Literal["normal", "fan_in", "mimetic", "induction"] = "induction"


@dataclass(frozen=True, kw_only=True)
class FreshRecurrent:
    """A new recurrent model: equal cells, as wide as the embedding unless ``d_hidden`` says otherwise."""

    kind: Literal["recurrent"] = "recurrent"
    cell: Literal["lstm", "gru", "rnn"] = "lstm"
    n_layers: int = 1
    d_model: int = 256
    d_hidden: int | None = None
    tied: bool = True


@dataclass(frozen=True, kw_only=True)
class FreshNeuralNGram:
    """A new neural n-gram; ``word2vec`` says how its table is learned from the training tokens first, null draws it."""

    kind: Literal["neural_ngram"] = "neural_ngram"
    order: int = 5
    d_model: int = 64
    d_hidden: int = 256
    direct: bool = False
    word2vec: Literal["skip_gram", "cbow"] | None = "skip_gram"
    epochs: int = 2
    """So many times word2vec reads the training tokens."""


@dataclass(frozen=True, kw_only=True)
class FreshSeq2Seq:
    """A new encoder–decoder with so many layers in each stack: the ``original`` Transformer of 2017, or ``t5``.

    It learns from pairs; of plain texts it writes each part, given what stands before it (``data.parts``).
    """

    kind: Literal["seq2seq"] = "seq2seq"
    plan: Literal["original", "t5"] = "t5"
    n_layers: int = 2
    d_model: int = 192
    n_heads: int = 6
    d_ff: int = 512
    init: Literal["normal", "fan_in"] = "fan_in"


@dataclass(frozen=True, kw_only=True)
class FreshEncoder:
    """A new encoder of BERT's shape; it learns the words that are hidden from it."""

    kind: Literal["encoder"] = "encoder"
    n_layers: int = 4
    d_model: int = 192
    n_heads: int = 6
    d_ff: int = 768
    guesses_end: bool = False
    """Whether the end of a text is hidden like a word: who is asked for a text word by word must know where it ends."""


@dataclass(frozen=True, kw_only=True)
class FreshConfig:
    """A new model of any published family: ``config`` is a ``config.json``, but for the vocabulary and the context.

    Its matrices begin as ``init`` says; ``std`` is the deviation of ``normal``.
    """

    kind: Literal["config"] = "config"
    config: Mapping[str, Any]
    init: Literal["normal", "fan_in", "mimetic", "induction"] = "normal"
    std: float = 0.02


@dataclass(frozen=True, kw_only=True)
class Start:
    """Go on from the model (and tokenizer) of a run or folder."""

    kind: Literal["start"] = "start"
    path: str


@dataclass(frozen=True, kw_only=True)
class Bytes:
    """Every byte a token."""

    kind: Literal["bytes"] = "bytes"


@dataclass(frozen=True, kw_only=True)
class Bpe:
    """BPE trained on the training text (the first ``sample_bytes`` of it)."""

    kind: Literal["bpe"] = "bpe"
    vocab_size: int = 2048
    pattern: str = "cl100k"
    sample_bytes: int = 4_000_000


@dataclass(frozen=True, kw_only=True)
class Published:
    """A tokenizer file or folder."""

    kind: Literal["published"] = "published"
    path: str


@dataclass(frozen=True, kw_only=True)
class Text:
    """Documents from a text file, a folder, .jsonl or parquet; a share of them is held out."""

    kind: Literal["text"] = "text"
    path: str
    held_out: float = 0.05


@dataclass(frozen=True, kw_only=True)
class Chats:
    """Conversations from a .jsonl file; a share of them is held out."""

    kind: Literal["chats"] = "chats"
    path: str
    held_out: float = 0.05
    day: date | None = None
    """What a chat template is told that asks for the date."""


@dataclass(frozen=True, kw_only=True)
class World:
    """So many documents of the world, and so many of its chats among them.

    A token that a text never holds is pushed away from every state alike, and all such tokens end up as one vector, which no
    fine-tuning tells apart soon. A few chats are enough that their words are not of that kind.
    """

    kind: Literal["world"] = "world"
    documents: int = 40_000
    chats: int = 0


@dataclass(frozen=True, kw_only=True)
class WorldChats:
    """So many chats of the world, and so many of its documents among them against forgetting.

    ``beginnings`` counts further documents of which only the first 12 tokens are read: how a text begins is a matter of odds,
    and odds are known by many examples.
    """

    kind: Literal["world_chats"] = "world_chats"
    chats: int = 20_000
    documents: int = 4_000
    beginnings: int = 0
    day: date | None = None


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Sources and targets from a .jsonl file, for an encoder–decoder; a share of them is held out."""

    kind: Literal["pairs"] = "pairs"
    path: str
    held_out: float = 0.05


@dataclass(frozen=True, kw_only=True)
class WorldPairs:
    """So many short stories of the world told in English and Chinese; each is a pair in both directions.

    A story has one to ``people`` people and up to ``events`` events.
    """

    kind: Literal["world_pairs"] = "world_pairs"
    stories: int = 20_000
    people: int = 2
    events: int = 3


@dataclass(frozen=True, kw_only=True)
class Optimizing:
    """The optimizer: ``muon`` for the matrices inside with AdamW (``adam_lr``) for the rest, or ``adamw`` for all."""

    kind: Literal["muon", "adamw"] = "muon"
    lr: float = 0.02
    adam_lr: float = 0.005
    momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        rates = all(0 < rate < math.inf for rate in (self.lr, self.adam_lr))
        momenta = all(0 <= momentum < 1 for momentum in (self.momentum, *self.betas))
        if not rates or not momenta or not 0 <= self.weight_decay < math.inf:
            raise ConfigError(
                f"optimizer has lr={self.lr}, adam_lr={self.adam_lr}, momentum={self.momentum}, betas={self.betas}, "
                f"weight_decay={self.weight_decay}; it needs lr and adam_lr > 0, momentum and betas from 0 to below 1, "
                "weight_decay >= 0, all of them finite"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run."""

    version: int = VERSION
    model: Fresh | FreshConfig | FreshRecurrent | FreshNeuralNGram | FreshSeq2Seq | FreshEncoder | Start = field(
        default_factory=Fresh
    )
    tokenizer: Bytes | Bpe | Published = field(default_factory=Bpe)
    data: Text | Chats | World | WorldChats | Pairs | WorldPairs
    optimizer: Optimizing = field(default_factory=Optimizing)
    schedule: Schedule = field(default_factory=Schedule)
    context: int = 256
    batch_rows: int = 16
    micro_rows: int | None = None
    steps: int = 800
    clip: float = 1.0
    balance: float = 0.0
    """How much an uneven use of experts costs, for a mixture; 0.01 is usual."""
    average: float = 0.0
    """The share of the steps, the last ones, whose weights are averaged into the result; 0: the last weights are it."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "pure_bf16"] = "auto"
    """bf16 and fp16 are mixed: weights and optimizer stay fp32, matrix products are narrow (``train.precision``)."""
    compile: bool = False
    device: str = "auto"
    threads: int | None = None
    seed: int = 0
    eval_every: int = 100
    save_every: int = 100
    keep: int = 2

    def __post_init__(self) -> None:
        if self.version != VERSION:
            raise ConfigError(f"this recipe has version {self.version}; this chainrule reads version {VERSION}")
        if self.context < 2:
            raise ConfigError(f"'context' is {self.context}; it must be 2 or more: a token is learned from those before it")
        for name in ("batch_rows", "steps", "eval_every", "save_every", "keep"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name!r} is {getattr(self, name)}; it must be 1 or more")
        for name, least in {"micro_rows": 1, "threads": 1}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name!r} is {value}; it must be {least} or more")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"'seed' is {self.seed}; it must be 0 or more, and a number of 64 bits (below 2^63)")
        for name, value in vars(self.model).items():
            if isinstance(value, int) and not isinstance(value, bool) and value < 1:
                raise ConfigError(f"'model.{name}' is {value}; it must be 1 or more")
            if name == "std" and not 0 < value < math.inf:
                raise ConfigError(f"'model.std' is {value}; it must be above 0, and finite; 0.02 is usual")
        if isinstance(self.tokenizer, Bpe) and self.tokenizer.sample_bytes < 1:
            raise ConfigError(f"'tokenizer.sample_bytes' is {self.tokenizer.sample_bytes}; it must be 1 or more")
        for name, value in vars(self.data).items():
            if isinstance(value, int) and value < 0:
                raise ConfigError(f"'data.{name}' is {value}; it must be 0 or more")
            if name == "held_out" and not 0 < value < 1:
                raise ConfigError(f"'data.held_out' is {value}; it must be between 0 and 1, for example 0.05")
        if not 0 <= self.average <= 1:
            raise ConfigError(f"'average' is {self.average}; it is a share of the steps, from 0 to 1")
        if not 0 <= self.balance < math.inf:
            raise ConfigError(f"'balance' is {self.balance}; it must be 0 or more, and finite")
        if not self.clip > 0:
            raise ConfigError(f"'clip' is {self.clip}; it must be above 0")


CHOICES = (["model"], ["tokenizer"], ["data"])
"""The tables whose keys depend on their kind."""
SHIPPED = Path(__file__).parent.parent / "recipes"
"""Where the recipes that ship are; ``chainrule train NAME`` looks there."""


def read_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe of a YAML file, or of a shipped one's name, with ``key.sub=value`` overrides applied."""
    return parse_recipe(read_text(_find(name)), overrides, where=name)


def parse_recipe(text: str, overrides: Sequence[str] = (), where: str = "recipe") -> Recipe:
    """A recipe from YAML text."""
    data = _read_yaml(text, where) or {}
    if not isinstance(data, dict):
        raise ConfigError(f"{where} is a {type(data).__name__}; a recipe is keys and values")
    for change in sorted(overrides, key=lambda one: ".kind=" not in one):  # kinds first: they decide what else can be said
        override(data, change)
    return parse(Recipe, data)


def write_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every default spelt out."""
    import yaml

    return yaml.dump(dump(recipe), Dumper=_ways()[1], sort_keys=False, allow_unicode=True)


def _read_yaml(text: str, what: str) -> Any:
    """What YAML text holds; a ``ConfigError`` names ``what`` is none."""
    import yaml

    try:
        return yaml.load(text, _ways()[0])
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a day that no month has is a ValueError
        raise ConfigError(f"{what} is not YAML: {' '.join(str(error).split())}") from error


@cache
def _ways() -> tuple[Any, Any]:
    """PyYAML's safe loader and dumper, which know JSON's numbers too; a text that looks like one is written in quotes."""
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    class Dumper(yaml.SafeDumper):
        pass

    for way in (Loader, Dumper):
        way.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+.0123456789"))
    return Loader, Dumper


def _find(name: str) -> Path:
    """The file of that name, else the recipe that ships; a folder of a recipe's name does not hide it."""
    path, shipped = Path(name), SHIPPED / f"{name}.yaml"
    if (exists(path) and path.is_file()) or not exists(shipped):
        if not exists(path):
            known = ", ".join(sorted(path.stem for path in SHIPPED.glob("*.yaml")))
            raise ConfigError(f"there is no recipe {name!r}; give a YAML file, or one that ships: {known}")
        return path
    return shipped


def _keep(table: dict[str, Any], choice: str, kind: Any) -> None:
    """Forget what a table says that another ``kind`` of the same choice does not know."""
    classes = get_args(get_type_hints(Recipe)[choice])
    known = next((cls for cls in classes if get_args(get_type_hints(cls)["kind"])[0] == kind), None)
    if known is not None:
        for key in set(table) - {field.name for field in fields(known)}:
            del table[key]


def override(data: dict[str, Any], change: str) -> None:
    """Apply ``key.sub=value`` to plain settings, in place; the value is read as YAML."""
    path, equals, value = change.partition("=")
    if not equals or not path:
        raise ConfigError(f"{change!r} is no override; write key.sub=value, for example steps=500")
    wanted = _read_yaml(value, f"the value of {change!r}")
    *parents, last = path.split(".")
    table = data
    for parent in parents:
        table = table.setdefault(parent, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{change!r}: {parent!r} is not a table of keys")
    if last == "kind" and parents in CHOICES and table.get("kind") != wanted:
        _keep(table, parents[0], wanted)
    table[last] = wanted
