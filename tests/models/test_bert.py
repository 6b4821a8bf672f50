"""BERT against transformers: the same states and scores on random configurations, with padding, pairs and packing."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

import chainrule as cr
from chainrule.core.datum import Layout
from chainrule.core.errors import CheckpointError, RequestError
from chainrule.models.families import bert

BASE = {
    "vocab_size": 61, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 40,
}  # fmt: skip
CONFIGS = {
    "plain": {},
    "one-head": {"num_attention_heads": 1},
    "deep-and-narrow": {"num_hidden_layers": 5, "hidden_size": 24, "intermediate_size": 8},
    "untied": {"tie_word_embeddings": False},
    "relu-and-another-eps": {"hidden_act": "relu", "layer_norm_eps": 1e-3},
    "tanh-gelu": {"hidden_act": "gelu_new", "type_vocab_size": 3},
    "one-type": {"hidden_act": "silu", "type_vocab_size": 1},
}  # fmt: skip


def published(name, folder, kind="BertForMaskedLM"):
    """A random checkpoint written by transformers, and its model."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(sorted(CONFIGS).index(name))
    model = getattr(transformers, kind)(transformers.BertConfig(**(BASE | CONFIGS[name]))).eval()
    for tensor in model.parameters():  # larger than at birth, biases and norms too, so that nothing hides
        torch.nn.init.normal_(tensor, std=0.3)
    model.save_pretrained(folder)
    return model


def rows(b, t):
    return torch.randint(61, (b, t), generator=torch.Generator().manual_seed(t))


def close(ours, theirs):
    assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_states_and_scores_equal_those_of_transformers(name, tmp_path):
    theirs, ours = published(name, tmp_path), cr.load(tmp_path).model
    tokens = rows(3, 17)
    out = theirs(tokens, output_hidden_states=True)
    heard = {}
    close(ours(tokens, tap=heard.__setitem__), out.logits)
    close(heard["hook_full_embed"], out.hidden_states[0])
    for i, state in enumerate(out.hidden_states[1:]):
        close(heard[f"blocks.{i}.hook_normalized_resid_post"], state)
    close(ours(tokens[:, :1]), theirs(tokens[:, :1]).logits)  # one token

    lengths = torch.tensor([17, 9, 1])
    mask = torch.arange(17) < lengths[:, None]
    padded = theirs(tokens, attention_mask=mask.long()).logits
    close(ours(tokens, layout=Layout.lengths(lengths, 17))[mask], padded[mask])

    types = (torch.arange(17) >= 8).long().expand(3, 17) * (ours.config.types > 1)  # a pair of texts
    close(ours(tokens, types=types), theirs(tokens, token_type_ids=types).logits)

    row = torch.cat([tokens[0, :9], tokens[1, :5], tokens[2, :3]])[None]  # packing
    layout = Layout(torch.tensor([[*range(9), *range(5), *range(3)]]), torch.tensor([[0] * 9 + [1] * 5 + [2] * 3]))
    close(ours(row, layout=layout)[0, 9:14], theirs(tokens[1:2, :5]).logits[0])


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_what_chainrule_saves_transformers_loads(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs = published(name, tmp_path / "theirs")
    cr.load(tmp_path / "theirs").save(tmp_path / "ours")
    again, info = transformers.BertForMaskedLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    close(again(rows(2, 11)).logits, theirs(rows(2, 11)).logits)
    assert not info["unexpected_keys"]
    assert not [key for key in info["missing_keys"] if key != "cls.predictions.bias"]  # an untied head does not read it


@torch.no_grad()
def test_a_model_without_heads_keeps_its_pooler_and_cannot_fill(tmp_path):
    transformers = pytest.importorskip("transformers")
    theirs, lm = published("plain", tmp_path / "theirs", "BertModel"), cr.load(tmp_path / "theirs")
    tokens = rows(2, 9)
    out = theirs(tokens)
    close(lm.model.states(tokens), out.last_hidden_state)
    close(lm.model.pooled(lm.model.states(tokens)), out.pooler_output)
    with pytest.raises(RequestError, match="no masked-word head"):
        lm.fill("a [MASK]")
    with pytest.raises(RequestError, match="no masked-word head"):
        lm.model(tokens)
    lm.save(tmp_path / "ours")
    close(transformers.AutoModel.from_pretrained(tmp_path / "ours")(tokens).pooler_output, out.pooler_output)


@torch.no_grad()
def test_the_first_published_files_load_with_their_older_names(tmp_path):
    """gamma and beta, a tied head written out, position ids, and a next-sentence head that nobody here reads."""
    theirs = published("plain", tmp_path, "BertForPreTraining")
    tensors = load_file(tmp_path / "model.safetensors")
    old = {name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t for name, t in tensors.items()}  # fmt: skip
    old["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"].clone()
    old["cls.predictions.decoder.bias"] = tensors["cls.predictions.bias"].clone()
    old["bert.embeddings.position_ids"] = torch.arange(40)[None]
    save_file(old, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    del config["architectures"]
    (tmp_path / "config.json").write_text(json.dumps(config | {"position_embedding_type": "absolute"}))
    ours = cr.load(tmp_path).model
    out = theirs(rows(2, 9))
    close(ours(rows(2, 9)), out.prediction_logits)
    close(ours.pooled(ours.states(rows(2, 9))), theirs.bert(rows(2, 9)).pooler_output)

    old["cls.predictions.decoder.weight"] += 1
    save_file(old, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="differs from"):
        cr.load(tmp_path)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"layer_norm_epsilon": 1e-5}, "did you mean 'layer_norm_eps'"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"is_decoder": True}, "is_decoder=True"),
        ({"hidden_act": "mish"}, "mish"),
        ({"hidden_size": 30}, "hidden_size=30 is not a multiple of num_attention_heads=4"),
        ({"architectures": ["BertForTokenClassification"]}, "BertForTokenClassification"),
    ],
)
def test_what_bert_here_does_not_know_is_refused_by_name(more, message):
    with pytest.raises(CheckpointError, match=message):
        bert.to_parts(BASE | more)


def test_published_configs_survive_the_way_through_parts():
    for more in CONFIGS.values():
        config = bert.to_parts(BASE | more)
        assert bert.to_parts(bert.to_published(config)) == config
