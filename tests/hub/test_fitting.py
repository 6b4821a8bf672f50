"""A model and its tokenizer: how many ids each has, which of them begins a text, and whose file lies beside whose."""

import json

import pytest
import torch

import chainrule as cr
from chainrule.core.errors import CheckpointError
from chainrule.hub.export import export
from chainrule.hub.load import load
from chainrule.models.decoder import Decoder, DecoderConfig
from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.fast import LibraryTokenizer
from chainrule.tokenizers.llama2c import Llama2cTokenizer

N = 265
"""How many ids a model here scores."""


def decoder(vocab_size):
    config = DecoderConfig.uniform(
        n_layers=1, d_model=16, n_heads=2, n_kv_heads=2, d_ff=32, vocab_size=vocab_size, context=64, tied=True
    )
    model = Decoder(config)
    model.init(torch.Generator().manual_seed(0))
    return model


def longer(special):
    """A tokenizer with one more token, whose id comes last."""
    tokenizer = BPE.train(["the cat sat on the mat"], 265, pattern="gpt2", specials=("<|endoftext|>",)).fast()
    source = json.loads(tokenizer.source)
    source["added_tokens"].append(source["added_tokens"][0] | {"id": N, "content": "<picture>", "special": special})
    return LibraryTokenizer(json.dumps(source), bos=0, eos=(0,))


def test_a_special_token_beyond_the_table_is_told_and_another_one_refused(tmp_path, capsys):
    cr.LM(decoder(N), longer(True)).save(tmp_path / "out")
    lm = load(tmp_path / "out", device="cpu")
    assert (lm.tokenizer.vocab_size, lm.model.vocab_size) == (N + 1, N)
    assert f"scores {N} ids and knows no <picture>" in capsys.readouterr().err
    export(lm, tmp_path / "x.gguf", to="gguf", kind="f32")
    assert load(tmp_path / "x.gguf", device="cpu").tokenizer.vocab_size == N
    longer(False).save(tmp_path / "out")
    with pytest.raises(CheckpointError, match=f"the tokenizer has {N + 1} ids but the model scores {N}"):
        load(tmp_path / "out", device="cpu")
    tokenizer = longer(True)
    tokenizer.eos = (N,)
    tokenizer.save(tmp_path / "out")
    with pytest.raises(CheckpointError, match="do not belong together"):
        load(tmp_path / "out", device="cpu")


def test_a_saved_config_keeps_the_bos_that_came_where_the_tokenizer_puts_none(tmp_path):
    tokenizer = BPE.train(["the cat sat on the mat"], 270, pattern="gpt2", specials=("<|endoftext|>", "<|im_end|>")).fast()
    lm = cr.LM(decoder(270), tokenizer)
    lm.save(tmp_path / "in")
    for name in ("config.json", "generation_config.json"):
        file = tmp_path / "in" / name
        file.write_text(json.dumps(json.loads(file.read_text()) | {"bos_token_id": 1, "torch_dtype": "bfloat16"}))
    config = json.loads((tmp_path / "in" / "tokenizer_config.json").read_text())
    (tmp_path / "in" / "tokenizer_config.json").write_text(json.dumps(config | {"add_bos_token": False}))
    load(tmp_path / "in", device="cpu").save(tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (saved["bos_token_id"], saved["eos_token_id"], saved["dtype"]) == (1, 0, "float32")
    assert "torch_dtype" not in saved
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["bos_token_id"] == 1


# llama2.c


@pytest.fixture
def stories(material, tmp_path):
    for name in ("stories260K.bin", "tok512.bin"):
        (tmp_path / name).write_bytes((material / "stories260K" / name).read_bytes())
    return tmp_path


def test_a_second_model_beside_the_first_shares_its_tokenizer(stories):
    lm = load(stories / "stories260K.bin", device="cpu")
    [note] = export(lm, stories / "small.bin", to="llama2c", kind="int8")
    assert "tok512.bin" in note
    assert not (stories / "tokenizer.bin").exists()
    for name in ("stories260K.bin", "small.bin"):
        assert load(stories / name, device="cpu").tokenizer.file() == lm.tokenizer.file()


def test_the_tokenizer_beside_a_model_is_that_with_as_many_ids(stories):
    lm = load(stories / "stories260K.bin", device="cpu")
    other = Llama2cTokenizer(lm.tokenizer.pieces[:400], lm.tokenizer.scores[:400])
    other.save(stories)
    assert load(stories / "stories260K.bin", device="cpu").tokenizer.vocab_size == 512
    (stories / "tok512.bin").unlink()
    with pytest.raises(CheckpointError, match=r"scores 512 ids, but .* \(tokenizer.bin has 400\)"):
        load(stories / "stories260K.bin", device="cpu")
    (stories / "tokenizer.bin").unlink()
    assert load(stories / "stories260K.bin", device="cpu").tokenizer is None


def test_two_tokenizers_of_one_size_are_told_apart_by_the_user(stories):
    lm = load(stories / "stories260K.bin", device="cpu")
    lm.tokenizer.save(stories)
    assert load(stories / "stories260K.bin", device="cpu").tokenizer
    Llama2cTokenizer(lm.tokenizer.pieces, lm.tokenizer.scores[::-1]).save(stories)
    with pytest.raises(CheckpointError, match=r"tok512.bin and tokenizer.bin beside it, which differ"):
        load(stories / "stories260K.bin", device="cpu")


def test_an_exported_tokenizer_replaces_no_other_one_unasked(stories):
    lm = load(stories / "stories260K.bin", device="cpu")
    (stories / "tok512.bin").unlink()
    (stories / "tokenizer.bin").write_text("another")
    with pytest.raises(CheckpointError, match=r"tokenizer\.bin exists already"):
        export(lm, stories / "small.bin", to="llama2c")
    assert not (stories / "small.bin").exists()
    export(lm, stories / "small.bin", to="llama2c", force=True)
    assert load(stories / "small.bin", device="cpu").tokenizer.vocab_size == 512
