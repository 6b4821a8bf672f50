"""The plan of a model on a device: what it needs, what it takes, whether it fits, and what to change where it does not.

Plain data in the end, so that the same numbers can be printed, drawn and compared with what is measured.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

from chainrule.core.errors import ConfigError
from chainrule.eval.anatomy import Anatomy, Parts
from chainrule.eval.devices import Device
from chainrule.eval.flops import flops, flops_at, formula
from chainrule.eval.memory import (
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
from chainrule.eval.roofline import PRODUCTS, decode_time, prefill_time, training_time

ROOM = 0.95
"""The share of a device's memory that is there to be filled; the rest goes to the driver and to what allocators waste."""
WAYS = ({"precision": "fp32"}, {"precision": "mixed"}, {"precision": "bf16"},
        {"precision": "bf16", "method": "lora"}, {"precision": "bf16", "method": "qlora"})  # fmt: skip
"""The ways of training that a plan compares."""
FORMATS = ("fp32", "bf16", "int8", "int4")


def plan(anatomy: Anatomy, setting: Setting, device: Device) -> dict[str, Any]:
    """Everything there is to say, as plain data.

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
    return known(anatomy, setting, device) | {
        "flops": {
            "formula": formula(anatomy, setting.length),
            "forward": per_token.forward,
            "training": per_token.training,
            "scores": per_token.scores,
            "by_part": per_token.matrices,
            "last_token": last.forward,
        },
        "cache_bytes_per_token": cache_bytes(anatomy, 1, 2.0),
        "training": [training_row(anatomy, replace(setting, **way), device) for way in WAYS],
        "inference": [inference_row(anatomy, setting, device, format) for format in FORMATS],
    }


def known(parts: Parts, setting: Setting, device: Device) -> dict[str, Any]:
    """What is known of every model, decoder or not."""
    return {
        "model": parts.name,
        "device": asdict(device),
        "setting": asdict(setting),
        "parameters": parts.parameters | {"total": parts.total, "active": parts.active},
        "tensors": parts.tensors,
        "tied": parts.tied,
        "bytes": {format: stored_bytes(parts, format) for format in FORMATS},
    }


def training_row(anatomy: Anatomy, setting: Setting, device: Device) -> dict[str, Any]:
    """One way of training: memory, seconds, bytes sent, and what to change where it does not fit."""
    memory = training_memory(anatomy, setting)
    learned = anatomy.total if setting.method == "full" else adapter_parameters(anatomy, setting)
    row: dict[str, Any] = {"way": way_of(setting), "learned": learned, "memory": asdict(memory), "fits": fits(memory, device)}
    if PRODUCTS[setting.precision] in device.rates:
        times = training_time(anatomy, setting, device)
        done = setting.tokens * flops(anatomy, setting.length).training
        row |= {"seconds": times.step, "tokens_per_second": setting.tokens * setting.ranks / times.step}
        row |= {"times": asdict(times), "flops": done}
    row["sent_bytes"] = sent_bytes(anatomy, setting)
    row["changes"] = [] if row["fits"] else list(changes(anatomy, setting, device))
    return row


def inference_row(anatomy: Anatomy, setting: Setting, device: Device, format: str) -> dict[str, Any]:
    """Weights in one format: memory, and the seconds of reading rows and of one more token each."""
    memory = inference_memory(anatomy, setting, format)
    row: dict[str, Any] = {"format": format, "memory": asdict(memory), "fits": fits(memory, device)}
    if ("fp32" if format == "fp32" else "bf16") in device.rates:
        prefill = prefill_time(anatomy, setting, device, format)
        decode = decode_time(anatomy, setting, device, format)
        row |= {"prefill_seconds": prefill, "decode_seconds": decode, "tokens_per_second": setting.rows / decode}
    row["sent_bytes"] = {
        what: sent_forward(anatomy, tokens, setting.tensor, width_of(format))
        for what, tokens in (("prefill", setting.tokens), ("decode", setting.rows))
        if setting.tensor > 1
    }
    return row


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


def changes(anatomy: Anatomy, setting: Setting, device: Device) -> Iterator[dict[str, Any]]:
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
        yield {"change": what, "peak": memory.peak, "fits": fits(memory, device)}
        if fits(memory, device):
            return


def _steps(setting: Setting) -> Sequence[tuple[str, dict[str, Any]]]:
    ranks = max(setting.ranks, 8)
    return (
        ("one row at a time, gradients accumulated (micro_rows=1)", {"rows": 1, "accumulate": setting.rows > 1}),
        ("compute activations again on the way back (a third more time)", {"checkpointing": True}),
        (f"ZeRO-3 over {ranks} devices", {"ranks": ranks, "zero": 3}),
        ("LoRA: train adapters beside frozen weights", {"method": "lora" if setting.method == "full" else setting.method}),
        ("QLoRA: the frozen weights in 4 bits", {"method": "qlora"}),
        ("rows half as long", {"length": max(setting.length // 2, 1)}),
    )
