"""A name to an ``LM``, or to a ``MaskedLM`` where it is an encoder.

runs/quickstart     a run: its ``model/`` folder
path/to/model       config.json, safetensors, tokenizer, template
org/name@revision   a model of Hugging Face; modelscope:org/name one of ModelScope
model.gguf          llama.cpp's file, with its tokenizer and template
stories260K.bin     llama2.c, with a ``tok*.bin`` beside it, or llm.c's GPT-2
ngram5:FILE         a text counted on the spot, byte by byte; without a number, trigrams
world               the exact distribution of the world
"""

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from chainrule.core.device import DTYPES, format_called, pick_device
from chainrule.core.errors import CheckpointError, ConfigError, RequestError, nearest
from chainrule.core.files import read_json_object, read_text
from chainrule.core.masked import MaskedModel, Model
from chainrule.core.schema import dump
from chainrule.core.tokenizer import Tokenizer
from chainrule.hub.build import build, moves, shapes, with_heads
from chainrule.hub.encoder import MaskedLM, reads_both_ways
from chainrule.hub.links import inside, refuse_links_out
from chainrule.hub.llama2c import read_llama2c
from chainrule.hub.llmc import is_llmc, read_llmc
from chainrule.hub.lm import LM
from chainrule.hub.names import resolve, resolve_adapter
from chainrule.hub.peft import read_adapter
from chainrule.hub.pictures import has_pictures
from chainrule.hub.sentences import read_pooling, transformer_folder
from chainrule.hub.stored import in_memory, open_weights
from chainrule.hub.trace import Stopwatch, Trace
from chainrule.hub.weight_files import weight_files
from chainrule.hub.weights import Wish, fill
from chainrule.models.ngram import NGram
from chainrule.tokenizers import load as load_tokenizer
from chainrule.tokenizers.byte import ByteTokenizer
from chainrule.tokenizers.chat import TOOL_USE, ChatTemplate, find_templates
from chainrule.tokenizers.llama2c import Llama2cTokenizer
from chainrule.tokenizers.published import has_tokenizer

NGRAM = re.compile(r"ngram(\d*):(.+)", re.DOTALL)
FORMATS = ("auto", *DTYPES, "int4")
TIED = "the readout is the embedding table itself"


def load(
    name: str | Path,
    *,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    pickle: bool = False,
    adapter: str | Path | None = None,
    trace: Trace | None = None,
) -> LM | MaskedLM:
    """The model of that name, encoders too.

    ``dtype`` ``auto`` keeps the format the weights are stored in; ``int4`` puts every matrix but the embeddings into four bits
    as it is read, and the rest into bf16. ``pickle`` allows weights that are pickles; ``adapter`` is a folder that PEFT wrote,
    whose LoRA is put beside the weights; ``trace`` hears every step of loading.
    Raises ``CheckpointError`` with what is wrong and what would be right.
    """
    where, dtype = pick_device(device), format_called(dtype)
    if dtype not in FORMATS:
        raise ConfigError(f"unknown number format {dtype!r}{nearest(dtype, FORMATS)}")
    watch = Stopwatch(trace)
    wish = Wish(torch.bfloat16 if dtype == "int4" else DTYPES.get(dtype), where, dtype == "int4")
    lm = _load(str(name), wish, pickle, watch)
    where = _home(lm.model, where)
    lm.model.to(where).eval()
    watch.lap("device", f"everything on {where}, ready to answer", size_bytes=size_bytes(lm.model), made=lm.model)
    if adapter is not None:
        folder = resolve_adapter(str(adapter), watch=watch)
        changed = read_adapter(lm.model, folder)
        _note_base(lm.name, folder)
        lm.model.eval()
        watch.lap("adapter", f"{adapter}: beside {len(changed)} layers", file=folder, made=changed)
    return lm


def left_to_right(lm: LM | MaskedLM) -> LM:
    """A model that was loaded, for those who ask what comes next; raises ``RequestError`` for an encoder, which cannot say."""
    if isinstance(lm, MaskedLM):
        raise RequestError(reads_both_ways(lm.name))
    return lm


def _load(name: str, wish: Wish, pickle: bool, watch: Stopwatch) -> LM | MaskedLM:
    if name == "world":
        from chainrule.models.oracle import Oracle

        return _plain(LM(Oracle(), ByteTokenizer(), name=name), wish, watch)
    if counted := NGRAM.fullmatch(name):
        return _plain(_count(counted[2], int(counted[1] or 3), name), wish, watch)
    path = resolve(name, pickle=pickle, watch=watch)
    return _file(path, wish, watch) if path.is_file() else _folder(path, wish, pickle, watch)


def _home(model: torch.nn.Module, device: torch.device) -> torch.device:
    """Where a model lives: a table of counts stays on the CPU, since it reckons in float64, which MPS has not."""
    return torch.device("cpu") if isinstance(model, NGram) else device


