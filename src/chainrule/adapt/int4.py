"""Weights in four bits: 32 neighbours of a row share a scale and a zero.

    w ≈ (q − 8) · scale + zero,   q in 0 … 15,   scale = (max − min) / 15,   zero = min + 8 · scale

Round to nearest, affine, 5 bits a weight with the bf16 scale and zero (Dettmers and Zettlemoyer 2023, arXiv:2212.09720, on
why small groups at four bits). Activations stay as they are. Where torch has a CPU kernel for this very form it multiplies the
packed weights directly; everywhere else, and wherever a gradient must flow through, the matrix is unpacked and multiplied. On
the way back it is unpacked once more, for kept it would take as much as no quantization (QLoRA: Dettmers et al. 2023,
arXiv:2305.14314).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable

from chainrule.core.shapes import Float, Int, Tensor, UInt8

GROUP = 32
BYTES = 0.5 + 4 / GROUP
"""Of a weight, with its share of the group's scale and zero, two bytes each."""
ROWS = 256
"""Rows that are quantised at a time, so that little beyond the result is in memory."""


def quantize(weight: Float[Tensor, "n k"]) -> tuple[Int[Tensor, "n k"], Float[Tensor, "k/32 n 2"]]:
    """(q in 0 … 15 as int32, scale and zero as bf16) of a matrix whose width is a multiple of 32.

    >>> q, scales = quantize(torch.arange(32.0)[None])
    >>> q[0, [0, 1, 2, 31]].tolist()
    [0, 0, 1, 15]
    """
    groups = weight.float().unflatten(1, (-1, GROUP))  # n k -> n k/32 32
    low, high = torch.aminmax(groups, dim=-1)
    scale = ((high - low) / 15).bfloat16()
    zero = (low + 8 * scale.float()).bfloat16()
    step = torch.where(scale == 0, 1, scale.float())  # a group of equal weights: all of it is in the zero
    # against the rounded scale and zero, so that their rounding is made good where it can be
    q = (groups - (zero.float() - 8 * scale.float())[..., None]).div_(step[..., None]).round_().clamp_(0, 15)
    return q.flatten(1).int(), torch.stack([scale, zero], -1).transpose(0, 1).contiguous()


def dequantize(q: Int[Tensor, "n k"], scales: Float[Tensor, "k/32 n 2"]) -> Float[Tensor, "n k"]:
    """The matrix that the codes mean, in float32."""
    scale, zero = scales.float().transpose(0, 1).unbind(-1)  # n k/32 each
    groups = q.unflatten(1, (-1, GROUP))
    return ((groups - 8) * scale[..., None] + zero[..., None]).flatten(1)


def pack(q: Int[Tensor, "n k"]) -> UInt8[Tensor, "n k/2"]:
    """Two codes a byte, the first of a pair in the low half."""
    q = q.to(torch.uint8)
    return q[:, ::2] | q[:, 1::2] << 4


def unpack(packed: UInt8[Tensor, "n p"]) -> Int[Tensor, "n 2*p"]:
    """The inverse of ``pack``."""
    return torch.stack([packed & 15, packed >> 4], -1).flatten(1).int()


