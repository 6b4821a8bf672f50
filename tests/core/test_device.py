"""Number formats by capability: bf16 where the processor multiplies it, fp32 elsewhere, and what is asked for is what is used."""

import io

import pytest
import torch

from chainrule.core import device
from chainrule.core.device import cpu_features, fast_bf16, pick_dtype

CPU = torch.device("cpu")
X86 = "processor\t: 0\nmodel name\t: avx512_bf16 in a name is none\nflags\t\t: fpu sse2 {}\n\nprocessor\t: 1\nflags\t\t: fpu amx_bf16\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd {}\n"


@pytest.fixture
def cpuinfo(monkeypatch):
    """Lets a test say what Linux tells of the processor; None is a system that tells nothing."""

    def says(text: str | None) -> None:
        def opened(path: str, **how: str) -> io.StringIO:
            assert path == "/proc/cpuinfo"
            if text is None:
                raise FileNotFoundError(path)
            return io.StringIO(text)

        monkeypatch.setattr(device, "open", opened, raising=False)

    return says


@pytest.mark.parametrize(
    ("text", "features", "fast"),
    [
        (X86.format("avx2"), {"avx2"}, False),
        (X86.format("avx2 avx512f avx512_vnni"), {"avx2", "avx512f", "avx512_vnni"}, False),
        (X86.format("avx512f avx512_bf16"), {"avx512f", "avx512_bf16"}, True),
        (X86.format("avx2 amx_bf16 amx_int8"), {"avx2", "amx_bf16", "amx_int8"}, True),
        (X86.format("avx512_bf16x"), set(), False),  # another word
        (ARM.format("crc32"), {"asimd"}, False),
        ("", set(), False),
    ],
)
def test_auto_is_bf16_on_a_cpu_that_has_it_and_fp32_on_one_that_has_not(cpuinfo, monkeypatch, text, features, fast):
    monkeypatch.setattr(device.platform, "machine", lambda: "x86_64")
    cpuinfo(text)
    assert cpu_features() == features
    assert fast_bf16(CPU) is fast
    assert pick_dtype("auto", CPU) == (torch.bfloat16 if fast else torch.float32)
    assert (pick_dtype("bf16", CPU), pick_dtype("fp32", CPU)) == (torch.bfloat16, torch.float32)


def test_a_system_that_tells_nothing_of_its_cpu_computes_in_fp32(cpuinfo, monkeypatch):
    cpuinfo(None)
    for machine, features in (("x86_64", set()), ("arm64", {"asimd"})):
        monkeypatch.setattr(device.platform, "machine", lambda machine=machine: machine)
        assert cpu_features() == features
        assert pick_dtype("auto", CPU) == torch.float32


def test_the_features_of_a_cpu_say_nothing_of_another_device(cpuinfo):
    cpuinfo(X86.format("avx512_bf16 amx_bf16"))
    assert pick_dtype("auto", torch.device("mps")) == torch.float32
