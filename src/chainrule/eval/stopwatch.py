"""This machine, measured: how fast it multiplies and how fast it reads.

``measured`` makes a ``Device`` of the machine at hand in a second or two. Medians of several tries: others may use it too.
"""

import os
import statistics
import time
from collections.abc import Callable

import torch

from chainrule.core.device import DTYPES, fast_bf16, pick_device, settle
from chainrule.eval.devices import Device

ETHERNET = 1.25e9
"""10 Gbit/s: what is assumed between several machines like this one."""


def measured(name: str = "auto") -> Device:
    """This machine's device of that name: matrix products a second by format, memory traffic a second, memory."""
    where = pick_device(name)
    formats = ["fp32", *(["bf16"] if fast_bf16(where) else []), *(["fp16"] if where.type != "cpu" else [])]
    rates = {format: _product_rate(where, DTYPES[format]) for format in formats}
    title = torch.cuda.get_device_name(where) if where.type == "cuda" else f"this {where.type.upper()}"
    return Device(name=title, memory_bytes=_memory(where), bandwidth=_bandwidth(where), link=ETHERNET, rates=rates)


def seconds_of(work: Callable[[], object], *, tries: int = 5, where: torch.device | None = None) -> float:
    """The median time of some work, after a first try that warms up."""

    def timed() -> float:
        began = time.perf_counter()
        work()
        if where is not None:
            settle(where)
        return time.perf_counter() - began

    timed()
    return statistics.median(timed() for _ in range(tries))


def _product_rate(where: torch.device, dtype: torch.dtype) -> float:
    n = 4096 if where.type == "cuda" else 1024
    a = torch.ones(n, n, dtype=dtype, device=where)
    return 2 * n**3 / seconds_of(lambda: a @ a, where=where)


def _bandwidth(where: torch.device) -> float:
    """Bytes read and written by an addition of numbers that no cache holds."""
    a = torch.ones(64_000_000 if where.type == "cuda" else 16_000_000, device=where)
    out = torch.empty_like(a)
    return 2 * a.numel() * a.element_size() / seconds_of(lambda: torch.add(a, 1.0, out=out), where=where)


def _memory(where: torch.device) -> float:
    if where.type == "cuda":
        return float(torch.cuda.get_device_properties(where).total_memory)
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
