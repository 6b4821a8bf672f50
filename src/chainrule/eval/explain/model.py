"""``explain(name)``: a name to everything there is to say of its model.

Where it is looked for, in this order: a run, a folder or a file; the cache of its hub; the configs that ship. The network is
asked only where that is wished (``download``), so that explaining a name never fetches gigabytes by surprise.
"""

import gc
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from chainrule.core.device import DTYPES, format_called, format_name
from chainrule.core.errors import CheckpointError, ConfigError, RequestError, nearest
from chainrule.core.schema import dump
from chainrule.eval.anatomy import PARTS, take_apart
from chainrule.eval.explain.facts import Explanation, Forward, TensorFact
from chainrule.eval.explain.forward import pass_over
from chainrule.eval.explain.loading import Loaded, files_of, moments_of, stages_of, watched
from chainrule.eval.explain.parts import parts_of
from chainrule.eval.explain.prompts import made_up, row
from chainrule.eval.explain.tensors import tensors_expected, tensors_made, tensors_read
from chainrule.eval.explain.text import article
from chainrule.eval.explain.theirs import check, traced
from chainrule.eval.explain.tree import tree_of
from chainrule.eval.explain.work import work_of
from chainrule.eval.flops import formula
from chainrule.hub.build import build
from chainrule.hub.load import FORMATS, NGRAM, read_config
from chainrule.hub.names import here, hub_id, resolve, unknown
from chainrule.hub.outline import named_format, outline
from chainrule.hub.shipped import is_shipped, nearest_shipped, shipped_config
from chainrule.hub.trace import Step, TensorStep
from chainrule.hub.weight_files import has_weights

