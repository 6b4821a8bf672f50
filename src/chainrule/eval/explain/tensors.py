"""Each tensor's way from a file into the model, with what it takes there and here.

A published tensor that becomes several of ours (a fused q, k, v) is shared out between them, so that the bytes told add up to
those of the files.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from chainrule.adapt import int4
from chainrule.core.device import format_name
from chainrule.eval.anatomy import part_of
from chainrule.eval.explain.facts import TensorFact
from chainrule.hub.outline import Outline
from chainrule.hub.trace import Step, TensorStep

COUNTS = ("keys_", "counts_")
"""How the names of an n-gram's tables begin."""


def tensors_read(steps: Sequence[Step], model: nn.Module) -> tuple[TensorFact, ...]:
    """The tensors of a load that told each one, and the readout where it is another tensor."""
    read = [step for step in steps if isinstance(step, TensorStep)]
    sizes = _sizes(steps, read)
    takers: Counter[str] = Counter()
    for step in read:
        for name in step.published:
            takers[name] += torch.Size(step.shape).numel()
    facts = [_read(step, sizes, takers) for step in read]
    return (*facts, *_tied(model))


def tensors_made(model: nn.Module) -> tuple[TensorFact, ...]:
    """The tensors of a model of no checkpoint: counted or computed."""
    facts = [
        _here(name, tensor, "made", file="", stored="", stored_bytes=0, published=())
        for name, tensor in model.state_dict().items()
    ]
    return (*facts, *_tied(model))


def tensors_expected(outline: Outline) -> tuple[TensorFact, ...]:
    """The tensors that a checkpoint of this config holds, under their published names."""
    facts = [
        _here(
            name, tensor, "not read", file="", stored=format_name(tensor.dtype), stored_bytes=tensor.nbytes,
            published=outline.published.get(name, ()),
        )
        for name, tensor in outline.model.state_dict().items()
    ]  # fmt: skip
    return (*facts, *_tied(outline.model))


def part_named(name: str) -> str:
    """The part of a model that a tensor belongs to, an n-gram's tables too.

    >>> part_named("counts_3"), part_named("decoder.layers.0.cross_attn.q_proj.weight")
    ('counts', 'attention')
    """
    return "counts" if name.startswith(COUNTS) else part_of(name)


def size_in_model(step: TensorStep) -> int:
    """The bytes that a tensor takes in the model."""
    count = torch.Size(step.shape).numel()
    if step.way == "left out":
        return 0
    return round(count * int4.BYTES) if step.dtype == "int4" else count * getattr(torch, step.dtype).itemsize


def _read(step: TensorStep, sizes: Mapping[str, int], takers: Mapping[str, int]) -> TensorFact:
    count = torch.Size(step.shape).numel()
    return TensorFact(
        name=step.ours,
        published=step.published,
        file=step.file,
        stored=step.stored,
        stored_bytes=sum(sizes[name] * count // max(takers[name], 1) for name in step.published),
        dtype=step.dtype,
        shape=step.shape,
        size_bytes=size_in_model(step),
        part=part_named(step.ours) if step.ours else "",
        way=step.way,
        note=step.what.partition(": ")[2] if step.way == "left out" else "",
    )


def _sizes(steps: Sequence[Step], read: Sequence[TensorStep]) -> dict[str, int]:
    """The bytes of every published tensor in its file."""
    sizes = {name: step.size_bytes // len(step.published) for step in read for name in step.published}
    for step in steps:
        if step.stage == "open" and isinstance(step.made, Mapping):
            sizes |= {name: stored.size_bytes for name, stored in step.made.items()}
    return sizes


def _here(
    name: str, tensor: torch.Tensor, way: str, *, file: str, stored: str, stored_bytes: int, published: tuple[str, ...]
) -> TensorFact:
    return TensorFact(
        name=name,
        published=published,
        file=file,
        stored=stored,
        stored_bytes=stored_bytes,
        dtype=format_name(tensor.dtype),
        shape=tuple(tensor.shape),
        size_bytes=tensor.nbytes,
        part=part_named(name),
        way=way,
    )


def _tied(model: nn.Module) -> tuple[TensorFact, ...]:
    """The readout, where it is the embedding table itself and no tensor of its own."""
    config = getattr(model, "config", None)
    head = getattr(config, "head", None)
    name = "lm_head.weight" if getattr(config, "tied", False) else "head.words.weight" if getattr(head, "tied", False) else ""
    if not name:
        return ()
    table = model.state_dict()["embed_tokens.weight"]
    return (
        TensorFact(
            name=name,
            published=(),
            file="",
            stored="",
            stored_bytes=0,
            dtype=format_name(table.dtype),
            shape=tuple(table.shape),
            size_bytes=0,
            part="head",
            way="tied",
            note="is embed_tokens.weight",
        ),
    )
