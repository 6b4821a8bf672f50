"""Checkpoints in few bits: fp8 in blocks by hand, MXFP4 as transformers unpacks it, other packings refused."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from chainrule.adapt.int4 import in_four_bits
from chainrule.core.errors import CheckpointError
from chainrule.hub.load import load
from chainrule.models.packed import Fp8Blocks, Mxfp4, unpack_mxfp4, unpacking
from tests.models.parity import checkpoint, rewrite

SMALL = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "num_local_experts": 2, "num_experts_per_tok": 1,
}  # fmt: skip


# no width is a multiple of 128, so that the last blocks of every row and column are cut
MLA = {
    "vocab_size": 61, "hidden_size": 160, "intermediate_size": 288, "moe_intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 4, "q_lora_rank": 136, "kv_lora_rank": 64, "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16, "v_head_dim": 40, "first_k_dense_replace": 1, "n_routed_experts": 8, "n_group": 4, "topk_group": 2,
    "num_experts_per_tok": 2, "n_shared_experts": 1, "max_position_embeddings": 64,
}  # fmt: skip
M2 = {
    "vocab_size": 61, "hidden_size": 160, "intermediate_size": 224, "num_hidden_layers": 2, "num_attention_heads": 5,
    "num_key_value_heads": 1, "head_dim": 40, "num_local_experts": 4, "num_experts_per_tok": 2, "max_position_embeddings": 64,
}  # fmt: skip
FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
IN_FP8 = {
    "DeepseekV3": (MLA, {"fmt": "e4m3", "scale_fmt": "ue8m0"}),
    "MiniMaxM2": (M2, {"fmt": "float8_e4m3fn", "modules_to_not_convert": ["gate", "e_score_correction_bias", "lm_head"]}),
}
"""Families published in fp8 → a small config, and what theirs say of it besides."""
LINEAR = re.compile(r"(_proj|_proj_with_mqa|\.w[123])\.weight$")


def in_blocks(weight):
    """(the matrix in fp8, a scale a block, the matrix that the two mean), block after block."""
    n, k = weight.shape
    packed, meant = torch.empty_like(weight, dtype=torch.float8_e4m3fn), torch.empty_like(weight, dtype=torch.float32)
    scales = torch.empty(-(-n // 128), -(-k // 128))
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            block = slice(128 * i, 128 * i + 128), slice(128 * j, 128 * j + 128)
            scales[i, j] = weight[block].float().abs().max() / 448  # the largest number of e4m3
            packed[block] = (weight[block].float() / scales[i, j]).to(torch.float8_e4m3fn)
            meant[block] = packed[block].float() * scales[i, j]
    return packed, scales, meant.bfloat16()


@pytest.fixture(scope="module", params=IN_FP8)
def twice(request, tmp_path_factory):
    """A checkpoint as its family is published, and the same one with every matrix unpacked."""
    transformers = pytest.importorskip("transformers")
    settings, said = IN_FP8[request.param]
    plain, fp8 = (tmp_path_factory.mktemp(request.param) / name for name in ("plain", "fp8"))
    checkpoint(plain, getattr(transformers, request.param + "Config")(**settings), std=0.05)
    tensors = {
        name: tensor if "e_score_correction_bias" in name else tensor.bfloat16()
        for name, tensor in load_file(plain / "model.safetensors").items()
    }
    last = f"model.layers.{settings['num_hidden_layers'] - 1}."  # and a layer that predicts further tokens, behind it
    tensors |= {
        f"model.layers.{settings['num_hidden_layers']}." + name.removeprefix(last): tensor.clone()
        for name, tensor in tensors.items()
        if name.startswith(last) and request.param == "DeepseekV3"
    }
    published = dict(tensors)
    for name in filter(LINEAR.search, tensors):
        published[name], published[name + "_scale_inv"], tensors[name] = in_blocks(tensors[name])
    shutil.copytree(plain, fp8)
    save_file(tensors, plain / "model.safetensors", metadata={"format": "pt"})
    save_file(published, fp8 / "model.safetensors", metadata={"format": "pt"})
    rewrite(plain, dtype="bfloat16")
    rewrite(fp8, dtype="bfloat16", quantization_config=FP8 | said)
    whole = {name.split(".")[-2] for name, tensor in tensors.items() if tensor.ndim == 2 and not LINEAR.search(name)}
    assert whole == {"embed_tokens", "lm_head", "gate"}
    return plain, fp8


def test_fp8_in_blocks_is_the_number_times_its_block_s_scale():
    packed = torch.tensor([[1.0, 2.0, -3.0], [0.5, 4.0, 8.0]]).to(torch.float8_e4m3fn)
    scale = torch.tensor([[2.0, 0.5]])
    found = Fp8Blocks(2, 2).load({"w": packed, "w_scale_inv": scale, "other": scale})
    assert found["w"].tolist() == [[2.0, 4.0, -1.5], [1.0, 8.0, 4.0]]
    assert set(found) == {"w", "other"}
    with pytest.raises(CheckpointError, match="scales"):
        Fp8Blocks(1, 1).load({"w": packed, "w_scale_inv": scale})


def test_fp8_in_blocks_is_unpacked_as_transformers_does():
    fp8 = pytest.importorskip("transformers.integrations.finegrained_fp8")
    generator = torch.Generator().manual_seed(0)
    packed = torch.randn(3, 8, 12, generator=generator).to(torch.float8_e4m3fn)  # three experts in one tensor
    scales = torch.rand(3, 4, 3, generator=generator)
    expected = fp8.Fp8Dequantize(None)._dequantize_one(packed, scales, torch.bfloat16)
    assert torch.equal(Fp8Blocks(2, 4).load({"w": packed, "w_scale_inv": scales})["w"], expected)


@torch.no_grad()
@pytest.mark.parametrize("dtype", ["auto", "fp32", "bf16", "int4"])
def test_a_checkpoint_in_fp8_loads_as_its_unpacked_self(twice, dtype):
    plain, fp8 = (load(folder, device="cpu", dtype=dtype).model for folder in twice)
    assert {name: tensor.dtype for name, tensor in fp8.state_dict().items()} == {
        name: tensor.dtype for name, tensor in plain.state_dict().items()
    }
    tokens = torch.arange(26).view(2, 13)
    assert torch.equal(fp8(tokens), plain(tokens))
    assert bool(in_four_bits(fp8)) == (dtype == "int4")


@torch.no_grad()
def test_what_is_not_packed_joins_what_is_in_bf16(twice, tmp_path):
    tensors = load_file(twice[1] / "model.safetensors")
    wide = {name: tensor.float() if tensor.dtype == torch.bfloat16 else tensor for name, tensor in tensors.items()}
    shutil.copytree(twice[1], tmp_path / "wide")
    save_file(wide, tmp_path / "wide" / "model.safetensors", metadata={"format": "pt"})
    tokens = torch.arange(13)[None]
    plain, fp8 = (load(folder, device="cpu").model for folder in (twice[0], tmp_path / "wide"))
    assert torch.equal(fp8(tokens), plain(tokens))


@torch.no_grad()
def test_a_checkpoint_in_fp8_is_saved_unpacked(twice, tmp_path):
    lm = load(twice[1], device="cpu")
    lm.save(tmp_path / "again")
    assert "quantization_config" not in json.loads((tmp_path / "again" / "config.json").read_text())
    names = load_file(tmp_path / "again" / "model.safetensors")
    assert not any(name.endswith("_scale_inv") for name in names)
    tokens = torch.arange(13)[None]
    assert torch.equal(load(tmp_path / "again", device="cpu").model(tokens), lm.model(tokens))


@pytest.mark.parametrize("lost", ["_scale_inv", ""])
def test_half_of_a_packed_matrix_is_named(twice, lost, tmp_path):
    tensors = load_file(twice[1] / "model.safetensors")
    name = next(name for name in tensors if name.endswith("layers.1.self_attn.o_proj.weight"))
    del tensors[name + lost]
    shutil.copytree(twice[1], tmp_path / "half")
    save_file(tensors, tmp_path / "half" / "model.safetensors", metadata={"format": "pt"})
    because = f"{name} has no {name}_scale_inv beside it" if lost else r"lacks layers\.1\.self_attn\.o_proj\.weight;"
    with pytest.raises(CheckpointError, match=because):
        load(tmp_path / "half", device="cpu")


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


def test_scales_that_are_not_those_of_the_blocks_are_refused():
    packed = torch.ones(3, 3).to(torch.float8_e4m3fn)
    for scales in (torch.ones(2, 1), torch.ones(2), torch.ones(1, 2, 2)):
        with pytest.raises(CheckpointError, match="in blocks has"):
            Fp8Blocks(2, 2).load({"w": packed, "w_scale_inv": scales})
    with pytest.raises(CheckpointError, match="only matrices come in blocks"):
        Fp8Blocks(2, 2).load({"w": packed[0], "w_scale_inv": torch.ones(2)})
    with pytest.raises(CheckpointError, match=r"weight_block_size is \[128, 0\]"):
        unpacking({"quantization_config": FP8 | {"weight_block_size": [128, 0]}})


def test_other_packings_are_refused_by_name():
    with pytest.raises(CheckpointError, match="'gptq'"):
        unpacking({"quantization_config": {"quant_method": "gptq", "bits": 4}})
    with pytest.raises(CheckpointError, match=r"'fp8', which cannot be read here .*fp8 in blocks can"):
        unpacking({"quantization_config": FP8 | {"weight_block_size": None, "activation_scheme": "static"}})
    assert unpacking({}) == ()