ROW = 4096
"""So many tokens are passed over where there are no weights, or as many as the model reads: those of ``plan``."""
SHIPS = "its config ships with chainrule; no weights are here, and the network was not asked (--download fetches them)"
"""Where a model that is explained from a config alone was found, unless it is a folder."""
ENTRIES = {"Encoder": "AutoModelForMaskedLM", "Seq2Seq": "AutoModelForSeq2SeqLM"}
"""The class of transformers through which a kind of model is loaded, where it is not AutoModelForCausalLM."""
NO_WEIGHTS = (
    "weights: none are here, so nothing was read: no seconds, no memory, and no words at the end of the pass",
    "tokenizer, chat template and generation settings: they do not ship with the config",
)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked besides the name: the row to pass over, and how to load."""

    prompt: str | None = None
    length: int | None = None
    device: str = "auto"
    dtype: str = "auto"
    pickle: bool = False
    download: bool = False


def explain(name: str, *, engine: str = "chainrule", **asked: Any) -> Explanation:
    """Everything about a model; ``asked`` are the fields of ``Asked``.

    With the ``engine`` transformers that library loads the same folder, and its stages stand beside ours. Raises
    ``CheckpointError`` where the name is nowhere and nothing may be fetched.
    """
    ask = Asked(**asked)
    ask = replace(ask, dtype=format_called(ask.dtype))
    return _beside(name, ask) if engine == "transformers" else _alone(name, ask)


def _alone(name: str, ask: Asked) -> Explanation:
    """By the rule: what is here, what is in the cache, what ships; the network only if it may be asked."""
    if name == "world" or NGRAM.fullmatch(name):
        found = "the truth itself, of no files" if name == "world" else f"counted on the spot: {name.partition(':')[2]}"
        return _of_load(name, None, found, ask)
    path = here(name, pickle=ask.pickle)
    if path is not None and _config_alone(path):
        return of_config(name, read_config(path), ask, found=f"{path} holds a config and no weights, so nothing is read")
    if path is not None:
        found = "here, at this path" if Path(name).expanduser().exists() else "in the cache, so the network was not asked"
        return replace(_of_load(str(path), path, found, ask), name=name)
    if ask.download:
        return _of_load(name, None, "fetched, as --download asks", ask)
    if is_shipped(name):
        return of_config(name, shipped_config(name), ask)
    raise CheckpointError(_nowhere(name))


def _beside(name: str, ask: Asked) -> Explanation:
    """The explanation, and the same folder loaded by transformers."""
    check(ask.dtype)
    path = resolve(name, pickle=ask.pickle) if ask.download else here(name, pickle=ask.pickle)
    if path is None or not (path / "config.json").exists():
        fetch = "add --download, " if hub_id(name) else ""
        raise RequestError(
            f"--engine transformers watches from_pretrained, which reads a folder with config.json and weights; {name} is none "
            f"here: {fetch}give a run or such a folder, or make one of a file: chainrule export FILE FOLDER --to hf"
        )
    explanation = _alone(str(path), ask)
    scores = explanation.forward is not None and bool(explanation.forward.likeliest)
    entry = ENTRIES.get(explanation.kind, "AutoModelForCausalLM") if scores else "AutoModel"
    gc.collect()  # our model is gone before theirs comes
    return replace(explanation, name=name, theirs=traced(path, entry, ask.dtype, explanation.device))


def _nowhere(name: str) -> str:
    if hub_id(name) is None:
        return f"{unknown(name)}, or the id of a config that ships{nearest_shipped(name)}"
    return (
        f"{name} is neither here nor in the cache, and its config does not ship{nearest_shipped(name)}; explain asks the "
        "network only where you say so: add --download"
    )


def _config_alone(path: Path) -> bool:
    """Whether a place is a folder of a config and no file that could be weights."""
    return (path / "config.json").exists() and not has_weights(path)


def of_config(name: str, config: dict[str, Any], ask: Asked, *, found: str = SHIPS) -> Explanation:
    """All that a config alone says: a model of shapes, its tensors under published names, and one pass over shapes."""
    if ask.dtype not in FORMATS:
        raise ConfigError(f"unknown number format {ask.dtype!r}{nearest(ask.dtype, FORMATS)}")
    if ask.dtype == "int4":
        raise ConfigError(f"int4 is made while weights are read, and {name} has none here; chainrule plan tells its bytes")
    if ask.prompt is not None:
        raise RequestError(f"the tokenizer of {name} is not here, so it reads no text; say --length N, or --download")
    for option, given in ((f"--device {ask.device}", ask.device != "auto"), ("--pickle", ask.pickle)):
        if given:
            raise RequestError(
                f"{option} is about weights, and {name} has none here; leave it out, or give a model that has its weights "
                "(of an id --download fetches them)"
            )
    dtype = DTYPES.get(ask.dtype) or named_format(config)
    laid = outline(config, dtype)
    model = laid.model
    length = min(ROW, model.context or ROW) if ask.length is None else ask.length
    ids = made_up(length, model.vocab_size, model.context).ids
    tensors = tensors_expected(laid)
    packed = f"packing: the published files hold {laid.packing}; here every tensor is told unpacked"
    return Explanation(
        name=name,
        found=found,
        tensors_published=laid.tensors,
        files=(),
        config=config,
        tensors=tensors,
        stages=(),
        moments=(),
        seconds=0.0,
        tokenizer="",
        template=None,
        generation={},
        forward=pass_over(model, ids, **_work(model, name, length)),
        unknown=(*NO_WEIGHTS, *([packed] if laid.packing else [])),
        **_of_model(model, tensors, format_name(dtype), "meta (shapes alone)"),
    )


def _of_load(name: str, path: Path | None, found: str, ask: Asked) -> Explanation:
    """All that a load tells, and a pass over a prompt."""
    loaded = watched(name, device=ask.device, dtype=ask.dtype, pickle=ask.pickle)
    lm, model = loaded.lm, loaded.lm.model
    tensors = _tensors(loaded)
    asked = row(lm, ask.prompt, ask.length)
    source = 0 if asked.given is None else asked.given["source"].shape[1]
    forward = pass_over(model, **vars(asked), **_work(model, lm.name, len(asked.ids), source))
    template = getattr(lm, "template", None)
    return Explanation(
        name=name,
        found=found,
        tensors_published=len({name for fact in tensors for name in fact.published}) or None,
        files=files_of(path or _place(loaded.steps)),
        config=_config(loaded.steps, model),
        tensors=tensors,
        stages=stages_of(loaded),
        moments=moments_of(loaded),
        seconds=sum(step.seconds for step in loaded.steps),
        tokenizer=f"{type(lm.tokenizer).__name__} of {lm.tokenizer.vocab_size:,} ids" if lm.tokenizer is not None else "",
        template=None if template is None else template.source,
        generation=dict(getattr(lm, "generation", {})),
        forward=forward,
        unknown=_unknown(lm, forward),
        **_of_model(model, tensors, _formats(tensors), str(model.device)),
    )


def _of_model(model: nn.Module, tensors: Iterable[TensorFact], dtype: str, device: str) -> dict[str, Any]:
    """What is said of every model, with or without weights."""
    parameters, sizes = Counter[str](), Counter[str]()
    for fact in tensors:
        if fact.way not in ("tied", "left out"):
            parameters[fact.part] += torch.Size(fact.shape).numel()
            sizes[fact.part] += fact.size_bytes
    return {
        "kind": type(model).__name__,
        "dtype": dtype,
        "device": device,
        "parameters": sum(parameters.values()),
        "size_bytes": sum(sizes.values()),
        "parameters_by_part": _ordered(parameters),
        "bytes_by_part": _ordered(sizes),
        "parts": parts_of(getattr(model, "config", None)),
        "tree": tree_of(model),
    }


def _ordered(counts: Counter[str]) -> dict[str, int]:
    """Counts by part, in the order in which a token meets the parts."""
    return {part: counts[part] for part in (*PARTS, *sorted(set(counts) - set(PARTS))) if part in counts}


def _work(model: Any, name: str, tokens: int, source: int = 0) -> dict[str, Any]:
    """The products of a pass and, for a decoder, plan's formula for them; nothing for a model that multiplies nothing."""
    config = getattr(model, "config", None)
    kind = getattr(config, "kind", "ngram")
    if kind == "ngram":
        return {}
    with torch.device("meta"):  # matrices in four bits are no matrices any more, so the shapes are built anew
        shapes = build(config)
    anatomy = take_apart(shapes, name) if kind == "decoder" else None
    return {"works": work_of(shapes, anatomy, tokens, source), "formula": "" if anatomy is None else formula(anatomy, tokens)}


