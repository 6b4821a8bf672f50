"""A load, watched: its steps gathered into stages, how memory went meanwhile, and which files were read."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from chainrule.eval.explain.facts import File, Moment, Stage
from chainrule.eval.explain.tensors import size_in_model
from chainrule.hub.encoder import MaskedLM
from chainrule.hub.lm import LM
from chainrule.hub.load import load
from chainrule.hub.trace import Step, TensorStep, anonymous_bytes

ROLES = {
    "config.json": "the architecture: which parts, how wide, how many",
    "generation_config.json": "settings that its publisher suggests for sampling",
    "*.safetensors": "weights",
    "*.safetensors.index.json": "which file holds which tensor",
    "pytorch_model*.bin": "weights, pickled",
    "*.gguf": "weights, settings, vocabulary and template in one",
    "*.bin": "weights",
    "tokenizer.json": "the tokenizer: pieces and merges",
    "tokenizer_config.json": "the tokenizer's class and special tokens",
    "tokenizer.model": "the tokenizer, of SentencePiece",
    "spiece.model": "the tokenizer, of SentencePiece",
    "tiktoken.model": "the tokenizer, of tiktoken",
    "vocab.json": "the tokenizer's pieces",
    "vocab.txt": "the tokenizer's pieces",
    "encoder.json": "the tokenizer's pieces",
    "vocab.bpe": "the tokenizer's merges",
    "*.tiktoken": "the tokenizer: pieces by rank",
    "added_tokens.json": "tokens added to the vocabulary",
    "merges.txt": "the tokenizer's merges",
    "special_tokens_map.json": "names of special tokens",
    "chat_template.jinja": "how a conversation becomes text",
    "modules.json": "how a sentence becomes a vector",
}
"""What a file of a model is for, by its name."""


@dataclass(frozen=True)
class Loaded:
    """The model that came of it, every step as it was told, and the memory before the first step."""

    lm: LM | MaskedLM
    steps: tuple[Step, ...]
    before_bytes: int | None


def watched(name: str, *, device: str, dtype: str, pickle: bool) -> Loaded:
    """Load a model and listen."""
    steps: list[Step] = []
    before = anonymous_bytes()
    lm = load(name, device=device, dtype=dtype, pickle=pickle, trace=steps.append)
    return Loaded(lm, tuple(steps), before)


def stages_of(loaded: Loaded) -> tuple[Stage, ...]:
    """The steps by stage, in the order in which the stages began."""
    grown: Counter[str] = Counter()
    before = loaded.before_bytes
    for step in loaded.steps:
        if step.anonymous_bytes is not None and before is not None:
            grown[step.stage] += step.anonymous_bytes - before
        before = step.anonymous_bytes
    names = dict.fromkeys(step.stage for step in loaded.steps)
    known = before is not None
    return tuple(_stage([s for s in loaded.steps if s.stage == name], grown[name] if known else None) for name in names)


def moments_of(loaded: Loaded) -> tuple[Moment, ...]:
    """How things stood at the beginning and after every step."""
    moments = [Moment(seconds=0.0, stage="begin", anonymous_bytes=loaded.before_bytes, weights_bytes=0)]
    seconds, weights = 0.0, 0
    for step in loaded.steps:
        seconds += step.seconds
        weights += size_in_model(step) if isinstance(step, TensorStep) else 0
        moments.append(Moment(seconds=seconds, stage=step.stage, anonymous_bytes=step.anonymous_bytes, weights_bytes=weights))
    return tuple(moments)


def files_of(path: Path | None) -> tuple[File, ...]:
    """The files of a model's folder that have a role, or the one file that it is."""
    if path is None:
        return ()
    found = [path] if path.is_file() else sorted(file for file in path.iterdir() if file.is_file())
    files = [File(name=file.name, size_bytes=file.stat().st_size, what=role(file.name)) for file in found]
    return tuple(file for file in files if file.what)


def role(name: str) -> str:
    """What a file is for; empty for one that nobody reads.

    >>> role("model-00001-of-00002.safetensors")
    'weights'
    """
    return next((what for pattern, what in ROLES.items() if fnmatch(name, pattern)), "")


def _stage(steps: Sequence[Step], grown: int | None) -> Stage:
    first, last = steps[0], steps[-1]
    what = first.what if len(steps) == 1 else _summary(steps)
    return Stage(
        name=first.stage,
        what=what,
        where=last.where,
        steps=len(steps),
        seconds=sum(step.seconds for step in steps),
        size_bytes=sum(step.size_bytes for step in steps),
        grown_bytes=grown,
    )


def _summary(steps: Sequence[Step]) -> str:
    """Many steps in a few words: how many tensors came which way, or the first and how many more."""
    ways = Counter(step.way for step in steps if isinstance(step, TensorStep))
    if ways:
        return f"{sum(ways.values())} tensors: " + ", ".join(f"{count} {way}" for way, count in ways.items())
    return f"{steps[0].what}, and {len(steps) - 1} more"
