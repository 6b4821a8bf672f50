"""``chainrule doctor``: what this machine has, and whether training works on it."""

import math
import os
import platform
import shutil
import sys
from argparse import ArgumentParser, Namespace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from chainrule.cli import options

if TYPE_CHECKING:
    import torch

PACKAGES = ("torch", "numpy", "safetensors", "tokenizers", "jinja2", "pyyaml", "pyarrow", "transformers")


def arguments(parser: ArgumentParser) -> None:
    """What the verb takes."""
    options.as_json(parser)


def run(args: Namespace) -> int:
    """Look, check, print; 1 where a check fails."""
    found = {**machine(), **checks()}
    if args.json:
        options.dump(found)
    else:
        for name, value in found.items():
            print(f"{name:<24} {value}")
    return 0 if found["step-0 loss is ln V"] and found["one batch is learned"] else 1


def machine() -> dict[str, Any]:
    """Python, packages, processor, memory, accelerators."""
    import torch

    from chainrule.core.device import cpu_features, cpu_threads, fast_bf16, pick_device

    device = pick_device()
    found: dict[str, Any] = {"python": sys.version.split()[0], "system": f"{platform.system()} {platform.machine()}"}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    features = cpu_features()
    found["cpu cores"] = cpu_threads()
    found["cpu features"] = ", ".join(sorted(features)) or "none of those that matter here"
    found["AMX"] = "yes" if "amx_bf16" in features else "no"
    if hasattr(os, "sysconf"):
        found["memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.1f} GB"
    found["disk free here"] = f"{shutil.disk_usage('.').free / 1e9:.1f} GB"
    found["CUDA"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "no"
    found["MPS"] = "yes" if torch.backends.mps.is_available() else "no"
    found["device chosen"] = str(device)
    found["bf16 in hardware"] = f"yes, on {device}" if fast_bf16(device) else f"no, not on {device} (training will use fp32)"
    return found | {f"{name} matmul": f"{rate:,.0f} GFLOP/s on {device}" for name, rate in rates(device).items()}


def rates(device: "torch.device") -> dict[str, float]:
    """Matrix products a second measured on a device, by number format, in GFLOP; they grow until one can be timed.

    A processor without bf16 is so slow at it that the usual size would take many seconds.
    """
    import torch

    from chainrule.core.device import DTYPES, fast_bf16
    from chainrule.eval.stopwatch import seconds_of

    formats = ("fp32", "bf16") if device.type == "cpu" or fast_bf16(device) else ("fp32",)
    largest = 1024 if device.type == "cpu" else 4096
    found: dict[str, float] = {}
    for name in formats:
        n, seconds = 128, 0.0
        while n < largest and seconds < 0.02:
            n *= 2
            a = torch.ones(n, n, dtype=DTYPES[name], device=device)
            seconds = seconds_of(partial(torch.mm, a, a), where=device)
        found[name] = 2 * n**3 / seconds / 1e9
    return found


def checks() -> dict[str, Any]:
    """A fresh model knows nothing (its loss is ln V), and can learn one batch by heart."""
    from chainrule.core.device import pick_device
    from chainrule.train.selfcheck import overfit

    first, last, size = overfit(device=pick_device())
    return {
        "step-0 loss": f"{first:.4f} (ln {size} = {math.log(size):.4f})",
        "loss of one batch after": f"{last:.4f}",
        "step-0 loss is ln V": abs(first - math.log(size)) < 0.05,
        "one batch is learned": last < 0.1,
    }
