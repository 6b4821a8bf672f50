"""Plans of models that are no decoders: what can be counted is, and what is not known is no number."""

import json

import pytest
import torch

from chainrule.cli import main
from chainrule.core.errors import ConfigError
from chainrule.core.schema import dump
from chainrule.eval.counted import KINDS, count, plan_counted
from chainrule.eval.devices import device
from chainrule.eval.explain.work import work_of
from chainrule.eval.memory import Setting
from chainrule.eval.plan_text import plan_text
from chainrule.hub.fresh import fresh_encoder, fresh_seq2seq, neural_ngram, recurrent
from chainrule.hub.load import load
from chainrule.hub.save import save
from chainrule.models.ngram import NGram
from chainrule.tokenizers.byte import ByteTokenizer
from chainrule.train.optim import AdamW, Muon

SHAPE = {"vocab_size": 257, "context": 64, "n_layers": 2, "d_model": 32, "n_heads": 2, "d_ff": 48}
MODELS = {
    "encoder": lambda: fresh_encoder(**SHAPE, seed=0),
    "seq2seq": lambda: fresh_seq2seq(**SHAPE, plan="t5", init="normal", seed=0),
    "recurrent": lambda: recurrent(vocab_size=257, d_model=32, n_layers=2, d_hidden=40, tied=False),
    "neural_ngram": lambda: neural_ngram(vocab_size=257, d_model=16, d_hidden=64, direct=True),
}
BERT = {"model_type": "bert", "vocab_size": 100, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": 40, "architectures": ["BertForMaskedLM"]}  # fmt: skip
T5 = {"model_type": "t5", "vocab_size": 100, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2,
      "decoder_start_token_id": 0}  # fmt: skip


def planned(name: str, **setting):
    return plan_counted(count(MODELS[name](), name), Setting(**({"rows": 2, "length": 20} | setting)), device("laptop"))


def test_every_kind_is_tried():
    assert set(MODELS) == set(KINDS)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_counted_is_there_and_what_is_not_is_no_number(name):
    model, made = MODELS[name](), planned(name)
    parts, flops = made.parameters, made.flops
    assert parts["total"] == sum(p.numel() for p in model.parameters()) == sum(list(parts.values())[:-2])
    assert flops.forward * 20 == pytest.approx(sum(work.flops for work in work_of(model, None, 20, 20)))
    assert flops.training == 3 * flops.forward
    for row in map(dump, (*made.training, *made.inference)):
        assert [row["memory"][unknown] for unknown in ("activations", "cache", "peak")] == [None] * 3
        assert row["fits"] is None
        assert {row[key] for key in row if key.endswith("seconds")} == {None}
    assert json.loads(json.dumps(dump(made)))["flops"] == dump(flops)
    said = plan_text(made)
    assert "unknown" in said
    assert f"not counted for a model of kind {name!r}" in said


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("name", MODELS)
def test_weights_gradients_and_optimizer_are_what_a_step_leaves_behind(name, optimizer):
    model = MODELS[name]()
    stepping = Muon(model, lr=1e-3, adam_lr=1e-3) if optimizer == "muon" else AdamW(model, lr=1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    stepping.step(1.0)
    kept = [one for state in _tensors(stepping.state_dict()) for one in [state.nbytes if state.ndim else 0]]
    memory = planned(name, optimizer=optimizer).training[0].memory
    weights = sum(parameter.nbytes for parameter in model.parameters())
    assert (memory.weights, memory.gradients) == (weights, weights)
    assert memory.optimizer == sum(kept)


def _tensors(state) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state]
    children = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return [tensor for child in children for tensor in _tensors(child)]


@pytest.mark.parametrize("name", MODELS)
def test_four_bits_take_the_bytes_that_a_load_takes(name, tmp_path):
    save(tmp_path, MODELS[name](), ByteTokenizer())
    loaded = load(str(tmp_path), device="cpu", dtype="int4").model
    assert planned(name).bytes["int4"] == sum(tensor.nbytes for tensor in loaded.state_dict().values())


def test_adapters_are_counted_where_there_are_matrices_to_adapt():
    encoder = planned("encoder", rank=4, targets=("q_proj",))
    assert {row.way: row.learned for row in encoder.training}["LoRA, bf16"] == 2 * 4 * (32 + 32)
    assert [row.way for row in planned("recurrent").training] == ["full, fp32", "full, mixed bf16", "full, pure bf16"]


def test_what_cannot_fit_is_said_whatever_is_unknown():
    small = device("laptop").__class__(name="tiny", memory_bytes=1e5, bandwidth=1e9, link=1e9, rates={})
    made = plan_counted(count(MODELS["encoder"](), "encoder"), Setting(length=20), small)
    assert [row.fits for row in made.training[:2]] == [False, False]
    assert "full, fp32 does not fit; take a larger device" in plan_text(made)


@pytest.mark.parametrize(
    ("recipe", "kind"),
    [
        ("pretrain_bert_world", "encoder"),
        ("pretrain_lstm", "recurrent"),
        ("pretrain_neural_ngram", "neural_ngram"),
        ("translate_world", "seq2seq"),
    ],
)
def test_plan_reads_all_recipes_that_ship(recipe, kind, capsys):
    assert main(["plan", recipe, "--device", "laptop"]) == 0
    assert f"of kind {kind!r}" in capsys.readouterr().out


@pytest.mark.parametrize(("config", "attention"), [(BERT, 2 * 4 * (16 * 16 + 16)), (T5, 3 * 2 * 4 * 16 * 16)])
def test_plan_reads_published_configs(config, attention, tmp_path, capsys):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert main(["plan", str(tmp_path), "--device", "laptop", "--length", "40", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"]["attention"] == attention


def test_bad_requests_are_refused(capsys):
    assert main(["plan", "pretrain_bert_world", "--device", "laptop", "--length", "999"]) == 2
    assert "length=999 is more than the 256 tokens" in capsys.readouterr().err
    assert main(["plan", "pretrain_lstm", "--device", "laptop", "--tensor", "2"]) == 2
    assert "tensor=2" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="multiplies no matrices"):
        count(NGram.fit([[0, 1, 2]], order=2, vocab_size=3), "counts")
