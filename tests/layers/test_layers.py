"""The bricks, each against torch's own or against its formula written out."""

import math
from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from chainrule.core.errors import ConfigError
from chainrule.hub.fresh import INITS, fresh, fresh_of_config
from chainrule.layers.attention import GroupedQuery, attend, pattern
from chainrule.layers.init import FanIn, Induction, Mimetic
from chainrule.layers.mlp import Gated
from chainrule.layers.norm import LayerNorm, RMSNorm
from chainrule.layers.rope import Rope, rotate
from chainrule.layers.scaling import Dynamic, Linear
from chainrule.models.decoder import Decoder, DecoderConfig


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_rms_norm_by_hand():
    layer = RMSNorm(eps=1e-6).build(2)
    assert_close(layer(torch.tensor([[3.0, 4.0]])), torch.tensor([[3.0, 4.0]]) / math.sqrt(12.5), atol=1e-5, rtol=1e-5)


def test_layer_norm_equals_torchs():
    x = random(3, 5)
    assert_close(LayerNorm(eps=1e-5).build(5)(x), torch.nn.functional.layer_norm(x, (5,)))


def test_norms_of_bfloat16_are_computed_in_float32():
    x = (random(2, 64) * 100).bfloat16()
    exact = RMSNorm().build(64)(x.float())
    assert_close(RMSNorm().build(64)(x).float(), exact, atol=0.02, rtol=0.01)


def test_rotated_products_depend_on_the_distance_alone():
    q, k = random(1, 1, 1, 8), random(1, 1, 1, 8, seed=1)
    rope = Rope()

    def product(i: int, j: int) -> torch.Tensor:
        at = [rope.tables(torch.tensor([[p]]), 8, 64) for p in (i, j)]
        return (rotate(q, at[0]) * rotate(k, at[1])).sum()

    assert_close(product(9, 4), product(25, 20), atol=1e-5, rtol=1e-5)
    assert_close(product(0, 0), (q * k).sum())


def test_linear_scaling_divides_positions_and_dynamic_begins_beyond_the_trained_length():
    plain, linear = Rope().frequencies(8, 64), Rope(scaling=Linear(factor=4.0)).frequencies(8, 64)
    assert_close(linear, plain / 4)
    dynamic = Rope(scaling=Dynamic(factor=2.0, original=64))
    assert_close(dynamic.frequencies(8, 64), plain)
    assert dynamic.frequencies(8, 128)[-1] < plain[-1]


def test_attention_is_the_formula():
    q, k, v = random(2, 4, 5, 8), random(2, 2, 5, 8, seed=1), random(2, 2, 5, 8, seed=2)
    scores = q @ k.repeat_interleave(2, 1).mT / math.sqrt(8)
    seen = torch.ones(5, 5, dtype=torch.bool).tril()
    expected = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v.repeat_interleave(2, 1)
    assert_close(attend(q, k, v), expected.transpose(1, 2).flatten(2), atol=1e-5, rtol=1e-5)
    assert_close(pattern(q, k).sum(-1), torch.ones(2, 4, 5))


def test_a_kernel_can_be_exchanged():
    used = []

    def kernel(q, k, v, mask):
        used.append(q.shape)
        return attend(q, k, v, mask)

    part = GroupedQuery(n_heads=2, n_kv_heads=2, d_head=4)
    x = random(1, 3, 8)
    one, other = part.build(8), part.build(8, kernel)
    other.load_state_dict(one.state_dict())
    assert_close(one(x, None), other(x, None))
    assert used


def test_a_gated_mlp_is_the_formula():
    layer = Gated(d_ff=6).build(4)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(3))
    x = random(2, 3, 4)
    gate, up = x @ layer.gate_proj.weight.T, x @ layer.up_proj.weight.T
    assert_close(layer(x), (gate * gate.sigmoid() * up) @ layer.down_proj.weight.T)


