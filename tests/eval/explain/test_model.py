"""Explanations: the published numbers from a config alone, every tensor's way, FLOPs as plan's, and what is refused."""

import json
import socket
from dataclasses import replace

import pytest
import torch

from chainrule.cli import main
from chainrule.core.errors import CheckpointError, ConfigError, RequestError
from chainrule.core.schema import dump
from chainrule.eval.explain.forward import pass_over
from chainrule.eval.explain.model import Asked, explain, of_config
from chainrule.eval.explain.rows import alike
from chainrule.eval.explain.text import explanation_text
from chainrule.eval.flops import flops
from chainrule.hub.build import published_config
from chainrule.hub.fresh import fresh, fresh_encoder, fresh_seq2seq, recurrent
from chainrule.hub.gguf.model import write_model
from chainrule.hub.lm import LM
from chainrule.hub.safetensors import read_header
from chainrule.hub.save import save
from chainrule.hub.shipped import SHIPPED, shipped_config
from chainrule.layers.rope import Rope
from chainrule.layers.scaling import Llama3
from chainrule.models.decoder import Decoder, DecoderConfig
from chainrule.recipes.subject import subject
from chainrule.tokenizers.byte import ByteTokenizer

LLAMA = "meta-llama/Meta-Llama-3.1-8B-Instruct"


def tiny(**more):
    return fresh(
        **({"vocab_size": 257, "context": 64, "n_layers": 3, "d_model": 64, "n_heads": 4, "n_kv_heads": 2, "d_ff": 96,
            "rope_theta": 1e4, "tied": True, "init": "normal", "seed": 0} | more)
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("explained") / "tiny", tiny(), ByteTokenizer())


@pytest.fixture(scope="module")
def told(folder):
    return explain(str(folder), device="cpu")


