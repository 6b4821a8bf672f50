"""LoRA: a number by hand, what an adapter leaves alone, merging."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from chainrule.adapt.int4 import Int4Linear
from chainrule.adapt.lora import Lora, LoraLinear, adapters, attach, merge
from chainrule.core.datum import Batch
from chainrule.core.errors import ConfigError
from chainrule.hub.fresh import fresh
from chainrule.layers.init import Normal
from chainrule.layers.latent import MultiHeadLatent
from chainrule.layers.mlp import Gated
from chainrule.logprobs.scoring import token_logprobs
from chainrule.models.blocks import Block
from chainrule.models.decoder import Decoder, DecoderConfig

TOKENS = torch.randint(61, (2, 9), generator=torch.Generator().manual_seed(0))
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def tiny(**changes):
    shape: dict[str, Any] = {
        "vocab_size": 61,
        "context": 32,
        "n_layers": 2,
        "d_model": 32,
        "n_heads": 4,
        "n_kv_heads": 2,
        "d_ff": 48,
    }
    return fresh(**shape | {"rope_theta": 1e4, "tied": True, "init": "normal", "seed": 0} | changes).eval()


def stirred(model, seed=1):
    """The model with adapters that have learned something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in adapters(model).values():
            layer.b.copy_(0.1 * torch.randn(layer.b.shape, generator=generator))
            if layer.magnitude is not None:
                layer.magnitude.mul_(1 + 0.2 * torch.rand(layer.magnitude.shape, generator=generator))
    return model


def by_hand(dora=False):
    base = nn.Linear(2, 2, bias=False)
    layer = LoraLinear(base, Lora(rank=1, alpha=2.0, dora=dora))
    with torch.no_grad():
        base.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
        layer.a.copy_(torch.tensor([[0.0, 1.0]]))
        layer.b.copy_(torch.tensor([[2.0], [0.0]]))
        if layer.magnitude is not None:
            layer.magnitude.copy_(torch.tensor([10.0, 1.0]))
    return layer


def test_lora_by_hand():
    """W + 2 B A = (3 4; 0 1), and (1, 1) becomes (7, 1)."""
    assert by_hand()(torch.ones(1, 2)).tolist() == [[7.0, 1.0]]


def test_dora_by_hand():
    """The first row (3 4) is 5 long and is made 10 long: (6 8), so that (1, 1) becomes (14, 1)."""
    assert by_hand(dora=True)(torch.ones(1, 2)).tolist() == [[14.0, 1.0]]
    assert by_hand(dora=True).weight.tolist() == [[6.0, 8.0], [0.0, 1.0]]


@pytest.mark.parametrize("dora", [False, True])
def test_dropout_drops_what_the_adapter_reads_and_nothing_of_the_layer_itself(dora):
    base = nn.Linear(6, 5)
    layer = LoraLinear(base, Lora(rank=2, dropout=0.5, dora=dora)).train()
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(0))
    assert_close(layer(x), base(x))  # a new adapter changes nothing, in training too
    with torch.no_grad():
        layer.b.fill_(0.3)
    assert not torch.equal(layer(x), layer(x))


@pytest.mark.parametrize("stabilised", [False, True])
def test_the_scale_is_alpha_over_the_rank_or_its_root(stabilised):
    assert Lora(rank=16, alpha=8, stabilised=stabilised).scale == (2.0 if stabilised else 0.5)


@pytest.mark.parametrize("dora", [False, True])
def test_a_new_adapter_changes_no_score(dora):
    model = tiny()
    before = model(TOKENS)
    attach(model, Lora(rank=4, dora=dora), LINEAR)
    assert_close(model(TOKENS), before, atol=1e-5, rtol=1e-5)


def test_only_the_adapter_learns():
    model = tiny()
    assert len(attach(model, Lora(rank=4))) == 4
    learned = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert learned == {f"layers.{i}.self_attn.{name}_proj.{half}" for i in (0, 1) for name in "qv" for half in "ab"}
    F.cross_entropy(model(TOKENS).flatten(0, 1), TOKENS.flatten()).backward()
    assert all(layer.b.grad is not None and layer.b.grad.abs().sum() > 0 for layer in adapters(model).values())
    assert model.embed_tokens.weight.grad is None