def _plain(lm: LM, wish: Wish, watch: Stopwatch) -> LM:
    """A model of no checkpoint: its floats put into the wanted format."""
    if wish.int4:
        raise ConfigError(f"int4 is made while reading safetensors, and {lm.name} is not a folder of them; use fp32 or bf16")
    if wish.dtype is not None:
        lm.model.to(wish.dtype)
    watch.lap("build", f"{lm.name}: a {type(lm.model).__name__}, made here", size_bytes=size_bytes(lm.model), made=lm.model)
    return lm


def _count(text: str, order: int, name: str) -> LM:
    if not 1 <= order <= 8:
        raise ConfigError(f"{name} asks for order {order}; n-grams here have orders 1 to 8")
    tokenizer = ByteTokenizer()
    ids = [256, *tokenizer.encode(read_text(Path(text))), 256]
    return LM(NGram.fit([ids], order=order, vocab_size=tokenizer.vocab_size), tokenizer, name=name)


def _file(path: Path, wish: Wish, watch: Stopwatch) -> LM:
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"GGUF" or path.suffix == ".gguf":
        from chainrule.hub.gguf.model import read_model

        lm = read_model(path, wish, watch)
        _fits(lm.model, lm.tokenizer, path)
        return lm
    if path.suffix != ".bin":
        raise CheckpointError(
            f"{path} is no model file known here; they end in .gguf, or in .bin (llama2.c, llm.c); for a text, say ngram:{path}"
        )
    return _bin(path, is_llmc(start), wish, watch)


def _bin(path: Path, llmc: bool, wish: Wish, watch: Stopwatch) -> LM:
    """A file of llm.c or of llama2.c: a header of a few numbers, then tensor after tensor, in an order that it implies."""
    if llmc:
        config, tensors = read_llmc(path)
        stored, way, said = in_memory(path, tensors), moves(config), config
        beside = None
    else:
        plan, stored = read_llama2c(path)
        config, way, said = plan.config, plan.moves, dump(plan.config)
        beside = [inside(path.parent, file.name) for file in sorted(path.parent.glob("tok*.bin")) if file != path]
    watch.lap("open", f"{len(stored)} tensors, mapped", file=path, size_bytes=path.stat().st_size, made=dict(stored))
    watch.lap("config", f"what the header of {'llm.c' if llmc else 'llama2.c'} means", file=path, made=said)
    with torch.device("meta"):
        model = build(config)
    _lap_shapes(model, watch)
    fill(model, stored, way, path, wish, watch)
    if model.config.tied:
        watch.lap("tie", TIED)
    model.requires_grad_(True)
    if beside is None:
        tokenizer = None
        if has_tokenizer(path.parent):
            refuse_links_out(path.parent)
            tokenizer = load_tokenizer(path.parent)
    else:
        tokenizer = _one_that_fits(beside, model.vocab_size, path)
    _fits(model, tokenizer, path)
    watch.lap("tokenizer", _said(tokenizer), file=path.parent, made=tokenizer)
    return LM(model, tokenizer, name=path.stem)


def _one_that_fits(files: list[Path], vocab_size: int, path: Path) -> Tokenizer | None:
    """The tokenizer with as many ids as a model of llama2.c scores; None where no file is there at all."""
    known = {file: Llama2cTokenizer.read(file) for file in files}
    fitting = [file for file, tokenizer in known.items() if tokenizer.vocab_size == vocab_size]
    if files and not fitting:
        found = ", ".join(f"{file.name} has {tokenizer.vocab_size}" for file, tokenizer in known.items())
        raise CheckpointError(
            f"{path} scores {vocab_size} ids, but no tokenizer beside it has as many ({found}); put its own there"
        )
    if len({known[file].file() for file in fitting}) > 1:
        names = " and ".join(file.name for file in fitting)
        raise CheckpointError(f"{path} has {names} beside it, which differ; leave the one that it was trained with")
    return known[fitting[0]] if fitting else None


def _lap_shapes(model: torch.nn.Module, watch: Stopwatch) -> None:
    """Tell of a model that has no weights yet."""
    n = sum(parameter.numel() for parameter in model.parameters())
    watch.lap("build", f"{type(model).__name__} of {n:,} parameters, shapes alone", size_bytes=size_bytes(model), made=model)