def _tensors(loaded: Loaded) -> tuple[TensorFact, ...]:
    if any(isinstance(step, TensorStep) for step in loaded.steps):
        return tensors_read(loaded.steps, loaded.lm.model)
    return tensors_made(loaded.lm.model)


def _place(steps: Iterable[Step]) -> Path | None:
    """The folder that a name was resolved to."""
    return next((step.made for step in steps if step.stage == "resolve" and isinstance(step.made, Path)), None)


def _config(steps: Iterable[Step], model: Any) -> dict[str, Any]:
    """The config as it was read; for a model that came without one, our own."""
    read = next((step.made for step in steps if step.stage == "config"), None)
    return dict(read) if read is not None else dump(getattr(model, "config", {}))


def _formats(tensors: Iterable[TensorFact]) -> str:
    """The number formats of the model, the one that holds most bytes first."""
    sizes = Counter[str]()
    for fact in tensors:
        sizes[fact.dtype] += fact.size_bytes
    return ", ".join(name for name, size in sizes.most_common() if name and size)


def _unknown(lm: Any, forward: Forward) -> tuple[str, ...]:
    """What is not shown, and why."""
    missing = [] if forward.flops else [f"FLOPs: {article(type(lm.model).__name__)} multiplies no matrices, it looks up"]
    if lm.tokenizer is None:
        missing.append("words: the model came without a tokenizer, so the pass reads made-up ids and its answers are ids")
    if not forward.likeliest:
        missing.append("likeliest words: this encoder has states alone, and no head that scores words")
    if not forward.seen[:-1]:
        missing.append(f"layers: {article(type(lm.model).__name__)} has none that a tap could hear")
    return tuple(missing)
