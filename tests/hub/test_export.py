"""llama2.c's and llm.c's files, ollama's Modelfile, and the verb that writes them all."""

import json
import struct

import numpy as np
import pytest
import torch

import chainrule as cr
from chainrule.cli import main
from chainrule.core.errors import CheckpointError, ConfigError
from chainrule.hub.export import export
from chainrule.hub.gguf.tables import ARCH_OF
from chainrule.hub.llama2c import quantize
from chainrule.hub.llmc import read_llmc
from chainrule.hub.load import load
from chainrule.hub.modelfile import modelfile
from chainrule.models.families import FAMILIES
from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.chat import CHATML, IM_END, IM_START, ChatTemplate
from tests.hub.gguf_cases import published

SMALL = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 32,
}
UNWRITTEN = {
    "T5": (
        {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2},
        "T5ForConditionalGeneration",
        "of type 't5', only of",
    ),
    "Bert": (SMALL, "BertForMaskedLM", "is an encoder"),
}


@pytest.fixture(scope="module")
def stories(material):
    return cr.load(material / "stories260K" / "stories260K.bin")


@torch.no_grad()
def logits(lm) -> torch.Tensor:
    return lm.model(torch.randint(lm.model.vocab_size, (2, 20), generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("name", UNWRITTEN)
def test_what_goes_into_no_gguf_is_refused(name, tmp_path, capsys):
    """The families of which docs/chapters/12-files.md says so."""
    transformers = pytest.importorskip("transformers")
    assert set(FAMILIES) - set(ARCH_OF) == {"t5", "bert"}
    config, model, because = UNWRITTEN[name]
    getattr(transformers, model)(getattr(transformers, f"{name}Config")(vocab_size=50, **config)).save_pretrained(tmp_path)
    assert main(["export", str(tmp_path), str(tmp_path / "out.gguf"), "--device", "cpu"]) == 2
    assert because in capsys.readouterr().err
    assert not (tmp_path / "out.gguf").exists()


def test_an_encoder_goes_into_a_folder_alone(tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=50, **SMALL))
    theirs.save_pretrained(tmp_path / "bert")
    assert main(["export", str(tmp_path / "bert"), str(tmp_path / "out"), "--device", "cpu"]) == 0
    back = transformers.BertForMaskedLM.from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(tensor, back[name]) for name, tensor in theirs.state_dict().items())
    lm = load(str(tmp_path / "out"), device="cpu")
    with pytest.raises(CheckpointError, match="an encoder, which nothing that reads gguf runs"):
        export(lm, tmp_path / "out.gguf", to="gguf")


# llama2.c


def test_a_group_of_int8_by_hand():
    """max |w| = 1.27 makes the scale 0.01; a group of zeros stays one."""
    q, scale = quantize(torch.tensor([[0.5, -1.27, 0.0, 0.0]]), 2)
    assert q.tolist() == [[50, -127], [0, 0]]
    assert scale.tolist() == pytest.approx([0.01, 0.0])


def test_stories260k_is_written_back_to_the_last_byte_but_ropes_tables(stories, material, tmp_path):
    export(stories, tmp_path / "s.bin", to="llama2c")
    ours, theirs = (
        np.frombuffer(path.read_bytes()[28:], "<f4")
        for path in (tmp_path / "s.bin", material / "stories260K" / "stories260K.bin")
    )
    tables = 512 * 8  # 512 places, 4 cosines and 4 sines each: the last numbers of a file with a tied readout
    assert np.array_equal(ours[:-tables], theirs[:-tables])
    np.testing.assert_allclose(ours[-tables:], theirs[-tables:], atol=2e-4)
    assert (tmp_path / "tokenizer.bin").read_bytes() == (material / "stories260K" / "tok512.bin").read_bytes()


@pytest.mark.parametrize("tied", [True, False])
def test_int8_comes_back_within_half_a_step(tied, tmp_path):
    published("llama", tmp_path / "hf", rms_norm_eps=1e-5, tie_word_embeddings=tied)
    lm = cr.load(tmp_path / "hf")
    export(lm, tmp_path / "x.bin", to="llama2c", kind="int8")
    back = cr.load(tmp_path / "x.bin")
    assert back.model.config.tied == tied
    for (name, w), v in zip(lm.model.state_dict().items(), back.model.state_dict().values(), strict=True):
        group = w.reshape(-1, 32).abs().amax(1, keepdim=True) / 127 if w.ndim == 2 else torch.zeros(1)
        assert ((w.reshape(-1, 32) - v.reshape(-1, 32)).abs() <= 0.501 * group + 1e-7).all(), name
    export(lm, tmp_path / "y.bin", to="llama2c", kind="f32")
    assert torch.equal(logits(cr.load(tmp_path / "y.bin")), logits(lm))


