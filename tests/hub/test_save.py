"""Saving in several files, and the model alone by its class."""

import json

import pytest
import torch

import chainrule as cr
from chainrule.cli import main
from chainrule.core.errors import CheckpointError, ConfigError
from chainrule.hub.fresh import fresh, fresh_of_config
from chainrule.hub.load import load
from chainrule.hub.safetensors import read_header
from chainrule.hub.save import save
from chainrule.models.decoder import Decoder
from chainrule.models.ngram import NGram

TOKENS = torch.randint(61, (2, 9), generator=torch.Generator().manual_seed(0))
SHARD = 20_000


def tiny():
    return fresh(
        vocab_size=61, context=32, n_layers=2, d_model=32, n_heads=4, n_kv_heads=2, d_ff=48, rope_theta=1e4, tied=False,
        init="normal", seed=0,
    )  # fmt: skip


@torch.no_grad()
def test_shards_are_read_here_and_by_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    model = tiny()
    folder = save(tmp_path / "out", model, shard_bytes=SHARD)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    files = sorted(folder.glob("*.safetensors"))
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    assert len(files) > 2
    assert not (folder / "model.safetensors").exists()
    held = {name: file.name for file in files for name in read_header(file)[0]}
    assert held == index["weight_map"]
    n = sum(parameter.numel() for parameter in model.parameters())
    assert index["metadata"] == {"total_parameters": n, "total_size": 4 * n}
    for file in files:
        slots, _ = read_header(file)
        assert len(slots) == 1 or sum(slot.end - slot.begin for slot in slots.values()) <= SHARD
    assert torch.equal(load(folder).model(TOKENS), model(TOKENS))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    torch.testing.assert_close(theirs(TOKENS).logits, model(TOKENS), atol=1e-4, rtol=1e-4)


def test_what_fits_into_one_file_has_no_index(tmp_path):
    folder = save(tmp_path / "out", tiny())
    assert [file.name for file in folder.glob("*.safetensors*")] == ["model.safetensors"]


def test_export_cuts_shards_and_refuses_them_elsewhere(tmp_path, capsys):
    folder = save(tmp_path / "in", tiny())
    out = tmp_path / "out"
    assert main(["export", str(folder), str(out), "--shard-gb", "0.00002", "--device", "cpu"]) == 0
    assert torch.equal(load(out).model(TOKENS), load(folder).model(TOKENS))
    for name, size, because in (
        ("x.bin", "1", "shard_gb=1 (--shard-gb) is about a folder, and llama2c is one file"),
        ("y", "0", "is no size of a file"),
    ):
        assert main(["export", str(folder), str(tmp_path / name), "--shard-gb", size, "--device", "cpu"]) == 2
        assert because in capsys.readouterr().err
    with pytest.raises(ConfigError, match="shard_bytes is 0"):
        save(tmp_path / "z", tiny(), shard_bytes=0)


@torch.no_grad()
def test_from_pretrained_gives_the_model_alone(tmp_path):
    model = tiny()
    folder = save(tmp_path / "out", model)
    found = cr.LanguageModel.from_pretrained(folder)
    assert type(found) is Decoder
    assert torch.equal(found(TOKENS), model(TOKENS))
    assert Decoder.from_pretrained(folder, dtype="bf16").embed_tokens.weight.dtype == torch.bfloat16
    with pytest.raises(ConfigError, match="is a Decoder, not a NGram; say Decoder or LanguageModel"):
        NGram.from_pretrained(folder)
    with pytest.raises(CheckpointError, match="does not exist here"):
        cr.LanguageModel.from_pretrained(tmp_path / "none")


def test_what_lies_in_four_bits_is_not_saved(tmp_path):
    lm = load(save(tmp_path / "in", tiny()), dtype="int4")
    with pytest.raises(CheckpointError, match=r"loaded as int4, and layers\.0\.self_attn\.q_proj has lost"):
        lm.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_new_gpt2_keeps_one_word_for_its_context(tmp_path):
    """A config that calls it ``max_position_embeddings`` would otherwise be saved with both, the old number in one of them."""
    config = {"model_type": "gpt2", "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1,
              "max_position_embeddings": 64}  # fmt: skip
    save(tmp_path / "new", fresh_of_config(config, vocab_size=77, context=24, seed=0))
    written = json.loads((tmp_path / "new" / "config.json").read_text())
    assert written["n_positions"] == 24
    assert "max_position_embeddings" not in written
