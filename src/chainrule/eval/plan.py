"""The plan of a model on a device: what it needs, what it takes, whether it fits, and what to change where it does not.

One record of numbers, ``Plan``: printed by ``eval.plan_text``, made plain data by ``core.schema.dump``, completed with what is
measured by ``eval.expected``. What is not known is None, never a number.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from chainrule.core.errors import ConfigError
from chainrule.eval.anatomy import Anatomy, Parts
from chainrule.eval.devices import Device
from chainrule.eval.flops import Flops, flops, flops_at, formula, training_flops
from chainrule.eval.memory import (
    Held,
    Memory,
    Setting,
    adapter_parameters,
    cache_bytes,
    inference_memory,
    stored_bytes,
    training_memory,
    width_of,
)
from chainrule.eval.parallel import sent_bytes, sent_forward
from chainrule.eval.roofline import PRODUCTS, Times, decode_time, prefill_time, training_time

ROOM = 0.95
"""The share of a device's memory that is there to be filled; the rest goes to the driver and to what allocators waste."""
FULL: tuple[dict[str, Any], ...] = tuple({"precision": precision, "method": "full"} for precision in ("fp32", "mixed", "bf16"))
LORA: dict[str, Any] = {"precision": "bf16", "method": "lora"}
QLORA: dict[str, Any] = {"precision": "bf16", "method": "qlora"}
WAYS = (*FULL, LORA, QLORA)
"""The ways of training that a plan compares."""
FORMATS = ("fp32", "bf16", "int8", "int4")


@dataclass(frozen=True, kw_only=True)
class TokenFlops:
    """FLOPs a token, the mean over a row; ``scores`` and the parts are those of the forward pass."""

    formula: str
    forward: float
    training: float
    """Of a step in which all weights learn."""
    training_formula: str
    adapting: float | None
    """Of a step in which adapters do; None where a model has no matrix to adapt."""
    adapting_formula: str | None
    scores: float
    by_part: Mapping[str, float]
    last_token: float | None
    """Forward, of the last token of a row alone."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One change that lowers the peak, and the peak after it and all before it."""

    change: str
    peak: float
    fits: bool


@dataclass(frozen=True, kw_only=True)
class TrainingRow:
    """One way of training, on each device. ``learned``: parameters; ``flops``: of a step."""

    way: str
    learned: float
    memory: Memory | Held
    fits: bool | None
    seconds: float | None = None
    """The least that a step takes."""
    tokens_per_second: float | None = None
    times: Times | None = None
    flops: float | None = None
    sent_bytes: Mapping[str, float]
    changes: tuple[Change, ...] = ()
    expected_seconds: float | None = None
    not_expected: str | None = None
    """Why nothing is expected, where others are timed."""


@dataclass(frozen=True, kw_only=True)
class InferenceRow:
    """Weights in one format, on each device: reading the rows (``prefill``), and one more token of each (``decode``)."""

    format: str
    memory: Memory | Held
    fits: bool | None
    prefill_seconds: float | None = None
    decode_seconds: float | None = None
    tokens_per_second: float | None = None
    sent_bytes: Mapping[str, float]
    expected_prefill_seconds: float | None = None
    expected_decode_seconds: float | None = None
    not_expected: str | None = None
    """Why nothing is expected, where others are timed."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All there is to say of a model, a setting and a device."""

    model: str
    device: Device
    setting: Setting
    parameters: Mapping[str, int]
    """By part, and ``total`` and ``active``."""
    tensors: int
    tied: bool
    bytes: Mapping[str, float]
    """Of all weights, by format."""
    flops: TokenFlops
    cache_bytes_per_token: float | None
    training: tuple[TrainingRow, ...]
    inference: tuple[InferenceRow, ...]
    unknown: str | None = None
    """What is not known of a model of this kind; None of a decoder."""
    timing_seconds: float | None = None
    """How long bricks were timed; None where none were to be."""


def plan(anatomy: Anatomy, setting: Setting, device: Device) -> Plan:
    """Everything there is to say of a decoder.

    Raises ``ConfigError`` for rows that the model cannot read, and for devices that cannot share its heads.
    """
    anatomy.check_length(setting.length)
    if uneven := [one.heads for one in anatomy.attentions if one.heads % setting.tensor]:
        raise ConfigError(
            f"tensor={setting.tensor} devices cannot share {uneven[0]} heads evenly; take a divisor of {uneven[0]}"
        )
    if crooked := [one.groups for one in anatomy.attentions if one.groups % setting.tensor and setting.tensor % one.groups]:
        raise ConfigError(
            f"tensor={setting.tensor} devices cannot share {crooked[0]} heads of keys and values evenly; take a divisor or a "
            f"multiple of {crooked[0]}"
        )
    per_token, last = flops(anatomy, setting.length), flops_at(anatomy, setting.length - 1)
    return planned(
        anatomy,
        setting,
        device,
        flops=token_flops(anatomy, setting, per_token, formula(anatomy, setting.length), last.forward),
        cache_bytes_per_token=cache_bytes(anatomy, 1, 2.0),
        training=[training_row(anatomy, replace(setting, **way), device) for way in WAYS],
        inference=[inference_row(anatomy, setting, device, format) for format in FORMATS],
    )


