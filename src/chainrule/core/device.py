"""Where to compute and in which number format, by capability.

``auto`` takes CUDA, then Apple's MPS, then the CPU. A device or format that is asked for and absent is an error, never
a quiet fallback. Softmax, norms, routers, rope tables and log-probabilities stay float32 or wider in every format.
"""

import contextlib
import ctypes
import os
import platform
import re

import torch

from chainrule.core.errors import DeviceError, nearest

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SPELT = {"float32": "fp32", "float16": "fp16", "half": "fp16", "bfloat16": "bf16"}
"""How else people and libraries call these formats."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""What glibc's malloc.h calls them."""
NUMBER = re.compile(r"0|[1-9][0-9]{0,2}")
"""Which of several devices, as torch counts them."""


def format_called(name: str | torch.dtype) -> str:
    """A number format's name here, from any of its names or torch's own type.

    >>> format_called(torch.bfloat16), format_called("float32"), format_called("auto")
    ('bf16', 'fp32', 'auto')
    """
    plain = str(name).removeprefix("torch.")
    return SPELT.get(plain, plain)


def format_name(dtype: torch.dtype) -> str:
    """A number format as torch and published configs spell it.

    >>> format_name(torch.bfloat16)
    'bfloat16'
    """
    return str(dtype).removeprefix("torch.")


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """The device of that name (``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``); raises ``DeviceError`` if absent."""
    name = str(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, colon, index = name.partition(":")
    if kind not in ("cpu", "cuda", "mps"):
        raise DeviceError(f"unknown device {name!r}{nearest(kind, ['auto', 'cpu', 'cuda', 'mps'])}")
    if colon and not NUMBER.fullmatch(index):
        raise DeviceError(f"unknown device {name!r}: after the colon stands a number, as in cuda:0; or say {kind}")
    if kind == "cuda" and not torch.cuda.is_available():
        reason = "this torch was built without CUDA" if torch.version.cuda is None else "no CUDA device is visible"
        raise DeviceError(f"device {name!r} is not here: {reason}; use cpu, or run: chainrule doctor")
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise DeviceError(f"device {name!r} is not here: this machine has {torch.cuda.device_count()} CUDA devices")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(f"device {name!r} is not here: MPS needs a Mac with Apple silicon; use cpu")
    if kind != "cuda" and index not in ("", "0"):
        raise DeviceError(f"device {name!r} is not here: a machine has one {kind}; say {kind}")
    return torch.device(name)


def keep_freed_memory() -> None:
    """Have the C library keep what is freed for the next step, up to half a GB, instead of giving it back to the system.

    Else glibc returns it after each step, and the next one waits for tens of thousands of pages to be mapped and zeroed again:
    a tenth of a small model's time. No number depends on it; other C libraries are left as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_TRIM_THRESHOLD, 2**29)
        libc.mallopt(M_MMAP_THRESHOLD, 2**26)  # larger blocks are mapped one by one, so that the heap has no large holes


def settle(device: torch.device) -> None:
    """Wait until the device has done what it was told: only then does a clock say how long it took."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def pick_dtype(name: str | torch.dtype, device: torch.device) -> torch.dtype:
    """The number format for matrix work: ``fp32``, ``bf16``, ``fp16``, or ``auto`` (bf16 where it is fast)."""
    name = format_called(name)
    if name == "auto":
        return torch.bfloat16 if fast_bf16(device) else torch.float32
    if name not in DTYPES:
        raise DeviceError(f"unknown number format {name!r}{nearest(name, ['auto', *DTYPES])}")
    if name == "fp16" and device.type == "cpu":
        raise DeviceError("fp16 on a CPU is slower and less exact than bf16; use bf16 or fp32")
    return DTYPES[name]


def fast_bf16(device: torch.device) -> bool:
    """Whether the device multiplies bf16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and bool(cpu_features() & {"amx_bf16", "avx512_bf16"})


def cpu_features() -> set[str]:
    """The CPU's instruction sets that matter here (``avx2``, ``avx512f``, ``avx512_bf16``, ``amx_bf16``, ...)."""
    wanted = {"avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "asimd", "bf16"}
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith(("flags", "Features")):
                return wanted & set(line.split())
    return {"asimd"} if platform.machine() == "arm64" else set()


def cpu_threads() -> int:
    """How many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if platform.system() == "Linux" else os.cpu_count() or 1
