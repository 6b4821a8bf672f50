"""Devices as their makers describe them: how fast they multiply, how fast they read, how much they hold.

Rates are dense (half of what is advertised with sparsity), with float32 accumulation, and peaks: real work reaches a part of
them. ``this`` is not in the table; it is measured (``eval.stopwatch``).
"""

from dataclasses import dataclass

from chainrule.core.errors import DeviceError, nearest


@dataclass(frozen=True, kw_only=True)
class Device:
    """Memory in bytes, memory and link bandwidth in bytes a second (one direction), products in FLOP a second by format."""

    name: str
    memory_bytes: float
    bandwidth: float
    link: float
    rates: dict[str, float]

    def rate(self, format: str) -> float:
        """FLOP a second in a format; raises ``DeviceError`` where its maker gives none."""
        if format not in self.rates:
            raise DeviceError(f"{self.name} has no published rate for {format}; it has {', '.join(self.rates)}")
        return self.rates[format]


GPU_H100 = {"fp32": 66.9e12, "bf16": 989.4e12, "fp16": 989.4e12, "fp8": 1978.9e12, "int8": 1978.9e12}
"""NVIDIA H100 Tensor Core GPU datasheet and architecture whitepaper, SXM5; fp32 is that of the vector units."""

DEVICES = {
    # NVIDIA H100 datasheet: 80 GB HBM3 at 3.35 TB/s, NVLink 900 GB/s both ways together
    "h100": Device(name="H100 SXM", memory_bytes=80e9, bandwidth=3.35e12, link=450e9, rates=GPU_H100),
    # NVIDIA H200 datasheet: the same processor, 141 GB HBM3e at 4.8 TB/s
    "h200": Device(name="H200 SXM", memory_bytes=141e9, bandwidth=4.8e12, link=450e9, rates=GPU_H100),
    # NVIDIA Ada GPU architecture whitepaper, appendix A: GeForce RTX 4090; PCIe 4.0 x16
    "4090": Device(
        name="RTX 4090",
        memory_bytes=24e9,
        bandwidth=1.008e12,
        link=32e9,
        rates={"fp32": 82.6e12, "bf16": 165.2e12, "fp16": 165.2e12, "fp8": 330.3e12, "int8": 660.6e12},
    ),
    # AMD Ryzen 7 7840U product page: 8 Zen 4 cores at 3.3 GHz (base), two channels of DDR5-5600, here with 16 GB; a core does
    # 32 fp32 FLOP a cycle (two 256-bit FMA), twice that in bf16 (AVX512_BF16)
    "laptop": Device(
        name="laptop (8 cores)", memory_bytes=16e9, bandwidth=89.6e9, link=1.25e9, rates={"fp32": 845e9, "bf16": 1690e9}
    ),
    # Google Cloud TPU v5e documentation: 197 TFLOP/s bf16, 394 TOP/s int8, 16 GB at 819 GB/s, 1,600 Gbit/s between chips
    "tpu-v5e": Device(name="TPU v5e", memory_bytes=16e9, bandwidth=819e9, link=200e9, rates={"bf16": 197e12, "int8": 394e12}),
}


def device(name: str) -> Device:
    """The device of that name; raises ``DeviceError`` naming the nearest."""
    if name not in DEVICES:
        raise DeviceError(f"unknown device {name!r}{nearest(name, ['this', *DEVICES])}")
    return DEVICES[name]