class Int4Linear(nn.Module):
    """y = x Wᵀ (+ bias) with W in four bits; ``kernel`` says whether ``packed`` is in the layout of torch's CPU kernel."""

    def __init__(
        self,
        packed: UInt8[Tensor, "n p"],
        scales: Float[Tensor, "p/16 n 2"],
        bias: nn.Parameter | None = None,
        *,
        kernel: bool = False,
    ) -> None:
        super().__init__()
        self.out_features, self.in_features = packed.shape[0], 2 * packed.shape[1]
        self.kernel = kernel
        self.register_buffer("packed", packed)
        self.register_buffer("scales", scales)
        self.bias = bias

    packed: Tensor
    scales: Tensor

    @classmethod
    def of(cls, weight: Float[Tensor, "n k"], bias: nn.Parameter | None = None, *, kernel: bool | None = None) -> "Int4Linear":
        """A matrix in four bits, a block of rows at a time; ``kernel`` None takes torch's where it exists."""
        n, k = weight.shape
        kernel = has_kernel(n, k, weight.device) if kernel is None else kernel
        packed = torch.empty(n, k // 2, dtype=torch.uint8, device=weight.device)
        scales = torch.empty(k // GROUP, n, 2, dtype=torch.bfloat16, device=weight.device)
        for rows in (slice(first, first + ROWS) for first in range(0, n, ROWS)):
            q, scales[:, rows] = quantize(weight[rows])
            packed[rows] = torch.ops.aten._convert_weight_to_int4pack_for_cpu(q, 1) if kernel else pack(q)
        return cls(packed, scales, bias, kernel=kernel)

    @property
    def weight(self) -> Float[Tensor, "n k"]:
        """The matrix that is multiplied by, in float32."""
        if not self.kernel:
            return dequantize(unpack(self.packed), self.scales)
        # the kernel's layout depends on the processor: let it multiply the identity
        eye = torch.eye(self.in_features, dtype=torch.float32)
        return torch.ops.aten._weight_int4pack_mm_for_cpu(eye, self.packed, GROUP, self.scales.float()).mT

    def forward(self, x: Float[Tensor, "*b k"]) -> Float[Tensor, "*b n"]:
        if torch.is_grad_enabled() and x.requires_grad:
            y = _Unpacked.apply(x, self)
            return y if self.bias is None else y + self.bias
        if not self.kernel:
            return F.linear(x, self.weight.to(x.dtype), self.bias)
        rows = x.flatten(0, -2).contiguous()
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.packed, GROUP, self.scales.to(x.dtype))
        y = y.unflatten(0, x.shape[:-1])
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        how = "packed for the CPU kernel" if self.kernel else "unpacked to multiply"
        return f"{self.in_features} → {self.out_features}, {how}"


class _Unpacked(torch.autograd.Function):
    """x Wᵀ, with W unpacked anew on the way back; differentiable once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: Int4Linear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.weight.to(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad @ ctx.layer.weight.to(grad.dtype), None


class Int4Stack(nn.Module):
    """As many matrices of one shape, such as those of a mixture's experts; ``stack[i]`` is one of them, as a layer."""

    def __init__(self, packed: UInt8[Tensor, "e n p"], scales: Float[Tensor, "e g n two"], *, kernel: bool = False) -> None:
        super().__init__()
        self.kernel = kernel
        self.register_buffer("packed", packed)
        self.register_buffer("scales", scales)

    packed: Tensor
    scales: Tensor

    @classmethod
    def of(cls, weights: Float[Tensor, "e n k"], *, kernel: bool | None = None) -> "Int4Stack":
        """Matrices in four bits, one after the other; ``kernel`` as for ``Int4Linear``."""
        e, n, k = weights.shape
        kernel = has_kernel(n, k, weights.device) if kernel is None else kernel
        packed = torch.empty(e, n, k // 2, dtype=torch.uint8, device=weights.device)
        scales = torch.empty(e, k // GROUP, n, 2, dtype=torch.bfloat16, device=weights.device)
        for i, weight in enumerate(weights):
            one = Int4Linear.of(weight, kernel=kernel)
            packed[i], scales[i] = one.packed, one.scales
        return cls(packed, scales, kernel=kernel)

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, i: int) -> Int4Linear:
        return Int4Linear(self.packed[i], self.scales[i], kernel=self.kernel)

    def extra_repr(self) -> str:
        e, n, half = self.packed.shape
        return f"{e} matrices {2 * half} → {n}, {'packed for the CPU kernel' if self.kernel else 'unpacked to multiply'}"


def in_four_bits(model: nn.Module) -> list[str]:
    """The names of the layers of a model that lie in four bits."""
    return [name for name, layer in model.named_modules() if isinstance(layer, Int4Linear | Int4Stack)]


def has_kernel(n: int, k: int, device: torch.device) -> bool:
    """Whether torch has a kernel for an ``n`` by ``k`` matrix there; it wants rows in blocks of 64."""
    names = ("_convert_weight_to_int4pack_for_cpu", "_weight_int4pack_mm_for_cpu")
    found = all(torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "CPU") for name in names)
    return found and device.type == "cpu" and n % 64 == 0 and k % GROUP == 0
