"""Text models among parts for pictures: the same logits as transformers', from both layouts of names, and saved alone."""

import json

import pytest
import torch
from torch.testing import assert_close

from chainrule.hub.build import parts
from chainrule.hub.export import export
from chainrule.hub.fresh import fresh_of_config
from chainrule.hub.load import load
from chainrule.hub.outline import named_format
from chainrule.hub.safetensors import Mapped, write_tensors

TEXT = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
EYES = {
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 28,
    "patch_size": 14,
}
TOKENS = torch.randint(3, 61, (2, 9), generator=torch.Generator().manual_seed(0))


def gemma3(transformers):
    config = transformers.Gemma3Config(
        text_config=TEXT | {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
        vision_config=EYES, mm_tokens_per_image=4, image_token_index=60, boi_token_index=59, eoi_token_index=58,
    )  # fmt: skip
    return transformers.Gemma3ForConditionalGeneration(config)


def llama4(transformers):
    more = {"intermediate_size_mlp": 40, "num_local_experts": 4, "attention_chunk_size": 6, "interleave_moe_layer_step": 2}
    eyes = EYES | {"vision_output_dim": 16, "projector_input_dim": 16, "projector_output_dim": 16}
    config = transformers.Llama4Config(text_config=TEXT | more, vision_config=eyes)
    return transformers.Llama4ForConditionalGeneration(config)


@pytest.fixture(params=[gemma3, llama4])
def published(request, tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = request.param(transformers).eval().float()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 and "norm" in name:
            torch.nn.init.normal_(parameter, 0.5, 0.1)
    model.save_pretrained(tmp_path / "both")
    with torch.no_grad():
        wanted = model(input_ids=TOKENS).logits
    return tmp_path / "both", wanted


def test_the_text_model_alone_is_read_and_a_note_says_so(published, tmp_path, capsys):
    folder, wanted = published
    lm = load(folder, device="cpu")
    assert "reads pictures too" in capsys.readouterr().err
    with torch.no_grad():
        assert_close(lm.model(TOKENS), wanted, atol=1e-4, rtol=1e-4)
    lm.save(tmp_path / "text")
    transformers = pytest.importorskip("transformers")
    alone = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "text").eval()
    assert alone.config.model_type.endswith("_text")
    assert json.loads((tmp_path / "text" / "config.json").read_text())["architectures"] == [type(alone).__name__]
    assert set(Mapped(tmp_path / "text" / "model.safetensors").slots) <= set(alone.state_dict())
    with torch.no_grad():
        assert_close(alone(TOKENS).logits, wanted, atol=1e-4, rtol=1e-4)


def test_older_names_are_read_too(published):
    folder, wanted = published
    file = Mapped(folder / "model.safetensors")

    def older(name):
        if "language_model" not in name:
            return name if name.startswith("lm_head") else name.removeprefix("model.")
        return name.replace("model.language_model.", "language_model.model.")

    tensors = {older(name): file.tensor(name).clone() for name in file.slots}
    assert any(name.startswith("language_model.model.layers.0.") for name in tensors)
    write_tensors(tensors, folder / "model.safetensors")
    with torch.no_grad():
        assert_close(load(folder, device="cpu").model(TOKENS), wanted, atol=1e-4, rtol=1e-4)


def test_what_a_published_text_config_leaves_out_is_the_familys_usual():
    transformers = pytest.importorskip("transformers")
    said = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024,
            "model_type": "gemma3_text", "rope_scaling": {"factor": 8.0, "rope_type": "linear"}}  # fmt: skip
    ours = parts({"model_type": "gemma3", "text_config": said, "vision_config": {}, "mm_tokens_per_image": 256})
    theirs = transformers.Gemma3TextConfig(**said)
    attention = ours.blocks[0].attention
    assert (ours.vocab_size, ours.context) == (theirs.vocab_size, theirs.max_position_embeddings)
    assert (attention.n_heads, attention.n_kv_heads, attention.d_head) == (8, 4, 256)
    assert [block.attention.window for block in ours.blocks] == [
        1024 if kind == "sliding_attention" else None for kind in theirs.layer_types
    ]


def test_the_number_format_is_the_text_models_own_or_that_of_the_whole():
    text = {"model_type": "gemma3_text"}
    assert named_format({"model_type": "gemma3", "text_config": text, "torch_dtype": "bfloat16"}) == torch.bfloat16
    within = {"model_type": "llama4", "text_config": {"torch_dtype": "bfloat16"}}
    assert named_format(within) == torch.bfloat16
    assert named_format({**within, "dtype": "float32"}) == torch.bfloat16
    assert named_format({"model_type": "llama4", "text_config": {"torch_dtype": None}, "dtype": "float16"}) == torch.float16
    packed = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    assert named_format({"model_type": "llama4", "text_config": packed}) == torch.bfloat16


@torch.no_grad()
def test_what_a_config_leaves_to_the_family_stands_in_the_gguf_file(tmp_path):
    """Gemma 3 4B is published without its context and the smallest number of its norms."""
    model = gemma3(pytest.importorskip("transformers"))
    model.save_pretrained(tmp_path / "both")
    path = tmp_path / "both" / "config.json"
    config = json.loads(path.read_text())
    for key in ("max_position_embeddings", "rms_norm_eps"):
        del config["text_config"][key]
    config["text_config"]["query_pre_attn_scalar"] = TEXT["head_dim"]
    path.write_text(json.dumps(config))
    lm = load(tmp_path / "both", device="cpu")
    export(lm, tmp_path / "x.gguf", to="gguf", kind="f32")
    again = load(tmp_path / "x.gguf", device="cpu")
    assert again.model.context == 131072
    assert_close(again.model(TOKENS), lm.model(TOKENS), atol=1e-4, rtol=1e-4)


def test_a_new_model_of_such_a_config_has_the_vocabulary_and_context_that_are_asked():
    config = {"model_type": "gemma3", "text_config": {**TEXT, "sliding_window": 4}}
    model = fresh_of_config(config, vocab_size=77, context=24, seed=0)
    assert (model.vocab_size, model.context) == (77, 24)