def spelled_out(w: dict[str, np.ndarray], tied: bool) -> tuple[bytes, dict[str, np.ndarray]]:
    """A file of version 2 as llama2.c's export.py and runq.c have it, of a model of width 64; and what its weights say.

    256 bytes of header, the norms, then of every matrix the int8 numbers and the scales of 64 neighbours each.
    """
    head = struct.pack("<Ii7iBi", 0x616B3432, 2, 64, 128, 2, 4, 2, 320, 64, tied, 64)
    parts, meant = [head.ljust(256, b"\0")], {}
    layers = [f"model.layers.{i}" for i in range(2)]
    norms = [f"{layer}.{name}_layernorm" for name in ("input", "post_attention") for layer in layers] + ["model.norm"]
    for name in norms:
        parts.append(w[f"{name}.weight"].tobytes())
        meant[f"{name}.weight"] = w[f"{name}.weight"]
    wq, wk, wv, wo, w1, w2, w3 = (
        [f"{layer}.{name}_proj" for layer in layers]
        for name in ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.down", "mlp.up")
    )
    for name in ["model.embed_tokens", *wq, *wk, *wv, *wo, *w1, *w2, *w3, *([] if tied else ["lm_head"])]:
        matrix = w[f"{name}.weight"]
        # of a head's 16 rows the published halves are paired with each other: 0, 8, 1, 9, …
        turned = (
            np.arange(len(matrix)).reshape(-1, 2, 8).transpose(0, 2, 1).ravel() if name in wq + wk else np.arange(len(matrix))
        )
        groups = matrix[turned].reshape(-1, 64)
        scale = np.abs(groups).max(1, keepdims=True) / np.float32(127)
        q = np.rint(groups / scale)
        parts += [q.astype("i1").tobytes(), scale.astype("<f4").tobytes()]
        meant[f"{name}.weight"] = np.empty_like(matrix)
        meant[f"{name}.weight"][turned] = (q * scale).reshape(matrix.shape)
    return b"".join(parts), meant


@pytest.mark.parametrize("tied", [True, False])
def test_an_int8_file_that_is_spelled_out_by_hand_is_written_and_read(tied, tmp_path):
    theirs = published("llama", tmp_path / "hf", rms_norm_eps=1e-5, tie_word_embeddings=tied, intermediate_size=128)
    data, meant = spelled_out({name: tensor.numpy() for name, tensor in theirs.state_dict().items()}, tied)
    export(cr.load(tmp_path / "hf"), tmp_path / "ours.bin", to="llama2c", kind="int8")
    assert (tmp_path / "ours.bin").read_bytes() == data
    (tmp_path / "theirs.bin").write_bytes(data)
    found = cr.load(tmp_path / "theirs.bin").model.state_dict()
    assert len(found) == len(meant)
    for name, wanted in meant.items():
        assert np.array_equal(found[name.removeprefix("model.")].numpy(), wanted), name


def test_the_header_of_an_int8_file_is_llama2_cs(stories, tmp_path):
    """Its hidden width 172 is no multiple of 64, so that groups shrink until they divide the rows: to 4."""
    export(stories, tmp_path / "s.bin", to="llama2c", kind="int8")
    data = (tmp_path / "s.bin").read_bytes()
    assert struct.unpack_from("<Ii7iBi", data) == (0x616B3432, 2, 64, 172, 5, 8, 4, 512, 512, 1, 4)


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("llama", {}, "norm.eps is 1e-06, and there it is always 1e-05"),
        ("llama-wide-heads", {"rms_norm_eps": 1e-5}, "d_head is 32, and there it is always 16"),
        ("llama3-rope", {}, "position.*, and there it is always"),
    ],
)
def test_what_llama2_c_takes_for_granted_otherwise_is_refused(name, more, message, tmp_path):
    published(name, tmp_path / "hf", **more)
    with pytest.raises(CheckpointError, match=message):
        export(cr.load(tmp_path / "hf"), tmp_path / "x.bin", to="llama2c")
    assert not (tmp_path / "x.bin").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:100], "too short"),
        (lambda data: data[:-1], "but its header asks for"),
        (lambda data: data[:4] + struct.pack("<i", 1) + data[8:], "version 1; only 0"),
        (lambda data: data[:37] + struct.pack("<i", 7) + data[41:], "groups of 7 weights"),
        (lambda data: data[:8] + struct.pack("<i", -5) + data[12:], "no llama2.c file"),
    ],
)
def test_a_damaged_int8_file_is_refused(change, message, stories, tmp_path):
    export(stories, tmp_path / "s.bin", to="llama2c", kind="int8")
    (tmp_path / "bad.bin").write_bytes(change((tmp_path / "s.bin").read_bytes()))
    with pytest.raises(CheckpointError, match=message):
        cr.load(tmp_path / "bad.bin")


