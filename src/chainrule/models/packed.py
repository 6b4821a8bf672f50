"""Checkpoints published in few bits, unpacked as they are loaded: fp8 in blocks, and MXFP4.

    fp8      w = q · s,      one scale s for each block of 128 × 128 weights                DeepSeek-V3, arXiv:2412.19437
    MXFP4    w = v(q) · 2^s, q four bits of sign, exponent and mantissa (e2m1), one s for 32 weights     OCP MX v1.0

They go one way: what is saved is bf16. Other packings (GPTQ, AWQ, bitsandbytes) are refused by name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from chainrule.core.errors import CheckpointError
from chainrule.core.shapes import Tensor
from chainrule.models.moves import Move, Tensors

E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""What three bits of exponent and mantissa mean; the fourth is the sign."""
FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
SCALE = "_scale_inv"
MEND = "copy the files again"
"""What the name of a matrix ends in where its scales are meant."""


@dataclass(frozen=True)
class Fp8Blocks:
    """``NAME`` in fp8 with ``NAME_scale_inv``, one scale a block; the last block of a row or column may be cut."""

    rows: int = 128
    columns: int = 128

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise CheckpointError(f"weight_block_size is {[self.rows, self.columns]}; a block has 1 row and 1 column or more")

    def load(self, tensors: Tensors) -> Tensors:
        return {name: self._unpacked(name, tensors) for name in tensors if not name.endswith(SCALE)}

    def save(self, tensors: Tensors) -> Tensors:
        return tensors

    def _unpacked(self, name: str, tensors: Tensors) -> Tensor:
        packed, scale = tensors[name], tensors.get(name + SCALE)
        if scale is None:
            if packed.dtype in FP8:  # its numbers alone would be taken for weights
                raise CheckpointError(f"{name} has no {name}{SCALE} beside it; {MEND}")
            return packed
        if packed.ndim < 2:
            raise CheckpointError(f"{name} is {tuple(packed.shape)}, but only matrices come in blocks; {MEND}")
        *stack, n, k = packed.shape
        wanted = (*stack, -(-n // self.rows), -(-k // self.columns))
        if tuple(scale.shape) != wanted:
            raise CheckpointError(
                f"{name}: {tuple(packed.shape)} in blocks has {wanted} scales, not {tuple(scale.shape)}; {MEND}"
            )
        whole = scale.float().repeat_interleave(self.rows, -2).repeat_interleave(self.columns, -1)
        return (packed.float() * whole[..., :n, :k]).to(torch.bfloat16)


@dataclass(frozen=True)
class Mxfp4:
    """``NAME_blocks`` (two weights a byte, the low half first) with ``NAME_scales``: experts as they are published."""

    def load(self, tensors: Tensors) -> Tensors:
        moved: Tensors = {}
        for name, tensor in tensors.items():
            if name.endswith("_blocks"):
                stem = name.removesuffix("_blocks")
                if stem + "_scales" not in tensors:
                    raise CheckpointError(f"{name} has no {stem}_scales beside it; {MEND}")
                # published matrices of experts stand the other way round than they multiply
                moved[stem] = unpack_mxfp4(tensor, tensors[stem + "_scales"]).mT.contiguous()
            elif not name.endswith("_scales"):
                moved[name] = tensor
        return moved

    def save(self, tensors: Tensors) -> Tensors:
        return tensors


def unpack_mxfp4(blocks: Tensor, scales: Tensor) -> Tensor:
    """Weights ``... rows groups*32`` in bf16 from blocks ``... rows groups 16`` and scales ``... rows groups``, all uint8.

    >>> unpack_mxfp4(torch.tensor([[[0x21]]], dtype=torch.uint8), torch.tensor([[128]], dtype=torch.uint8)).tolist()
    [[1.0, 2.0]]
    """
    if blocks.shape[:-1] != scales.shape:
        raise CheckpointError(
            f"MXFP4 blocks {tuple(blocks.shape)} and scales {tuple(scales.shape)} do not belong together; {MEND}"
        )
    values = torch.tensor([*E2M1, *(-value for value in E2M1)], dtype=torch.bfloat16, device=blocks.device)
    halves = torch.stack([blocks & 15, blocks >> 4], dim=-1).flatten(-2)
    weights = torch.ldexp(values[halves.int()], scales[..., None].int() - 127)
    return weights.flatten(-2).to(torch.bfloat16)


def unpacking(config: Mapping[str, Any]) -> Sequence[Move]:
    """How the tensors of a config with a ``quantization_config`` are unpacked; raises ``CheckpointError`` for other ways."""
    packing = config.get("quantization_config")
    if not packing:
        return ()
    method = packing.get("quant_method")
    if method == "mxfp4":
        return (Mxfp4(),)
    if method == "fp8" and packing.get("weight_block_size"):
        rows, columns = packing["weight_block_size"]
        return (Fp8Blocks(rows, columns),)
    raise CheckpointError(
        f"the weights are packed by {method!r}, which cannot be read here (mxfp4 and fp8 in blocks can); "
        "give the unpacked checkpoint"
    )
