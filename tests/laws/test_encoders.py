"""What is true of every encoder: distributions at every place, both sides seen, and nothing beyond the document."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

import chainrule as cr
from chainrule.adapt.int4 import Int4Linear
from chainrule.core.datum import PADDING, Batch, Layout
from chainrule.core.errors import ConfigError, RequestError
from chainrule.core.masked import MaskedModel
from chainrule.hub.save import save
from chainrule.layers.attention import GroupedQuery
from chainrule.layers.init import Normal
from chainrule.layers.mlp import Gated, Plain
from chainrule.layers.norm import LayerNorm, RMSNorm
from chainrule.logprobs.masked import masked_cross_entropy, masked_logprobs
from chainrule.models.encoder import Encoder, EncoderBlock, EncoderConfig, WordHead

VOCAB, T = 23, 12
ATTENTION = {"n_heads": 2, "n_kv_heads": 2, "d_head": 8, "qkv_bias": True, "o_bias": True}


def config(mlp=None, head=None, norm=None, **rest) -> EncoderConfig:
    norm = norm or LayerNorm()
    block = EncoderBlock(attention=GroupedQuery(**(ATTENTION | rest)), mlp=mlp or Plain(d_ff=24, activation="gelu"), norm=norm)
    return EncoderConfig(
        vocab_size=VOCAB, context=16, d_model=16, blocks=(block,) * 2, norm=norm, head=head or WordHead(norm=norm)
    )


CONFIGS = {
    "bert": config(),
    "untied": config(head=WordHead(tied=False)),
    "gated-grouped-rms-norm": config(mlp=Gated(d_ff=24), norm=RMSNorm(), n_kv_heads=1),
    "soft-cap": config(soft_cap=2.0),
}


def build(name: str) -> Encoder:
    """An encoder whose weights are large enough that nothing is nearly linear."""
    model = Encoder(CONFIGS[name])
    model.init(torch.Generator().manual_seed(1), Normal(std=0.3))
    return model.eval()


@pytest.fixture(params=CONFIGS)
def name(request):
    return request.param


@pytest.fixture
def model(name):
    return build(name)


def rows(b, t=T):
    return torch.randint(VOCAB, (b, t), generator=torch.Generator().manual_seed(b * 100 + t))


@torch.no_grad()
def logp(model, tokens, **rest):
    return model(tokens, **rest).double().log_softmax(-1)


def close(a, b, atol=1e-5):
    assert_close(a, b, atol=atol, rtol=1e-5)


def test_every_encoder_of_the_project_is_here():
    assert {one for one in MaskedModel.__subclasses__() if one.__module__.startswith("chainrule.")} == {Encoder}


def test_probabilities_sum_to_one_at_every_place(model):
    total = logp(model, rows(2)).exp().sum(-1)
    close(total, torch.ones_like(total))


def test_every_place_sees_both_sides(model):
    for changed_at in (0, T - 1):
        changed = rows(1).clone()
        changed[0, changed_at] = (changed[0, changed_at] + 1) % VOCAB
        moved = (logp(model, rows(1)) - logp(model, changed)).abs().amax(-1)[0]
        assert (moved > 1e-6).all()


def test_the_order_of_words_matters(model):
    turned = rows(1).flip(1)
    assert not torch.allclose(logp(model, turned), logp(model, rows(1)).flip(1), atol=1e-3)


@pytest.mark.parametrize("left", [False, True])
def test_padding_changes_no_real_column(model, left):
    whole = rows(2)
    padded = whole.clone()
    padded[1] = 0
    real = slice(T - 7, T) if left else slice(0, 7)
    padded[1, real] = whole[1, :7]
    found = logp(model, padded, layout=Layout.lengths(torch.tensor([T, 7]), T, left=left))
    close(found[0], logp(model, whole[:1])[0])
    close(found[1, real], logp(model, whole[1:, :7])[0])
    assert found.isfinite().all()


def test_packing_changes_no_real_column(model):
    a, b = rows(2)
    row = torch.cat([a[:7], b[:4], torch.zeros(1, dtype=torch.long)])[None]
    layout = Layout(torch.tensor([[*range(7), *range(4), 0]]), torch.tensor([[0] * 7 + [1] * 4 + [PADDING]]))
    found = logp(model, row, layout=layout)[0]
    close(found[:7], logp(model, a[None, :7])[0])
    close(found[7:11], logp(model, b[None, :4])[0])


def test_a_batch_of_two_in_any_order_is_two_batches_of_one(model):
    two = rows(2)
    close(logp(model, two), torch.cat([logp(model, two[:1]), logp(model, two[1:])]))
    close(logp(model, two.flip(0)), logp(model, two).flip(0))


def test_saving_and_loading_changes_nothing(model, tmp_path):
    save(tmp_path / "model", model)
    assert torch.equal(cr.load(tmp_path / "model").model(rows(2)), model(rows(2)))


def test_a_head_of_its_own_lies_in_four_bits_too(tmp_path):
    model = Encoder(replace(config(head=WordHead(tied=False)), d_model=32))
    model.init(torch.Generator().manual_seed(1), Normal(std=0.3))
    save(tmp_path / "model", model)
    packed = cr.load(tmp_path / "model", dtype="int4").model
    assert isinstance(packed.head.words, Int4Linear)
    assert_close(packed(rows(2)).float(), model(rows(2)), atol=2.0, rtol=0)


def test_a_tap_changes_nothing_and_hears_what_transformerlens_hears(model):
    heard = {}
    close(logp(model, rows(2), tap=heard.__setitem__), logp(model, rows(2)))
    block = ("attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_pattern", "attn.hook_z", "mlp.hook_post", "hook_resid_pre",
             "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post", "hook_normalized_resid_post")  # fmt: skip
    names = ["embed.hook_embed", "embed.hook_pos_embed", "embed.hook_token_type_embed", "hook_full_embed"]
    assert set(heard) == {*names, *(f"blocks.{i}.{one}" for i in range(2) for one in block)}
    pattern = heard["blocks.0.attn.hook_pattern"]
    close(pattern.sum(-1), torch.ones(pattern.shape[:-1]))
    assert (pattern > 0).all()  # no place is hidden from another


def test_hidden_words_of_a_repeated_sentence_are_learned(name):
    model = build(name).train()
    tokens = rows(1)
    mask = torch.zeros(1, T)
    mask[0, [2, 5, 9]] = 1
    seen = torch.where(mask == 1, VOCAB - 1, tokens)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(40):
        loss = masked_cross_entropy(model, Batch(tokens, mask, given={"seen": seen}))
        optimizer.zero_grad()
        (loss.total / loss.weight).backward()
        optimizer.step()
    assert loss.total.item() / 3 < 0.1


def test_the_loss_sees_packed_documents_and_padding_as_the_model_does(model):
    tokens, mask = rows(2), torch.ones(2, T)
    layout = Layout.lengths(torch.tensor([T, 7]), T)
    with torch.no_grad():
        found = masked_logprobs(model, Batch(tokens, mask, layout, {"seen": tokens}))
        alone = masked_logprobs(model, Batch(tokens[1:, :7], mask[1:, :7], given={"seen": tokens[1:, :7]}))
    close(found[1, :7], alone[0])
    assert found[1, 7:].eq(0).all()


def test_a_text_beyond_the_positions_is_refused_with_both_numbers(model):
    with pytest.raises(RequestError, match="17 tokens is too long: this model reads at most 16"):
        model(rows(1, 17))
    with pytest.raises(RequestError, match="20 tokens is too long"):
        model(rows(1, 4), layout=Layout(torch.tensor([[16, 17, 18, 19]]), torch.zeros(1, 4, dtype=torch.long)))
    with pytest.raises(RequestError, match="types reach 2, but this model knows 2"):
        model(rows(1, 4), types=torch.tensor([[0, 0, 1, 2]]))


def test_a_window_has_no_place_in_an_encoder():
    with pytest.raises(ConfigError, match="window=3"):
        EncoderBlock(attention=GroupedQuery(**ATTENTION, window=3), mlp=Plain(d_ff=8))
