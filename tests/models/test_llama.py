"""LLaMA against transformers: the same logits and the same greedy text, on ten random configurations."""

import json
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from chainrule.core.datum import PADDING, Layout
from chainrule.core.errors import CheckpointError
from chainrule.generate.engine import Engine, Request, run
from chainrule.hub.load import load
from chainrule.hub.save import save
from chainrule.models.decoder import Decoder
from chainrule.models.families import llama

BASE = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 4, "max_position_embeddings": 64, "tie_word_embeddings": False,
}  # fmt: skip
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16, "rope_theta": 5e5,
}  # fmt: skip
CONFIGS = {
    "plain": {},
    "grouped": {"num_key_value_heads": 2},
    "one-kv-head": {"num_key_value_heads": 1, "tie_word_embeddings": True},
    "tied": {"tie_word_embeddings": True, "num_hidden_layers": 3},
    "wide-heads": {"head_dim": 16},
    "narrow-heads": {"head_dim": 4, "num_key_value_heads": 2},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "llama3-rope": {"rope_parameters": LLAMA3, "num_key_value_heads": 2},
    "linear-rope": {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}},
    "other-theta-eps-act": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 777.0}, "rms_norm_eps": 1e-3, "hidden_act": "gelu",
    },
}  # fmt: skip


def published(name: str, folder, **more):
    """A random checkpoint written by transformers, and its model."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(sorted(CONFIGS).index(name) if name in CONFIGS else 0)
    config = transformers.LlamaConfig(**(BASE | CONFIGS.get(name, {}) | more))
    model = transformers.LlamaForCausalLM(config).eval()
    for tensor in model.parameters():  # larger than at birth, biases and norms too, so that nothing hides
        torch.nn.init.normal_(tensor, mean=1.0 if tensor.ndim == 1 and tensor.shape[0] == 32 else 0.0, std=0.2)
    model.save_pretrained(folder)
    return model


def close(ours, theirs):
    assert_close(ours, theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_logits_and_greedy_text_equal_those_of_transformers(name, tmp_path):
    theirs, ours = published(name, tmp_path), load(tmp_path).model
    tokens = torch.randint(61, (3, 17), generator=torch.Generator().manual_seed(3))
    expected = theirs(tokens).logits
    close(ours(tokens), expected)
    close(ours(tokens[:, :1]), theirs(tokens[:, :1]).logits)

    lengths = torch.tensor([17, 9, 1])  # left padding
    mask = torch.arange(17) >= 17 - lengths[:, None]
    padded = theirs(tokens, attention_mask=mask.long(), position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
    close(ours(tokens, layout=Layout.lengths(lengths, 17, left=True))[mask], padded[mask])

    row = torch.cat([tokens[0, :9], tokens[1, :5], tokens[2, :3]])[None]  # packing
    layout = Layout(torch.tensor([[*range(9), *range(5), *range(3)]]), torch.tensor([[0] * 9 + [1] * 5 + [2] * 3]))
    for i, document in enumerate(ours(row, layout=layout)[0].split([9, 5, 3])):
        close(document, theirs(tokens[i : i + 1, : len(document)]).logits[0])
    assert layout.document.min() > PADDING

    prompt = tokens[:1, :5]
    greedy = theirs.generate(prompt, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)[0, 5:]
    engine = Engine(ours)
    engine.submit(Request(tokens=prompt[0].tolist(), max_tokens=12, temperature=0.0))
    found = [event.token for _ in range(12) for event in engine.step()]
    assert found == greedy.tolist()


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_what_chainrule_saves_transformers_loads(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    published(name, tmp_path / "theirs")
    ours = load(tmp_path / "theirs").model
    save(tmp_path / "ours", ours)
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "ours")
    tokens = torch.randint(61, (2, 11), generator=torch.Generator().manual_seed(4))
    close(again(tokens).logits, ours(tokens))


@torch.no_grad()
def test_a_dynamic_rope_at_its_declared_capacity_equals_transformers(tmp_path):
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    theirs = published("dynamic", tmp_path, rope_parameters=rope, max_position_embeddings=16)
    ours = load(tmp_path).model
    tokens = torch.randint(61, (3, 40), generator=torch.Generator().manual_seed(5))
    expected = theirs(tokens).logits  # transformers stretches to the 40 tokens it sees
    cache = ours.cache(3, 40)
    close(torch.cat([ours(tokens[:, :13], cache), ours(tokens[:, 13:], cache)], 1), expected)
    close(ours(tokens[:, :15]), theirs(tokens[:, :15]).logits)

    lengths = torch.tensor([40, 23, 1])  # left padding, every row declared to be as long as the longest
    mask = torch.arange(40) >= 40 - lengths[:, None]
    padded = theirs(tokens, attention_mask=mask.long(), position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
    close(ours(tokens, ours.cache(3, 40), layout=Layout.lengths(lengths, 40, left=True))[mask], padded[mask])

    row = torch.cat([tokens[0, :22], tokens[1, :17], tokens[2, :1]])[None]  # packing: each document by its own length
    layout = Layout(torch.tensor([[*range(22), *range(17), 0]]), torch.tensor([[0] * 22 + [1] * 17 + [2]]))
    for i, document in enumerate(ours(row, layout=layout)[0].split([22, 17, 1])):
        theirs(tokens[:1, :1])  # transformers stays stretched until it sees a short row
        close(document, theirs(tokens[i : i + 1, : len(document)]).logits[0])


@torch.no_grad()
def test_greedy_text_under_a_dynamic_rope_is_that_of_transformers_at_the_declared_length(tmp_path):
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    theirs = published("dynamic", tmp_path, rope_parameters=rope, max_position_embeddings=16)
    loaded = load(tmp_path).model
    ours = Decoder(replace(loaded.config, context=48)).eval()  # which may be continued beyond the 16 trained places
    ours.load_state_dict(loaded.state_dict())
    ids, wide = [7, 3, 9], 30
    (events,) = run(Engine(ours), [Request(tokens=ids, max_tokens=wide - len(ids), temperature=0.0)])
    for event in events:
        row = torch.tensor([ids + [0] * (wide - len(ids))])  # what stands behind stretches the row and is not seen
        expected = theirs(row).logits[0, len(ids) - 1]
        assert event.token == int(expected.argmax())
        assert abs(event.logp - float(expected.log_softmax(-1)[event.token])) < 1e-4
        ids.append(event.token)
    assert len(ids) == wide


@torch.no_grad()
def test_a_dynamic_rope_is_still_one_after_it_was_saved(tmp_path):
    transformers = pytest.importorskip("transformers")
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    published("dynamic", tmp_path / "theirs", rope_parameters=rope, max_position_embeddings=16)
    ours = load(tmp_path / "theirs").model
    save(tmp_path / "ours", ours)
    config = llama.to_published(ours.config)
    assert llama.to_parts(config) == ours.config
    tokens = torch.randint(61, (2, 40), generator=torch.Generator().manual_seed(7))
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "ours")
    close(again(tokens).logits, ours(tokens))
    assert torch.equal(load(tmp_path / "ours").model(tokens), ours(tokens))


@torch.no_grad()
def test_sharded_weights_and_the_older_style_of_config_load(tmp_path):
    theirs = published("llama3-rope", tmp_path)
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    path = tmp_path / "shards" / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope, "torch_dtype": config.pop("dtype", "float32")}
    path.write_text(json.dumps(config))
    tokens = torch.randint(61, (2, 11), generator=torch.Generator().manual_seed(6))
    close(load(tmp_path / "shards").model(tokens), theirs(tokens).logits)


def test_a_key_that_llama_does_not_know_is_refused_and_the_nearest_named():
    with pytest.raises(CheckpointError, match="did you mean 'rms_norm_eps'"):
        llama.to_parts(BASE | {"rms_norm_epsilon": 1e-5})
    with pytest.raises(CheckpointError, match="did you mean 'yarn'"):
        llama.to_parts(BASE | {"rope_parameters": {"rope_type": "yarm", "factor": 2.0}})


def test_published_configs_survive_the_way_through_parts():
    for more in CONFIGS.values():
        config = llama.to_parts(BASE | more)
        assert llama.to_parts(llama.to_published(config)) == config
