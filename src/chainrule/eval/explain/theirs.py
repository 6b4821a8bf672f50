"""``AutoModelForCausalLM.from_pretrained`` as transformers executes it: its own functions watched, folded into named stages.

The real library loads the real folder; a stage is a few of its functions, each looked up by name in the installed version, so
that file and line are those of what ran. A function that this version does not have is told as absent, a stage that this model
never enters as idle.
"""

import inspect
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from linecache import getline
from pathlib import Path
from types import CodeType
from typing import Any

from chainrule.core.device import DTYPES
from chainrule.core.errors import CheckpointError, ConfigError
from chainrule.eval.explain.calls import OUTSIDE, Calls, Spent
from chainrule.eval.explain.facts import Theirs, TheirStage
from chainrule.hub.trace import anonymous_bytes
from chainrule.tokenizers.published import has_tokenizer

AUTO = "models.auto.auto_factory"
MODELING, LOADING = "modeling_utils", "core_model_loading"
CLASS = "models.auto.auto_factory:_get_model_class"
"""What chooses the class of the model; the constructor of what it returns builds the modules."""
FAILURES = (ValueError, OSError, RuntimeError, KeyError, ImportError, AttributeError, TypeError)
"""What the library raises for a folder that it cannot load."""


@dataclass(frozen=True)
class Watched:
    """A stage: its functions (a module of transformers, a name in it), and the stage of ours that does the same."""

    name: str
    what: str
    functions: tuple[str, ...]
    ours: str = ""


STAGES = (
    Watched("import", "the library itself, and the modules in which the stages live", ()),
    Watched(
        "enter", "arguments sorted, checks, and the order of what follows",
        (f"{AUTO}:_BaseAutoModelClass.from_pretrained", f"{MODELING}:PreTrainedModel.from_pretrained"),
    ),
    Watched(
        "resolve", "which commit of the hub (none for a folder), and whether an adapter lies there",
        ("utils.hub:resolve_revision", "utils.peft_utils:find_adapter_config_file", "integrations.peft:maybe_load_adapters"),
        "resolve",
    ),
    Watched(
        "config", "config.json into a class of settings",
        ("models.auto.configuration_auto:AutoConfig.from_pretrained", "configuration_utils:PreTrainedConfig.get_config_dict"),
        "config",
    ),
    Watched("class", "model_type to a class, whose module is imported now", (CLASS,)),
    Watched("files", "the checkpoint's files, or the index of its shards", (f"{MODELING}:_get_resolved_checkpoint_files",)),
    Watched("dtype", "the number format: as asked, or as the config names it", (f"{MODELING}:_get_dtype",)),
    Watched("context", "the meta device, and no drawing of weights", (f"{MODELING}:PreTrainedModel.get_init_context",)),
    Watched("build", "the module tree, shapes alone", (), "build"),
    Watched(
        "rules", "how names change and tensors merge for this class, and what stays float32",
        ("conversion_mapping:get_model_conversion_mapping", f"{MODELING}:PreTrainedModel._get_dtype_plan"),
    ),
    Watched(
        "open", "each file of safetensors mapped, its tensors listed",
        (f"{MODELING}:PreTrainedModel._load_pretrained_model",), "open",
    ),
    Watched(
        "match", "each name to a parameter, by those rules",
        (f"{LOADING}:convert_and_load_state_dict_in_model", f"{LOADING}:rename_source_key"), "match",
    ),
    Watched(
        "read", "tensors read by a few threads, and waited for",
        (f"{LOADING}:spawn_materialize", f"{LOADING}:WeightTransform.materialize_tensors"), "tensor",
    ),
    Watched(
        "convert", "tensors merged, split, renamed",
        (f"{LOADING}:WeightRenaming.convert", f"{LOADING}:WeightConverter.convert"),
    ),
    Watched("assign", "each tensor into its empty parameter", (f"{LOADING}:set_param_for_module",)),
    Watched(
        "missing", "what the files lack is made and drawn; missing and unexpected names are reported",
        (
            f"{MODELING}:PreTrainedModel._finalize_model_loading", f"{MODELING}:PreTrainedModel._initialize_missing_keys",
            f"{MODELING}:PreTrainedModel._move_missing_keys_from_meta_to_device",
            f"{MODELING}:PreTrainedModel._adjust_missing_and_unexpected_keys",
        ),
    ),
    Watched("tie", "the readout becomes the embedding table", (f"{MODELING}:PreTrainedModel.tie_weights",), "tie"),
    Watched("eval", "dropout off", (f"{MODELING}:PreTrainedModel.eval",), "device"),
    Watched("generation", "generation_config.json", ("generation.utils:GenerationMixin.adjust_generation_fn",), "generation"),
    Watched(
        "tokenizer", "AutoTokenizer.from_pretrained",
        ("models.auto.tokenization_auto:AutoTokenizer.from_pretrained",), "tokenizer",
    ),
)  # fmt: skip