# llm.c


@pytest.fixture
def gpt2(tmp_path):
    published("gpt2", tmp_path / "hf")
    return cr.load(tmp_path / "hf")


@pytest.mark.parametrize("kind", ["f32", "bf16"])
def test_gpt2_in_llm_cs_file_comes_back(kind, gpt2, tmp_path):
    export(gpt2, tmp_path / "g.bin", to="llmc", kind=kind)
    back = cr.load(tmp_path / "g.bin")
    if kind == "f32":
        assert torch.equal(logits(back), logits(gpt2))
    for w, v in zip(gpt2.model.state_dict().values(), back.model.state_dict().values(), strict=True):
        assert torch.equal(w.to(v.dtype), v)


def test_the_layout_of_llm_cs_file(gpt2, tmp_path):
    """The header's eight numbers, 320 tokens padded to 384, and the first matrix the way nn.Linear has it: out in."""
    export(gpt2, tmp_path / "g.bin", to="llmc")
    data = (tmp_path / "g.bin").read_bytes()
    assert struct.unpack_from("<8i", data) == (20240326, 3, 64, 320, 2, 4, 64, 384)
    numbers = np.frombuffer(data[1024:], "<f4")
    at = (384 + 64) * 64 + 2 * 64 + 2 * 64  # tables of tokens and places, ln_1 of both layers
    q = gpt2.model.state_dict()["layers.0.self_attn.q_proj.weight"]
    np.testing.assert_array_equal(numbers[at : at + 64 * 64].reshape(64, 64), q.numpy())
    assert not numbers[320 * 64 : 384 * 64].any()
    n = 384 * 64 + 64 * 64 + 2 * (12 * 64 * 64 + 13 * 64) + 2 * 64
    assert len(numbers) == n


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:500], "too short"),
        (lambda data: data + b"\0", "but its header asks for"),
        (lambda data: data[:4] + struct.pack("<i", 2) + data[8:], "version 2; only 3"),
        (lambda data: data[:20] + struct.pack("<i", 5) + data[24:], "no llm.c GPT-2"),
        (lambda data: data[:16] + struct.pack("<i", 2**30) + data[20:], "no llm.c GPT-2"),
    ],
)
def test_a_damaged_llm_c_file_is_refused(change, message, gpt2, tmp_path):
    export(gpt2, tmp_path / "g.bin", to="llmc")
    (tmp_path / "bad.bin").write_bytes(change((tmp_path / "g.bin").read_bytes()))
    with pytest.raises(CheckpointError, match=message):
        read_llmc(tmp_path / "bad.bin")


def test_llm_c_takes_gpt2_alone(stories, tmp_path):
    with pytest.raises(CheckpointError, match="holds GPT-2 alone"):
        export(stories, tmp_path / "x.bin", to="llmc")
    published("gpt2", tmp_path / "hf", n_inner=96)
    with pytest.raises(CheckpointError, match="n_inner is 96, and there it is always 256"):
        export(cr.load(tmp_path / "hf"), tmp_path / "x.bin", to="llmc")
    published("gpt2", tmp_path / "scaled", scale_attn_by_inverse_layer_idx=True)
    with pytest.raises(CheckpointError, match="scale_attn_by_inverse_layer_idx is True, and there it is always False"):
        export(cr.load(tmp_path / "scaled"), tmp_path / "x.bin", to="llmc")


# ollama


@pytest.fixture(scope="module")
def tokenizer():
    return BPE.train(["the cat sat on the mat"], 270, pattern="gpt2", specials=("<|endoftext|>", IM_START, IM_END))