def _folder(folder: Path, wish: Wish, pickle: bool, watch: Stopwatch) -> LM | MaskedLM:
    name, pooling = _called(folder), read_pooling(folder)
    folder = transformer_folder(folder)
    config = read_config(folder)
    refuse_links_out(folder)
    config = with_heads(config, lambda: open_weights(weight_files(folder, pickle=pickle), Stopwatch()))
    watch.lap("config", f"model_type {config.get('model_type')!r}", file=folder / "config.json", made=config)
    if has_pictures(config):
        print(f"note: {name} reads pictures too; here it is its text model alone, without their weights", file=sys.stderr)
    try:
        model = shapes(config)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: {error}") from error
    _lap_shapes(model, watch)
    wish = replace(wish, device=_home(model, wish.device))
    if wish.dtype is None and config.get("quantization_config"):  # what is unpacked is bf16: what is stored otherwise joins it
        wish = replace(wish, dtype=torch.bfloat16)
    stored = open_weights(weight_files(folder, pickle=pickle), watch)
    if config.get("model_type") == "t5":
        _refuse_fp16(folder, {one.dtype for one in stored.values()} if wish.dtype is None else {wish.dtype})
    fill(model, stored, moves(config), folder, wish, watch)
    if getattr(model.config, "tied", False):
        watch.lap("tie", TIED)
    model.requires_grad_(True)
    tokenizer = load_tokenizer(folder) if has_tokenizer(folder) else None
    _fits(model, tokenizer, folder)
    watch.lap("tokenizer", _said(tokenizer), file=folder, made=tokenizer)
    if isinstance(model, MaskedModel):
        return MaskedLM(model, tokenizer, pooling, name=name)
    named = find_templates(folder)
    source = named.get("default", next(iter(named.values()), None))
    template = None
    if source is not None and tokenizer is not None:
        template = ChatTemplate(source, tokenizer, tool_use=named.get(TOOL_USE))
    watch.lap("template", f"{len(source):,} characters of Jinja" if source else "none: not taught to chat", made=source)
    generation = _settings(folder / "generation_config.json")
    watch.lap("generation", ", ".join(f"{k}={v}" for k, v in generation.items()) or "none given", made=generation)
    return LM(model, tokenizer, template, name=name, generation=generation)


def _refuse_fp16(folder: Path, formats: set[torch.dtype]) -> None:
    if torch.float16 in formats:
        raise CheckpointError(
            f"{folder} is a T5, inside which numbers outgrow fp16 (65,504), so that it would answer NaN; load it in bf16 "
            "(--dtype bf16), or in fp32"
        )


def _note_base(name: str, folder: Path) -> None:
    """Say so where an adapter was made for a model of another name: it may be the same one elsewhere, or another one."""
    base = str(_settings(folder / "adapter_config.json").get("base_model_name_or_path") or name)
    known = _called(Path(re.sub(r"(@.*|\.gguf|\.bin)$", "", base)))
    if known.rsplit("/")[-1].lower() != name.rsplit("/")[-1].lower():
        print(f"note: the adapter {folder} was trained beside {base}, and stands beside {name} here", file=sys.stderr)


def _called(folder: Path) -> str:
    """What a model is called after its folder: a run's name, org/name in the cache of a hub, else the folder's own."""
    if folder.parent.name == "snapshots":
        return folder.parent.parent.name.removeprefix("models--").replace("--", "/")
    return folder.parent.name if folder.name == "model" else folder.name


def _said(tokenizer: Tokenizer | None) -> str:
    return "none: ids alone" if tokenizer is None else f"{type(tokenizer).__name__} of {tokenizer.vocab_size:,} ids"


def size_bytes(model: torch.nn.Module) -> int:
    """The bytes of a model's parameters and buffers, wherever they live."""
    return sum(tensor.nbytes for tensor in model.state_dict().values())


def read_config(folder: Path) -> dict[str, Any]:
    """The config.json of a model's folder; raises ``CheckpointError`` where there is none, or an adapter's."""
    if not (folder / "config.json").exists():
        if (folder / "adapter_config.json").exists():
            base = _settings(folder / "adapter_config.json").get("base_model_name_or_path") or "BASE"
            raise CheckpointError(
                f"{folder} is an adapter, not a model; load its base and it: {base} --adapter {folder} (adapter=... in Python)"
            )
        raise CheckpointError(f"{folder} holds no config.json, so it is no model; give the folder that holds one")
    return _settings(folder / "config.json")


def _settings(path: Path) -> dict[str, Any]:
    """The settings in a JSON file of the folder; an absent one is empty."""
    return read_json_object(inside(path.parent, path.name), error=CheckpointError) if path.exists() else {}


def _fits(model: Model, tokenizer: Tokenizer | None, where: Path) -> None:
    """Refuse a tokenizer whose texts have ids that the model has no row for; a special token without one is told on stderr."""
    if tokenizer is None or tokenizer.vocab_size <= model.vocab_size:
        return
    ends = {tokenizer.begin, *tokenizer.eos}
    beyond = range(model.vocab_size, tokenizer.vocab_size)
    if any(id in ends or tokenizer.token_bytes(id) for id in beyond):
        raise CheckpointError(
            f"{where}: the tokenizer has {tokenizer.vocab_size} ids but the model scores {model.vocab_size}; "
            "they do not belong together"
        )
    names = ", ".join(name for name, id in tokenizer.specials.items() if id in beyond)
    print(f"note: {where} scores {model.vocab_size} ids and knows no {names}; no text needs it", file=sys.stderr)