def test_after_a_merge_the_whole_model_learns_again():
    model = tiny()
    attach(model, Lora(rank=4))
    merge(model)
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("part", [Lora(rank=3, alpha=5.0), Lora(rank=3, stabilised=True), Lora(rank=3, dora=True)])
def test_merging_changes_no_score_and_leaves_plain_layers(part):
    model = tiny(tied=False)
    attach(model, part, LINEAR)
    expected = stirred(model)(TOKENS)
    assert merge(model) == 14
    assert not adapters(model)
    assert_close(model(TOKENS), expected, atol=1e-4, rtol=1e-4)
    assert merge(model) == 0


def test_an_adapter_beside_the_readout_is_scored_too():
    model = tiny(tied=False)
    attach(model, Lora(rank=4), ("lm_head",))
    stirred(model)
    batch = Batch(TOKENS, torch.ones(TOKENS.shape))
    expected = F.log_softmax(model(TOKENS)[:, :-1], -1).gather(2, TOKENS[:, 1:, None])[..., 0]
    assert_close(token_logprobs(model, batch)[:, 1:], expected, atol=1e-5, rtol=1e-5)


def test_a_base_in_four_bits_keeps_its_bits_and_learns_beside_them():
    layer = LoraLinear(Int4Linear.of(torch.randn(64, 32, generator=torch.Generator().manual_seed(0))), Lora(rank=2))
    with torch.no_grad():
        layer.b.add_(1.0)
    x = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    assert_close(layer(x), x @ layer.weight.mT, atol=1e-4, rtol=1e-4)
    layer(x).sum().backward()
    assert layer.a.grad is not None
    with pytest.raises(ConfigError, match="cannot be merged into a Int4Linear; load the base in fp32"):
        layer.merged()


@torch.no_grad()
@pytest.mark.parametrize("wrap", [Int4Linear.of, lambda weight: LoraLinear(linear_of(weight), Lora(rank=2))])
def test_latent_attention_writes_on_whatever_its_matrices_are_kept_in(wrap):
    """One token at a time goes another way through the matrix than a whole row does."""
    block = Block(attention=MultiHeadLatent(n_heads=2, d_nope=8, d_rope=4, d_value=8, kv_rank=32), mlp=Gated(d_ff=16))
    model = Decoder(DecoderConfig(vocab_size=61, d_model=32, context=16, blocks=(block,))).eval()
    model.init(torch.Generator().manual_seed(1), Normal(std=0.3))
    attention = model.layers[0].self_attn
    attention.kv_b_proj = wrap(attention.kv_b_proj.weight)
    cache = model.cache(2, 9)
    steps = torch.cat([model(token, cache) for token in TOKENS.split(1, dim=1)], dim=1)
    assert_close(steps, model(TOKENS), atol=1e-4, rtol=1e-4)


def linear_of(weight):
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight)
    return layer


def test_a_merge_of_what_is_no_number_changes_nothing():
    model = tiny()
    attach(model, Lora(rank=2))
    last = list(adapters(model).values())[-1]
    with torch.no_grad():
        last.b[0, 0] = torch.nan
    with pytest.raises(ConfigError, match="NaN"):
        merge(model)
    assert len(adapters(model)) == 4


@pytest.mark.parametrize(("dora", "dtype"), [(False, torch.float16), (True, torch.float32)])
def test_a_merge_that_would_come_to_no_number_changes_nothing(dora, dtype):
    """Numbers beyond fp16, and DoRA on a row of zeros, whose length is 0: all are finite as long as they stand apart."""
    model = tiny()
    for layer in model.layers:
        layer.self_attn.v_proj.weight.data[0] = 0
    model.to(dtype)
    attach(model, Lora(rank=2, dora=dora))
    if not dora:
        list(adapters(model).values())[-1].b.data[0, 0] = 1e9
    with pytest.raises(ConfigError, match=rf"come to NaN or infinite numbers in {dtype}, so they were not merged; load"):
        merge(model)
    assert len(adapters(model)) == 4


def test_bad_adapters_are_refused():
    with pytest.raises(ConfigError, match=r"rank=0.*needs rank >= 1"):
        Lora(rank=0)
    with pytest.raises(ConfigError, match="no linear layer is called 'c_attn'; there are down_proj, gate_proj"):
        attach(tiny(), Lora(), ("q_proj", "c_attn"))