@pytest.mark.parametrize("name", INITS)
def test_a_fresh_model_knows_nothing_and_its_seed_is_all_there_is_to_it(name):
    def build(seed: int):
        return fresh(vocab_size=50, context=32, n_layers=2, d_model=48, n_heads=4, n_kv_heads=4, d_ff=32, rope_theta=1e4,
                     tied=True, init=name, seed=seed)  # fmt: skip

    tokens = torch.randint(50, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(build(0)(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        assert abs(float(loss) - math.log(50)) < 0.2
        assert torch.equal(build(0)(tokens), build(0)(tokens))
        assert not torch.equal(build(0)(tokens), build(1)(tokens))


def test_induction_heads_look_back_and_find_what_came_next():
    model = fresh(vocab_size=200, context=64, n_layers=2, d_model=192, n_heads=6, n_kv_heads=6, d_ff=32, rope_theta=1e4,
                  tied=True, init="induction", seed=0)  # fmt: skip
    tokens = torch.randint(200, (1, 30), generator=torch.Generator().manual_seed(1))
    tokens[0, 24:28] = tokens[0, 4:8]  # the same four tokens again: what followed was tokens[8]
    seen = {}
    with torch.no_grad():
        scores = model(tokens, tap=seen.__setitem__)[0, 27]
    back = seen["blocks.0.attn.hook_pattern"][0, :, 27].argmax(-1)
    assert all(abs(int(27 - back[j]) - j) <= 1 for j in range(6))
    found = seen["blocks.1.attn.hook_pattern"][0, :, 27, 8]
    assert found.max() > 0.5
    assert int(tokens[0, 8]) in scores.topk(10).indices.tolist()


@pytest.mark.parametrize(
    ("build", "because"),
    [
        (lambda: GroupedQuery(n_heads=3, n_kv_heads=2, d_head=4), "n_heads=3"),
        (lambda: GroupedQuery(n_heads=2, n_kv_heads=2, d_head=3), "must be even"),
        (lambda: Gated(d_ff=0), "d_ff=0"),
        (lambda: RMSNorm(eps=0.0), "eps=0"),
        (lambda: Rope(theta=1.0), "theta=1"),
        (lambda: Linear(factor=0.5), "factor=0.5"),
    ],
)
def test_parts_that_cannot_be_are_refused(build, because):
    with pytest.raises(ConfigError, match=because):
        build()


@pytest.mark.parametrize("scheme", [Mimetic(), Induction()])
def test_initialisations_that_want_equal_heads_say_so(scheme):
    model = fresh(vocab_size=20, context=16, n_layers=2, d_model=16, n_heads=4, n_kv_heads=2, d_ff=16, rope_theta=1e4,
                  tied=True, init="normal", seed=0)  # fmt: skip
    with pytest.raises(ConfigError, match=r"induction with it, needs as many kv heads .*; begin otherwise: model\.init=normal"):
        model.init(torch.Generator().manual_seed(0), scheme)
    model.init(torch.Generator().manual_seed(0), FanIn())


LLAMA = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


@pytest.mark.parametrize(("heads", "width"), [(2, 16), (4, 16), (4, 32), (1, 64)])
def test_induction_begins_in_heads_of_any_number_and_width(heads, width):
    """As many heads look back as there are, and as the model has room for."""
    shape = {"num_attention_heads": heads, "num_key_value_heads": heads, "head_dim": width}
    model = fresh_of_config({**LLAMA, **shape}, vocab_size=50, context=64, init="induction", seed=0)
    seen = {}
    with torch.no_grad():
        model(torch.randint(50, (1, 30), generator=torch.Generator().manual_seed(1)), tap=seen.__setitem__)
    back = seen["blocks.0.attn.hook_pattern"][0, :, 27].argmax(-1)
    assert all(abs(int(27 - back[j]) - j) <= 1 for j in range(min(heads, 64 // width)))


@pytest.mark.parametrize(
    ("shape", "because"),
    [
        ({"num_hidden_layers": 1}, r"needs two layers, .* not 1 with heads of width \[16\] .*; begin otherwise: model\.init=normal"),
        ({"head_dim": 6}, r"divisible by 4 .* of width \[6\]"),
        ({"head_dim": 128}, r"no wider than the model, .* of width \[128\] in a model of width 64"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, r"plain rope.*scaling=Linear"),
        ({"model_type": "glm4", "head_dim": 16, "partial_rotary_factor": 0.5, "pad_token_id": 0}, r"plain rope.*d_rotary=8"),
    ],
)  # fmt: skip
def test_induction_is_refused_where_it_would_not_be_one(shape, because):
    with pytest.raises(ConfigError, match=because):
        fresh_of_config({**LLAMA, **shape}, vocab_size=50, context=64, init="induction", seed=0)


@pytest.mark.parametrize(
    ("rope", "because"),
    [
        (Rope(d_rotary=12), "d_rotary=12 channels are to be turned of heads that have 8"),
        (Rope(d_rotary=2, scaling=Dynamic(factor=2.0, original=16)), "d_rotary=2 channels of heads that have 8"),
    ],
)
@pytest.mark.parametrize("of_a_block", [False, True])
def test_a_rope_that_does_not_fit_the_heads_is_refused_before_anything_is_built(rope, because, of_a_block):
    config = DecoderConfig.uniform(vocab_size=11, context=8, d_model=16, n_layers=2, n_heads=2)
    own = {"blocks": (config.blocks[0], replace(config.blocks[1], position=rope))}
    with pytest.raises(ConfigError, match=because):
        replace(config, **(own if of_a_block else {"position": rope}))


def test_a_rope_of_fewer_channels_than_a_head_fits():
    config = DecoderConfig.uniform(vocab_size=11, context=8, d_model=16, n_layers=1, n_heads=2)
    for rope in (Rope(d_rotary=8), Rope(d_rotary=4, scaling=Dynamic(factor=2.0, original=4)), Rope(d_rotary=2)):
        Decoder(replace(config, position=rope))(torch.zeros(1, 6, dtype=torch.long))
