"""T5 against transformers: the same states, logits and greedy text, on random configurations of every kind."""

import json

import pytest
import torch
from torch.testing import assert_close

from chainrule.core.datum import PADDING
from chainrule.core.errors import CheckpointError
from chainrule.generate.engine import Engine, Request, run
from chainrule.hub.load import load
from chainrule.hub.save import save
from chainrule.models.families import t5

BASE = {"vocab_size": 61, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "decoder_start_token_id": 0}
CONFIGS = {
    "plain": {},
    "gated-untied": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "few-buckets-deeper-decoder": {
        "relative_attention_num_buckets": 8, "relative_attention_max_distance": 11, "num_decoder_layers": 3,
    },
    "gated-silu-wide-heads": {"feed_forward_proj": "gated-silu", "d_kv": 12, "layer_norm_epsilon": 1e-3},
    "shallow-decoder-other-start": {"num_layers": 3, "num_decoder_layers": 1, "decoder_start_token_id": 7, "num_heads": 2},
    "near-untied-plain": {
        "relative_attention_num_buckets": 4, "relative_attention_max_distance": 3, "tie_word_embeddings": False,
        "feed_forward_proj": "gelu_new",
    },
}  # fmt: skip


def published(name: str, folder):
    """A random checkpoint written by transformers, and its model."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(sorted(CONFIGS).index(name))
    config = BASE | CONFIGS[name]
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**config)).eval()
    if not config.get("tie_word_embeddings", True):
        model.lm_head.weight = torch.nn.Parameter(torch.empty(61, 32))
    for tensor in model.parameters():  # larger than at birth, norms too, so that nothing hides
        torch.nn.init.normal_(tensor, mean=1.0 if tensor.ndim == 1 else 0.0, std=0.2)
    model.save_pretrained(folder)
    return model


def ids(b: int, t: int, seed: int) -> torch.Tensor:
    return torch.randint(2, 61, (b, t), generator=torch.Generator().manual_seed(seed))


def close(ours, theirs):
    assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_states_logits_and_greedy_text_equal_those_of_transformers(name, tmp_path):
    theirs, ours = published(name, tmp_path), load(tmp_path).model
    source, target = ids(3, 21, 1), ids(3, 17, 2)
    found = theirs(input_ids=source, decoder_input_ids=target)
    close(ours.encode(source), found.encoder_last_hidden_state)
    close(ours(target, given={"source": source}), found.logits)
    one = theirs(input_ids=source[:, :1], decoder_input_ids=target[:, :1]).logits
    close(ours(target[:, :1], given={"source": source[:, :1]}), one)

    lengths = torch.tensor([21, 9, 1])  # padding in the source
    real = torch.arange(21) < lengths[:, None]
    padded = source.masked_fill(~real, PADDING)
    expected = theirs(input_ids=source.masked_fill(~real, 0), attention_mask=real.long(), decoder_input_ids=target).logits
    close(ours(target, given={"source": padded}), expected)
    cache = ours.cache(3, 17, {"source": padded})
    close(torch.cat([ours(target[:, :4], cache), ours(target[:, 4:], cache)], 1), expected)

    start = BASE | CONFIGS[name]
    greedy = theirs.generate(source.masked_fill(~real, 0), attention_mask=real.long(), max_new_tokens=9, do_sample=False, use_cache=False,
                             eos_token_id=None, pad_token_id=0, decoder_start_token_id=start["decoder_start_token_id"])  # fmt: skip
    assert ours.start == start["decoder_start_token_id"]
    requests = [
        Request(tokens=[ours.start], max_tokens=9, temperature=0.0, given={"source": source[i : i + 1, :n]})
        for i, n in enumerate(lengths.tolist())
    ]
    found = [[event.token for event in events] for events in run(Engine(ours), requests)]
    assert found == greedy[:, 1:].tolist()


@pytest.mark.parametrize("name", ["plain", "gated-untied", "few-buckets-deeper-decoder"])
@torch.no_grad()
def test_what_chainrule_saves_transformers_loads(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    published(name, tmp_path / "theirs")
    ours = load(tmp_path / "theirs").model
    save(tmp_path / "ours", ours)
    again, report = transformers.T5ForConditionalGeneration.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values())
    source, target = ids(2, 8, 3), ids(2, 11, 4)
    close(again.eval()(input_ids=source, decoder_input_ids=target).logits, ours(target, given={"source": source}))
    assert torch.equal(load(tmp_path / "ours").model(target, given={"source": source}), ours(target, given={"source": source}))


def test_fp16_is_refused_before_the_weights_are_read(tmp_path):
    published("plain", tmp_path).half().save_pretrained(tmp_path / "half")
    for folder, dtype in ((tmp_path, "fp16"), (tmp_path / "half", "auto")):
        with pytest.raises(CheckpointError, match=r"outgrow fp16.*--dtype bf16"):
            load(folder, dtype=dtype)
    assert load(tmp_path / "half", dtype="bf16").model(ids(1, 5, 1), given={"source": ids(1, 5, 2)}).isfinite().all()


@torch.no_grad()
def test_an_older_file_with_its_copies_of_the_table_loads(tmp_path):
    from safetensors.torch import load_file, save_file

    theirs = published("plain", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = tensors["shared.weight"].clone()
    tensors["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = torch.zeros(32, 4)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("scale_decoder_outputs")
    (tmp_path / "config.json").write_text(json.dumps(config | {"n_positions": 512, "output_past": True}))
    source, target = ids(2, 8, 3), ids(2, 11, 4)
    expected = theirs(input_ids=source, decoder_input_ids=target).logits
    close(load(tmp_path).model(target, given={"source": source}), expected)
    tensors["lm_head.weight"] += 1
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lm_head\.weight differs from embed_tokens\.weight"):
        load(tmp_path)


@torch.no_grad()
def test_a_head_that_transformers_5_leaves_out_is_the_table(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.T5Config(**BASE | CONFIGS["gated-untied"])
    theirs = transformers.T5ForConditionalGeneration(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = load(tmp_path).model
    source, target = ids(2, 8, 3), ids(2, 11, 4)
    assert ours.lm_head is not None
    close(ours(target, given={"source": source}), theirs(input_ids=source, decoder_input_ids=target).logits)


def test_what_t5_does_not_have_is_refused_and_the_nearest_named():
    with pytest.raises(CheckpointError, match="did you mean 'num_heads'"):
        t5.to_parts(BASE | {"num_head": 2})
    with pytest.raises(CheckpointError, match="feed_forward_proj='gated-swiglu'"):
        t5.to_parts(BASE | {"feed_forward_proj": "gated-swiglu"})
    with pytest.raises(CheckpointError, match="tie_encoder_decoder=True is not supported for T5"):
        t5.to_parts(BASE | {"tie_encoder_decoder": True})
    with pytest.raises(CheckpointError, match=r"config\.json lacks 'd_model', which T5 needs"):
        t5.to_parts({key: value for key, value in BASE.items() if key != "d_model"})


def test_what_a_config_leaves_null_has_its_default():
    assert t5.to_parts(BASE | {"num_decoder_layers": None, "layer_norm_epsilon": None}) == t5.to_parts(BASE)
