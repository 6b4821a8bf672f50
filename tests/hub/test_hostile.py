"""Folders that were damaged, or made to mislead: one clear error each, and nothing outside of them is read."""

import json
import os

import pytest

from chainrule.cli import main
from chainrule.core.errors import ChainruleError, CheckpointError
from chainrule.hub.build import parts
from chainrule.hub.fresh import fresh
from chainrule.hub.load import load
from chainrule.hub.save import save
from chainrule.tokenizers.byte import ByteTokenizer

LLAMA = {
    "model_type": "llama", "vocab_size": 257, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    model = fresh(
        vocab_size=257, context=32, n_layers=1, d_model=16, n_heads=2, n_kv_heads=None, d_ff=16, rope_theta=1e4, tied=True,
        init="normal", seed=0,
    )  # fmt: skip
    save(tmp_path / "m", model, ByteTokenizer())
    return tmp_path / "m"


def changed(folder, name="config.json", **values):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    "values",
    [
        {"num_attention_heads": 0}, {"hidden_size": "64"}, {"rope_scaling": "x"}, {"rope_scaling": ["linear", 2]},
        {"rope_scaling": {"rope_type": "linear", "factor": "x"}}, {"rope_scaling": {"rope_type": "linear"}},
        {"hidden_act": ["silu"]}, {"model_type": ["llama"]}, {"hidden_size": 10**12}, {"num_hidden_layers": -1},
        {"model_type": "decoder"}, {"quantization_config": [1]}, {"rms_norm_eps": "1e-6"},
    ],
)  # fmt: skip
def test_a_config_value_of_a_wrong_kind_is_a_clear_error(folder, values, capsys):
    settings = {"rope_parameters": None} if "rope_scaling" in values else {}
    changed(folder, **settings | values)
    with pytest.raises(ChainruleError):
        load(folder, device="cpu").next("a", 1)
    for verb in (["next", str(folder), "a"], ["plan", str(folder)]):
        # a plan has no weights to unpack, and knows the price of any width
        reads = verb[0] == "next" or values not in ({"quantization_config": [1]}, {"hidden_size": 10**12})
        assert main([*verb, "--device", "cpu" if verb[0] == "next" else "h100"]) == (2 if reads else 0)
        assert "chainrule: " in capsys.readouterr().err or not reads


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer_config.json", "generation_config.json", "config.json"])
def test_a_link_out_of_the_folder_is_refused_whatever_it_stands_for(folder, tmp_path, name):
    outside = tmp_path / f"outside-{name}"
    outside.write_text((folder / name).read_text() if (folder / name).exists() else "{}")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside)
    with pytest.raises(CheckpointError, match="leads out of its folder"):
        load(folder, device="cpu")


def test_a_link_within_the_folder_is_followed(folder):
    os.rename(folder / "config.json", folder / "real.json")
    (folder / "config.json").symlink_to("real.json")
    assert load(folder, device="cpu").next("a", 1)


@pytest.mark.parametrize(
    ("model_type", "key"),
    [
        ("mistral", "sliding_window"), ("gemma2", "attn_logit_softcapping"), ("gemma2", "final_logit_softcapping"),
        ("deepseek_v3", "first_k_dense_replace"), ("deepseek_v3", "n_shared_experts"),
    ],
)  # fmt: skip
def test_a_key_that_means_another_model_where_it_is_absent_must_be_there(model_type, key):
    transformers = pytest.importorskip("transformers")
    name = {"mistral": "MistralConfig", "gemma2": "Gemma2Config", "deepseek_v3": "DeepseekV3Config"}[model_type]
    config = getattr(transformers, name)().to_dict()
    assert config[key] is not None  # what transformers takes where the key is absent
    parts(config)
    parts(config | {key: None})
    del config[key]
    with pytest.raises(CheckpointError, match=f"does not say '{key}'"):
        parts(config)


@pytest.mark.parametrize("nothing", [None, 0, False, [], {}])
def test_an_unknown_key_is_refused_unless_it_asks_for_nothing(nothing):
    parts(LLAMA | {"something_new": nothing})
    with pytest.raises(CheckpointError, match="something_new"):
        parts(LLAMA | {"something_new": 1})


def test_a_checkpoint_with_pictures_lacks_its_text_config():
    with pytest.raises(CheckpointError, match="holds no text_config"):
        parts({"model_type": "gemma3", "vision_config": {}})


def test_a_damaged_tokenizer_config_and_weights_that_are_no_file_are_refused(folder):
    held = (folder / "tokenizer_config.json").read_text()
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ChainruleError, match="holds a list"):
        load(folder, device="cpu")
    (folder / "tokenizer_config.json").write_text(held)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="holds no weights"):
        load(folder, device="cpu")


@pytest.mark.parametrize("length", [300, 5000])
def test_a_name_of_thousands_of_letters_is_no_name(length, capsys):
    with pytest.raises(CheckpointError, match=f"{length} characters long"):
        load("x" * length)
    for verb in ("plan", "explain"):
        assert main([verb, "x" * length]) == 2
    assert "chainrule: " in capsys.readouterr().err


def test_a_broken_template_is_told_with_its_line(folder):
    (folder / "chat_template.jinja").write_text("{{ messages }}\n{% if %}")
    with pytest.raises(ChainruleError, match="chat template is broken in line 2"):
        load(folder, device="cpu").template.render([{"role": "user", "content": "hi"}])