def planned(
    parts: Parts,
    setting: Setting,
    device: Device,
    *,
    flops: TokenFlops,
    cache_bytes_per_token: float | None,
    training: Sequence[TrainingRow],
    inference: Sequence[InferenceRow],
    unknown: str | None = None,
) -> Plan:
    """A plan of these rows, with what is known of every model, decoder or not."""
    return Plan(
        model=parts.name,
        device=device,
        setting=setting,
        parameters=parts.parameters | {"total": parts.total, "active": parts.active},
        tensors=parts.tensors,
        tied=parts.tied,
        bytes={format: stored_bytes(parts, format) for format in FORMATS},
        flops=flops,
        cache_bytes_per_token=cache_bytes_per_token,
        training=tuple(training),
        inference=tuple(inference),
        unknown=unknown,
    )


def token_flops(parts: Parts, setting: Setting, mean: Flops, formula: str, last_token: float | None) -> TokenFlops:
    """A plan's FLOPs, from those of a token in the mean over a row."""
    full = training_flops(mean, parts, replace(setting, method="full"))
    adapted = training_flops(mean, parts, replace(setting, **LORA)) if adapter_parameters(parts, setting) else None
    return TokenFlops(
        formula=formula,
        forward=mean.forward,
        training=full.total,
        training_formula=full.formula,
        adapting=None if adapted is None else adapted.total,
        adapting_formula=None if adapted is None else adapted.formula,
        scores=mean.scores,
        by_part=mean.matrices,
        last_token=last_token,
    )


def training_row(anatomy: Anatomy, setting: Setting, device: Device) -> TrainingRow:
    """One way of training: memory, seconds, bytes sent, and what to change where it does not fit."""
    memory = training_memory(anatomy, setting)
    row = TrainingRow(
        way=way_of(setting),
        learned=anatomy.total if setting.method == "full" else adapter_parameters(anatomy, setting),
        memory=memory,
        fits=fits(memory, device),
        sent_bytes=sent_bytes(anatomy, setting),
        changes=() if fits(memory, device) else tuple(changes(anatomy, setting, device)),
    )
    if PRODUCTS[setting.precision] not in device.rates:
        return row
    times = training_time(anatomy, setting, device)
    return replace(
        row,
        seconds=times.step,
        tokens_per_second=setting.step_tokens * setting.ranks / times.step,
        times=times,
        flops=setting.step_tokens * training_flops(flops(anatomy, setting.length), anatomy, setting).total,
    )


def inference_row(anatomy: Anatomy, setting: Setting, device: Device, format: str) -> InferenceRow:
    """Weights in one format: memory, and the seconds of reading rows and of one more token each."""
    memory = inference_memory(anatomy, setting, format)
    sent = {
        what: sent_forward(anatomy, tokens, setting.tensor, width_of(format))
        for what, tokens in (("prefill", setting.tokens), ("decode", setting.rows))
        if setting.tensor > 1
    }
    row = InferenceRow(format=format, memory=memory, fits=fits(memory, device), sent_bytes=sent)
    if ("fp32" if format == "fp32" else "bf16") not in device.rates:
        return row
    prefill = prefill_time(anatomy, setting, device, format)
    decode = decode_time(anatomy, setting, device, format)
    return replace(row, prefill_seconds=prefill, decode_seconds=decode, tokens_per_second=setting.rows / decode)


def fits(memory: Memory, device: Device) -> bool:
    """Whether the peak leaves the device some room."""
    return memory.peak <= ROOM * device.memory_bytes


def way_of(setting: Setting) -> str:
    """A way of training in a few words; a recipe's ``bf16`` is mixed, its ``pure_bf16`` pure (``train.precision``).

    >>> way_of(Setting(precision="bf16", method="lora"))
    'LoRA, bf16'
    """
    precision = {"mixed": "mixed bf16", "fp16": "mixed fp16"}.get(setting.precision, setting.precision)
    pure = "pure " if setting.method == "full" and setting.precision == "bf16" else ""
    name = {"full": "full", "lora": "LoRA", "qlora": "QLoRA"}[setting.method]
    return f"{name}, {pure}{precision}"


def changes(anatomy: Anatomy, setting: Setting, device: Device) -> Iterator[Change]:
    """What to change, one after the other, until it fits: first what leaves the result as it is, then what does not."""
    for what, settings in _steps(setting):
        changed = replace(setting, **settings)
        if changed == setting:
            continue
        setting, before = changed, setting
        memory = training_memory(anatomy, setting)
        if memory.peak >= training_memory(anatomy, before).peak:
            setting = before
            continue
        yield Change(change=what, peak=memory.peak, fits=fits(memory, device))
        if fits(memory, device):
            return


def _steps(setting: Setting) -> Sequence[tuple[str, dict[str, Any]]]:
    ranks, batches = max(setting.ranks, 8), setting.rows * setting.micro_batches
    return (
        ("one row at a time, gradients accumulated (micro_rows=1)", {"rows": 1, "micro_batches": batches}),
        ("compute activations again on the way back (one more forward pass)", {"checkpointing": True}),
        (f"ZeRO-3 over {ranks} devices", {"ranks": ranks, "zero": 3}),
        ("LoRA: train adapters beside frozen weights", LORA if setting.method == "full" else {}),
        ("QLoRA: the frozen weights in 4 bits", QLORA),
        ("rows half as long", {"length": max(setting.length // 2, 1)}),
    )