def test_a_modelfile_of_a_chatml_model(stories, tokenizer, tmp_path):
    lm = cr.LM(stories.model, tokenizer, ChatTemplate(CHATML, tokenizer))
    text, note = modelfile(lm, tmp_path / "x.gguf")
    assert note is None
    assert text == (
        'FROM ./x.gguf\nTEMPLATE """{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n'
        '{{ end }}<|im_start|>assistant\n"""\nPARAMETER stop "<|im_end|>"\nPARAMETER stop "<|endoftext|>"\nPARAMETER num_ctx 512\n'
    )


def test_another_template_is_left_to_the_gguf_and_told(stories, tokenizer, tmp_path):
    lm = cr.LM(stories.model, tokenizer, ChatTemplate("{{ messages[0].content }}", tokenizer))
    text, note = modelfile(lm, tmp_path / "x.gguf")
    assert "TEMPLATE" not in text
    assert "is not ChatML" in note


@pytest.mark.parametrize(("name", "chatml"), [("Qwen-Qwen2.5-7B-Instruct", False), ("meta-llama-Llama-3.1-8B-Instruct", False)])
def test_published_templates_are_known_by_what_they_render(name, chatml, stories, tokenizer, material, tmp_path):
    """Qwen2.5's is ChatML but for the system message it puts where none is given, which a translation would lose."""
    source = (material / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")
    template = ChatTemplate(source, tokenizer, {"strftime_now": lambda form: "26 Jul 2024"})
    assert ("TEMPLATE" in modelfile(cr.LM(stories.model, tokenizer, template), tmp_path / "x.gguf")[0]) == chatml


# the verb


def test_the_verb_writes_every_format_and_says_so(material, tmp_path, capsys, monkeypatch):
    model = str(material / "stories260K" / "stories260K.bin")
    monkeypatch.chdir(tmp_path)
    assert main(["export", model, "a.gguf", "--type", "Q4_K", "--modelfile", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["format"] == "gguf"
    assert told["size_bytes"] == (tmp_path / "a.gguf").stat().st_size
    assert (tmp_path / "Modelfile").read_text().startswith("FROM ./a.gguf\n")
    assert main(["export", model, "b.bin", "--type", "int8"]) == 0
    assert main(["export", model, "folder"]) == 0
    assert {path.name for path in (tmp_path / "folder").iterdir()} >= {"config.json", "model.safetensors"}
    assert main(["score", "a.gguf", "Once upon a time"]) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x.gguf", "--type", "q5"], "no type|does not suit"),
        (["x.bin", "--modelfile"], r"modelfile=True \(--modelfile\) goes with gguf"),
        (["x.gguf", "--to", "llmc"], "llm.c holds GPT-2 alone"),
        (["."], "has no name"),
        (["mine"], "exists already"),
    ],
)
def test_a_wrong_wish_exits_with_two_and_says_what_would_be_right(words, message, material, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").write_text("mine")
    assert main(["export", str(material / "stories260K" / "stories260K.bin"), *words]) == 2
    import re

    assert re.search(message, capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("size", ["inf", "nan", "0", "-1", "1e300"])
def test_a_size_that_no_file_has_is_refused_before_the_model_is_looked_for(size, tmp_path, capsys):
    assert main(["export", "runs/nothing", str(tmp_path / "out"), "--shard-gb", size]) == 2
    assert "is no size of a file; give a number of GB above 0, such as 5" in capsys.readouterr().err
    for words, because in (
        (["x.bin", "--shard-gb", "1"], "shard_gb=1 (--shard-gb) is about a folder"),
        (["x.gguf", "--type", "q5"], "does not suit"),
    ):
        assert main(["export", "runs/nothing", *words]) == 2
        assert because in capsys.readouterr().err


def test_a_format_without_types_takes_none(stories, tmp_path):
    with pytest.raises(ConfigError, match="the weights stay as they are"):
        export(stories, tmp_path / "x", to="hf", kind="f16")


@pytest.mark.parametrize(("to", "out"), [("hf", "out"), ("gguf", "x.gguf"), ("llama2c", "x.bin"), ("llmc", "y.bin")])
def test_a_model_in_four_bits_is_written_in_no_format(to, out, tmp_path, capsys):
    """Its matrices are codes and scales by then, which no other program knows by those names."""
    published("gpt2" if to == "llmc" else "llama", tmp_path / "hf")
    words = [str(tmp_path / "hf"), str(tmp_path / out), "--to", to, "--dtype", "int4", "--device", "cpu"]
    assert main(["export", *words]) == 2
    assert "load it in bf16 to save it (--dtype bf16)" in capsys.readouterr().err
    assert not (tmp_path / out).exists()
