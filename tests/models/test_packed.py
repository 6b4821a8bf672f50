"""Checkpoints in few bits: fp8 in blocks by hand, MXFP4 as transformers unpacks it, other packings refused."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from chainrule.core.errors import CheckpointError
from chainrule.hub.load import load
from chainrule.models.packed import Fp8Blocks, Mxfp4, unpack_mxfp4, unpacking
from tests.models.parity import checkpoint, rewrite

SMALL = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "num_local_experts": 2, "num_experts_per_tok": 1,
}  # fmt: skip


def test_fp8_in_blocks_is_the_number_times_its_block_s_scale():
    packed = torch.tensor([[1.0, 2.0, -3.0], [0.5, 4.0, 8.0]]).to(torch.float8_e4m3fn)
    scale = torch.tensor([[2.0, 0.5]])
    found = Fp8Blocks(2, 2).load({"w": packed, "w_scale_inv": scale, "other": scale})
    assert found["w"].tolist() == [[2.0, 4.0, -1.5], [1.0, 8.0, 4.0]]
    assert set(found) == {"w", "other"}
    with pytest.raises(CheckpointError, match="scales"):
        Fp8Blocks(1, 1).load({"w": packed, "w_scale_inv": scale})


def test_mxfp4_is_unpacked_as_transformers_does():
    mxfp4 = pytest.importorskip("transformers.integrations.mxfp4")
    generator = torch.Generator().manual_seed(0)
    blocks = torch.randint(256, (2, 6, 3, 16), dtype=torch.uint8, generator=generator)
    scales = torch.randint(120, 130, (2, 6, 3), dtype=torch.uint8, generator=generator)
    expected = mxfp4._convert_moe_packed_tensors(blocks, scales)
    assert torch.equal(unpack_mxfp4(blocks, scales).mT, expected)


def test_a_block_by_hand():
    low, high = 0b0011, 0b1111  # 1.5, and -6
    blocks = torch.tensor([[[low | high << 4]]], dtype=torch.uint8)
    assert unpack_mxfp4(blocks, torch.tensor([[126]], dtype=torch.uint8)).tolist() == [[0.75, -3.0]]


def test_blocks_without_scales_are_refused():
    with pytest.raises(CheckpointError, match="has no w_scales"):
        Mxfp4().load({"w_blocks": torch.zeros(1, 1, 16, dtype=torch.uint8)})


def test_a_gpt_oss_in_mxfp4_loads_as_its_unpacked_self(tmp_path):
    transformers = pytest.importorskip("transformers")
    checkpoint(tmp_path, transformers.GptOssConfig(**SMALL))
    tensors = load_file(tmp_path / "model.safetensors")
    generator = torch.Generator().manual_seed(1)
    packed = dict(tensors)
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "experts.down_proj"))]:
        e, columns, rows = tensors[name].shape
        blocks = torch.randint(256, (e, rows, columns // 32, 16), dtype=torch.uint8, generator=generator)
        scales = torch.randint(122, 126, blocks.shape[:-1], dtype=torch.uint8, generator=generator)
        tensors[name] = unpack_mxfp4(blocks, scales).mT.contiguous().float()
        packed |= {name + "_blocks": blocks, name + "_scales": scales}
        del packed[name]
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    tokens = torch.arange(9)[None]
    expected = load(tmp_path, dtype="fp32").model(tokens)
    save_file(packed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    rewrite(tmp_path, quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": []})
    lm = load(tmp_path, dtype="fp32")
    assert_close(lm.model(tokens), expected)
    lm.save(tmp_path / "again")
    assert "quantization_config" not in json.loads((tmp_path / "again" / "config.json").read_text())
    assert_close(load(tmp_path / "again").model(tokens), expected)


def test_other_packings_are_refused_by_name():
    with pytest.raises(CheckpointError, match="'gptq'"):
        unpacking({"quantization_config": {"quant_method": "gptq", "bits": 4}})
    assert unpacking({}) == ()