@pytest.fixture
def no_network(monkeypatch):
    """Any attempt to reach another machine fails the test."""

    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_llama_8b_is_told_from_its_config_alone(no_network, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    told = explain(LLAMA)
    assert told.tensors_published == 291
    assert told.parameters == 8_030_261_248
    assert round(told.size_bytes / 1e9, 2) == 16.06
    assert {name for fact in told.tensors for name in fact.published} >= {
        "lm_head.weight", "model.embed_tokens.weight", "model.layers.31.self_attn.k_proj.weight"
    }  # fmt: skip
    assert told.forward is not None
    assert told.forward.tokens == 4096
    assert told.forward.seen[-1].shape == (1, 4096, 128256)
    assert not told.forward.likeliest
    assert any("weights: none are here" in line for line in told.unknown)
    text = explanation_text(told)
    assert "291 tensors, 8,030,261,248 parameters, 16.06\u202fGB in bfloat16" in text
    assert "layers 0–31    RMSNorm(eps=1e-05) → GroupedQuery(n_heads=32, n_kv_heads=8, d_head=128) → +" in text


@pytest.mark.parametrize("file", SHIPPED)
def test_every_shipped_config_is_passed_over_and_its_flops_are_those_of_plan(file):
    config = shipped_config(file)
    if config.get("num_hidden_layers", 6) > 6:
        config |= {"num_hidden_layers": 6}
        for key in ("layer_types", "no_rope_layers"):
            config |= {key: config[key][:6]} if config.get(key) else {}
    told = of_config(file, config, Asked(length=64))
    assert told.forward is not None
    assert told.forward.flops is not None
    assert sum(seen.flops or 0.0 for seen in told.forward.seen) == pytest.approx(told.forward.flops, rel=1e-12)
    assert f"{told.forward.flops / 64:,.0f}" in told.forward.formula
    assert all(fact.published for fact in told.tensors if fact.way != "tied")


def test_the_flops_of_a_pass_are_those_of_plan():
    name = "meta-llama/Llama-3.2-1B"
    told = explain(name, length=1000)
    assert told.forward is not None
    assert told.forward.flops == pytest.approx(1000 * flops(subject(name).anatomy, 1000).forward, rel=1e-12)


def test_the_tensors_of_a_checkpoint_are_all_told_and_their_bytes_are_those_of_the_file(folder, told):
    slots, begin = read_header(folder / "model.safetensors")
    facts = [fact for fact in told.tensors if fact.way != "tied"]
    assert sorted(name for fact in facts for name in fact.published) == sorted(slots)
    assert sum(fact.stored_bytes for fact in facts) + begin == (folder / "model.safetensors").stat().st_size
    assert {fact.way for fact in facts} == {"mapped"}
    assert sum(group.count for group in alike(told.tensors)) == len(told.tensors)
    assert len(alike(told.tensors)) < len(told.tensors) / 2


def test_a_tied_head_is_told_as_tied(told):
    (head,) = [fact for fact in told.tensors if fact.way == "tied"]
    assert (head.name, head.note, head.size_bytes) == ("lm_head.weight", "is embed_tokens.weight", 0)
    assert told.parameters == sum(parameter.numel() for parameter in tiny().parameters())


@pytest.mark.parametrize(("dtype", "ways"), [("bf16", {"converted"}), ("int4", {"converted", "quantised"})])
def test_other_formats_come_another_way_and_the_bytes_are_those_of_the_model(folder, dtype, ways):
    from chainrule.hub.load import load, size_bytes

    told = explain(str(folder), device="cpu", dtype=dtype)
    assert {fact.way for fact in told.tensors} - {"tied"} == ways
    assert told.size_bytes == size_bytes(load(folder, device="cpu", dtype=dtype).model)
    assert told.parameters == tiny().state_dict()["embed_tokens.weight"].numel() + sum(
        tensor.numel() for name, tensor in tiny().state_dict().items() if name != "embed_tokens.weight"
    )
    assert told.forward is not None
    assert told.forward.flops == explain(str(folder), device="cpu").forward.flops


@pytest.mark.parametrize("dtype", ["bfloat16", "torch.bfloat16", torch.bfloat16])
def test_a_format_goes_by_all_names_that_a_load_takes(folder, dtype):
    assert explain(LLAMA, length=8, dtype=dtype).dtype == "bfloat16"
    assert explain(str(folder), device="cpu", length=8, dtype=dtype).dtype == "bfloat16"


def test_the_stages_follow_each_other_and_their_seconds_are_the_whole(told):
    names = [stage.name for stage in told.stages]
    assert names == [
        "resolve",
        "config",
        "build",
        "open",
        "match",
        "tensor",
        "tie",
        "tokenizer",
        "template",
        "generation",
        "device",
    ]
    assert sum(stage.seconds for stage in told.stages) == pytest.approx(told.seconds, rel=1e-9)
    assert told.stages[0].where.startswith("hub/names.py:")
    assert len(told.moments) == 1 + sum(stage.steps for stage in told.stages)
    assert told.moments[-1].weights_bytes == told.size_bytes


def test_the_pass_ends_in_the_likeliest_tokens(folder, told):
    from chainrule.hub.load import load

    lm = load(folder, device="cpu")
    ids = torch.tensor([[256, *b"Once upon a time"]])
    p = lm.model(ids)[0, -1].softmax(-1)
    assert told.forward.ids == tuple(ids[0].tolist())
    assert [value for _, value in told.forward.likeliest] == pytest.approx(p.topk(5).values.tolist(), rel=1e-5)
    assert told.forward.likeliest[0][0] == lm.tokenizer.piece(int(p.argmax()))


def test_the_seconds_of_a_pass_are_those_of_its_taps_without_what_is_written_down():
    """Between two taps the root mean square of half a million numbers is taken, which takes longer than all clocks read."""
    model, ids = tiny(context=2048, d_model=256).eval(), [i % 257 for i in range(2048)]
    passes = [pass_over(model, ids) for _ in range(5)]
    assert min(told.seconds - sum(seen.seconds for seen in told.seen) for told in passes) == pytest.approx(0, abs=2e-4)


def test_a_readout_stored_although_it_is_tied_is_told_as_left_out(folder, tmp_path):
    from chainrule.hub.safetensors import Mapped, write_tensors

    other = save(tmp_path / "copy", tiny(), ByteTokenizer())
    file = Mapped(folder / "model.safetensors")
    table = {name: file.tensor(name) for name in file.slots}
    write_tensors(table | {"lm_head.weight": table["model.embed_tokens.weight"].clone()}, other / "model.safetensors")
    told = explain(str(other), device="cpu")
    (left,) = [fact for fact in told.tensors if fact.way == "left out"]
    assert left.published == ("lm_head.weight",)
    assert "which the readout is tied to" in left.note
    _, begin = read_header(other / "model.safetensors")
    assert sum(fact.stored_bytes for fact in told.tensors) + begin == (other / "model.safetensors").stat().st_size


def test_a_gguf_is_told_with_its_blocks(tmp_path):
    path = tmp_path / "tiny.gguf"
    write_model(LM(tiny(), name="tiny"), path, "q8_0")
    told = explain(str(path), device="cpu", length=8)
    matrices = [fact for fact in told.tensors if fact.name.endswith("q_proj.weight")]
    assert {(fact.stored, fact.dtype, fact.way) for fact in matrices} == {("Q8_0", "float32", "copied")}
    assert {fact.stored_bytes for fact in matrices} == {64 * 64 * 34 // 32}
    assert told.files[0].name == "tiny.gguf"


def test_what_a_gguf_holds_besides_weights_is_told_as_left_out(tmp_path):
    config = DecoderConfig.uniform(vocab_size=50, context=64, d_model=32, n_layers=1, n_heads=2, d_ff=64)
    model = Decoder(replace(config, position=Rope(scaling=Llama3(factor=8.0))))
    path = tmp_path / "scaled.gguf"
    write_model(LM(model, name="scaled"), path, "f32")
    left = [fact for fact in explain(str(path), device="cpu", length=4).tensors if fact.way == "left out"]
    assert [(fact.published, fact.note) for fact in left] == [(("rope_freqs.weight",), "part of rope's settings")]


def test_models_without_layers_of_a_decoder_show_what_they_can(tmp_path, material):
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. " * 20)
    shape = {"vocab_size": 257, "context": 64, "n_layers": 2, "d_model": 32, "n_heads": 2, "d_ff": 64}
    save(tmp_path / "lstm", recurrent(vocab_size=257, d_model=16), ByteTokenizer())
    save(tmp_path / "encoder", fresh_encoder(**shape, seed=0))
    save(tmp_path / "pairs", fresh_seq2seq(**shape, plan="t5", init="normal", seed=0), ByteTokenizer())
    found = {
        name: explain(str(name), device="cpu")
        for name in (
            f"ngram2:{text}", "world", tmp_path / "lstm", tmp_path / "encoder", tmp_path / "pairs",
            material / "stories260K" / "stories260K.bin",
        )
    }  # fmt: skip
    assert [told.kind for told in found.values()] == ["NGram", "Oracle", "Recurrent", "Encoder", "Seq2Seq", "Decoder"]
    for told in found.values():
        assert len(told.forward.likeliest) == 5
        assert told.name in explanation_text(told)
        json.dumps(dump(told))
    assert found["world"].parameters == 0
    assert {fact.way for fact in found[f"ngram2:{text}"].tensors} == {"made"}
    assert found[tmp_path / "pairs"].forward.asks == "the first token of the target"
    assert [bool(told.forward.flops) for told in found.values()] == [False, False, True, True, True, True]
    assert any("tokenizer" in line for line in found[tmp_path / "encoder"].unknown)


def test_the_command_prints_text_and_everything_as_json(capsys, folder):
    assert main(["explain", str(folder), "--device", "cpu", "--prompt", "Tom"]) == 0
    assert "Tensors, from file to model" in capsys.readouterr().out
    assert main(["explain", str(folder), "--device", "cpu", "--length", "5", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert data["forward"]["tokens"] == 5
    assert len(data["tensors"]) == 30
    assert data["config"] == json.loads((folder / "config.json").read_text())
    assert main(["explain", "--dtype", "bf16"]) == 0
    assert capsys.readouterr().out.startswith("bf16\n")


def test_a_folder_of_a_config_alone_is_explained_as_a_config_that_ships(folder, tmp_path, capsys):
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    told = explain(str(tmp_path))
    assert told.found.endswith("holds a config and no weights, so nothing is read")
    assert told.parameters == explain(str(folder), device="cpu").parameters
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    assert main(["explain", str(tmp_path)]) == 2
    assert "lacks model-1.safetensors" in capsys.readouterr().err


def test_what_goes_with_a_model_is_refused_without_one(capsys):
    for words in (["--prompt", "Tom"], ["--engine", "transformers"], ["--html", "x.html"], []):
        assert main(["explain", *words]) == 2
        err = capsys.readouterr().err
        assert (words[0] if words else "there is nothing to explain") in err


@pytest.mark.parametrize(
    ("settings", "error", "because"),
    [
        ({"name": "nobody/nothing-7b"}, CheckpointError, "add --download"),
        ({"name": "runs/nothing"}, CheckpointError, "does not exist here.*or the id of a config that ships"),
        ({"name": "Llama-3.1-8b-instrct"}, CheckpointError, "did you mean 'Llama-3.1-8B-Instruct'"),
        ({"name": LLAMA, "prompt": "Tom"}, RequestError, "say --length N"),
        ({"name": LLAMA, "length": 0, "device": "auto"}, RequestError, "--length is 0"),
        ({"name": LLAMA, "dtype": "int4"}, ConfigError, "int4 is made while weights are read"),
        ({"name": LLAMA, "dtype": "fp7"}, ConfigError, "unknown number format"),
        ({"prompt": "Tom", "length": 3}, RequestError, "not both"),
        ({"prompt": "x" * 70}, RequestError, "too long"),
        ({"length": 65}, RequestError, "--length is 65"),
    ],
)
def test_what_cannot_be_explained_is_refused_without_the_network(
    no_network, monkeypatch, tmp_path, folder, settings, error, because
):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(error, match=because):
        explain(**({"name": str(folder), "device": "cpu"} | settings))


def test_our_own_config_says_what_the_published_one_says():
    assert of_config("tiny", published_config(tiny()), Asked(length=8)).parameters == sum(
        p.numel() for p in tiny().parameters()
    )