def traced(folder: Path, entry: str, dtype: str, device: str) -> Theirs:
    """Load a folder with transformers, under watch; raises ``ConfigError`` where it is missing, and ``CheckpointError`` where
    it cannot load the folder."""
    before, begin = anonymous_bytes() or 0, time.perf_counter()
    package = _transformers()
    codes, absent = _codes()
    imported = Spent(1, time.perf_counter() - begin, (anonymous_bytes() or 0) - before)
    chooser = next((code for code, name in codes.items() if name == "class"), None)
    calls = Calls(codes, {} if chooser is None else {chooser: _constructor})
    try:
        with _quiet(), calls:
            model = getattr(package, entry).from_pretrained(folder, dtype=DTYPES.get(dtype, "auto"), local_files_only=True)
            model.to(device)
            refused = _tokenizer(package, folder)
    except FAILURES as error:
        raise CheckpointError(f"transformers {version('transformers')} cannot load {folder}: {_reason(error)}") from error
    return _folded(entry, calls, imported, absent, refused)


def _tokenizer(package: Any, folder: Path) -> str:
    """Load the tokenizer too, as we do; returns why the library cannot, which happens with tokenizers of our own."""
    if not has_tokenizer(folder):
        return ""
    try:
        package.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except FAILURES as error:
        return f"AutoTokenizer cannot read this tokenizer: {_reason(error)}"
    return ""


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _folded(entry: str, calls: Calls, imported: Spent, absent: tuple[str, ...], refused: str) -> Theirs:
    """The stages in the order in which they began, and what was not entered."""
    about = {stage.name: stage for stage in STAGES}
    home = Path(inspect.getfile(_transformers())).parent
    stages = [_stage(about["import"], imported, "__init__.py:1")]
    main = {name: next((code for code in calls.names if code in called), called[0]) for name, called in calls.called.items()}
    stages += [_stage(about[name], calls.spent[name], _where(code, home)) for name, code in main.items()]
    outside = calls.spent[OUTSIDE]
    stages.append(
        TheirStage(
            name="outside",
            what="between the two calls: the device, and looking for a tokenizer",
            where="",
            calls=1,
            seconds=outside.seconds,
            grown_bytes=outside.grown_bytes,
            ours="",
        )
    )
    entered = {stage.name for stage in stages}
    idle = [f"never entered by this model: {stage.name}, {stage.what}" for stage in STAGES if stage.name not in entered]
    return Theirs(
        version=version("transformers"),
        entry=f"{entry}.from_pretrained",
        stages=tuple(stages),
        seconds=sum(stage.seconds for stage in stages),
        absent=absent,
        remarks=(*idle, *([refused] if refused else [])),
    )


def _stage(about: Watched, spent: Spent, where: str) -> TheirStage:
    return TheirStage(
        name=about.name,
        what=about.what,
        where=where,
        calls=spent.calls,
        seconds=spent.seconds,
        grown_bytes=spent.grown_bytes,
        ours=about.ours,
    )


def _codes() -> tuple[dict[CodeType, str], tuple[str, ...]]:
    """(code → stage, the functions that the installed version does not have)."""
    codes: dict[CodeType, str] = {}
    absent: list[str] = []
    for stage in STAGES:
        for place in stage.functions:
            found = _found(place)
            if found is None:
                absent.append(f"{stage.name}: transformers.{place.replace(':', '.')}")
            else:
                codes[found] = stage.name
    return codes, tuple(absent)


def _found(place: str) -> CodeType | None:
    """The code of a function, looked up where this version keeps it."""
    module, _, path = place.partition(":")
    try:
        found: Any = import_module(f"transformers.{module}")
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError):
        return None
    return getattr(inspect.unwrap(getattr(found, "__func__", found)), "__code__", None)


def _constructor(chosen: Any) -> dict[CodeType, str]:
    """The code that builds the modules of a class."""
    code = getattr(inspect.unwrap(chosen.__init__), "__code__", None) if isinstance(chosen, type) else None
    return {} if code is None else {code: "build"}


def _where(code: CodeType, home: Path) -> str:
    """``modeling_utils.py:3894 PreTrainedModel.from_pretrained``: the file relative to the package, the line of the ``def``."""
    file, line = Path(code.co_filename), code.co_firstlineno
    while not getline(code.co_filename, line).lstrip().startswith(("def ", "async def ")) and line < code.co_firstlineno + 30:
        line += 1  # over the decorators
    return f"{file.relative_to(home) if file.is_relative_to(home) else file}:{line} {code.co_qualname}"


def check(dtype: str) -> None:
    """Raises ``ConfigError`` where transformers is not installed or has no such format, before anything is loaded."""
    if find_spec("transformers") is None:
        raise _absent()
    if dtype == "int4":
        raise ConfigError("transformers has no int4 of this kind, so there is nothing to compare; say --dtype bf16 or fp32")


def _absent() -> ConfigError:
    return ConfigError(
        "--engine transformers watches the package transformers, which is not here; install it with: pip install transformers"
    )


def _transformers() -> Any:
    try:
        return import_module("transformers")
    except ImportError as error:
        raise _absent() from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No bars and warnings of the library's own while it is watched."""
    logging = import_module("transformers.utils.logging")
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
