"""A name to a place on this machine: a file or a folder here, a run, a model of a hub.

runs/quickstart                    a run: its ``model/`` folder
path/to/model, stories260K.bin     a folder or a file
org/name, org/name@revision        Hugging Face: from its cache, or by download
gpt2, bert-base-uncased, t5-small  the few of its models that were published without an organisation
modelscope:org/name                ModelScope
"""

import re
import shlex
from pathlib import Path

from chainrule.core.errors import CheckpointError, TokenizerError, closest, perhaps
from chainrule.core.files import exists, read_json_object
from chainrule.hub.links import inside
from chainrule.hub.shipped import published_name
from chainrule.hub.trace import Stopwatch

HUB_ID = re.compile(r"(modelscope:)?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")
FILES = {".bin", ".gguf", ".safetensors", ".json", ".txt", ".pt", ".pth", ".model"}
"""What ends in one of these was meant as a file of this machine."""
ORGANISATIONS = {
    "openai-community": ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"),
    "distilbert": ("distilgpt2",),
    "google-bert": (
        "bert-base-uncased", "bert-base-cased", "bert-large-uncased", "bert-large-cased", "bert-base-chinese",
        "bert-base-multilingual-uncased", "bert-base-multilingual-cased",
    ),
    "google-t5": ("t5-small", "t5-base", "t5-large", "t5-3b", "t5-11b"),
}  # fmt: skip
"""Where the hub keeps what was published before models had organisations, and is still asked for without one."""
PLAN = "plan.json"
"""What decides a run of many stages, its ``kind`` among it."""
MOVED = {name: f"{organisation}/{name}" for organisation, names in ORGANISATIONS.items() for name in names}


def resolve(name: str, *, pickle: bool = False, watch: Stopwatch | None = None) -> Path:
    """The file or folder of that name, fetched if need be; raises ``CheckpointError`` saying what could be meant."""
    watch = watch or Stopwatch()
    path = place(name)
    if path is not None:
        found = path if path.is_file() else _of_run(path)
        watch.lap("resolve", f"{name} is the {'file' if path.is_file() else 'folder'} {found}", file=found, made=found)
        return found
    match = hub_id(name)
    if match is None:
        raise unknown(name)
    hub, id, revision = match.groups()
    if hub:
        from chainrule.hub.modelscope import download
    else:
        from chainrule.hub.huggingface import download
    found = download(id, revision, pickle=pickle, watch=watch)
    watch.lap("resolve", f"{name} is the folder {found}", file=found, made=found)
    return found


def place(name: str) -> Path | None:
    """The file or folder at a path, or None: what no file system would take as a name is at no place."""
    path = Path(name).expanduser()
    try:
        return path if path.exists() else None
    except OSError:
        return None


def here(name: str, *, pickle: bool = False) -> Path | None:
    """The file or folder of that name where all of it is on this machine, or None; the network is not asked."""
    path = place(name)
    if path is not None:
        return path if path.is_file() else _of_run(path)
    match = hub_id(name)
    if match is None:
        return None
    hub, id, revision = match.groups()
    if hub:
        from chainrule.hub.modelscope import cached
    else:
        from chainrule.hub.huggingface import cached
    return cached(id, revision, pickle=pickle)


def resolve_adapter(name: str, *, watch: Stopwatch | None = None) -> Path:
    """The folder of an adapter of that name, fetched from its hub if need be."""
    path = place(name)
    if path is not None and path.is_dir():
        return path
    match = hub_id(name)
    if path is not None or match is None:
        raise CheckpointError(
            f"{name} is no folder with adapter_config.json; give one that PEFT wrote, org/name or modelscope:org/name"
        )
    hub, id, revision = match.groups()
    if hub:
        from chainrule.hub.modelscope import download_adapter
    else:
        from chainrule.hub.huggingface import download_adapter
    return download_adapter(id, revision, watch=watch or Stopwatch())


def resolve_tokenizer(name: str) -> Path:
    """The file or folder that holds the tokenizer of that name; of a hub's model all but the weights is fetched."""
    path = Path(name).expanduser()
    if exists(path):
        return path
    match = hub_id(name)
    if match is None:
        raise TokenizerError(
            f"{name} does not exist here{perhaps(closest(name, MOVED))}; give a tokenizer file, a run (runs/NAME) or "
            "a folder that holds one, a .gguf, org/name of Hugging Face, modelscope:org/name, or bytes"
        )
    hub, id, revision = match.groups()
    if hub:
        from chainrule.hub.modelscope import download_tokenizer
    else:
        from chainrule.hub.huggingface import download_tokenizer
    return download_tokenizer(id, revision, watch=Stopwatch())


def _of_run(path: Path) -> Path:
    """The model of a run; any other folder is itself."""
    if (path / "model" / "config.json").exists():
        return path / "model"
    if (path / "recipe.yaml").exists():
        raise CheckpointError(f"{path} is a run without a model yet; let it finish: chainrule train ... --resume")
    if (path / PLAN).exists() and not (path / "config.json").exists():
        _refuse_stages(path)
    return path


def _refuse_stages(path: Path) -> None:
    """Raise ``CheckpointError`` for a run of many stages that has no model of its own: not yet, or never."""
    kind = read_json_object(inside(path, PLAN), "begin anew under another --name", error=CheckpointError).get("kind")
    models = sorted(str(config.parents[1]) for config in path.glob("*/model/config.json"))
    if kind == "ablation":
        raise CheckpointError(f"{path} is an ablation, which keeps no model; read its report.html, or give another run")
    if kind == "history" and models:
        raise CheckpointError(f"{path} is a ladder of several models; name one of them: {', '.join(models)}")
    verb = {"quickstart": "quickstart", "history": "ladder"}.get(str(kind))
    if verb is not None:
        whole = path.resolve()
        options = [] if whole.name == verb else ["--name", whole.name]
        options += [] if whole.parent == Path("runs").resolve() else ["--runs", str(whole.parent)]
        typed = shlex.join(["chainrule", verb, *options, "--resume"])
        raise CheckpointError(
            f"{path} is a {verb} that has no model yet; let it finish, with the options it was begun with: {typed}"
        )


def hub_id(name: str) -> re.Match[str] | None:
    """(``modelscope:`` or nothing, org/name, revision) of a name, or None for one that was meant as a place here."""
    short, at, revision = name.partition("@")
    path, match = Path(name).expanduser(), HUB_ID.fullmatch(MOVED.get(short, short) + at + revision)
    may_be = path.parts[:1] not in (("runs",), (".",), ("..",), ("~",)) and path.suffix not in FILES
    return match if match and (match[1] or may_be) else None


def unknown(name: str) -> CheckpointError:
    """What to say of a name that is no file, no folder and no id of a hub."""
    if len(name) > 200:
        return CheckpointError(
            f"{name[:40]}… is {len(name)} characters long and no model's name; give a run, a folder or org/name"
        )
    path = Path(name).expanduser()
    beside = [str(other) for other in path.parent.iterdir()] if path.parent.is_dir() and len(path.parts) > 1 else []
    meant = published_name(name) or closest(name, [*beside, *MOVED])
    return CheckpointError(
        f"{name} does not exist here{perhaps(meant)}; give a run (runs/NAME), a folder with config.json and safetensors, "
        "a .gguf or llama2.c .bin file, org/name of Hugging Face, modelscope:org/name, ngram:FILE, or world"
    )
