"""Mixtures of experts: routing by hand, the fast way against the loop, the balance."""

import subprocess
import sys

import pytest
import torch
from torch.testing import assert_close

from chainrule.core.datum import Batch, Layout
from chainrule.core.errors import ConfigError
from chainrule.layers import moe
from chainrule.layers.init import Normal
from chainrule.layers.mlp import Gated
from chainrule.layers.moe import MANY, MixtureOfExperts, by_loop, grouped
from chainrule.layers.router import Router, imbalance
from chainrule.logprobs.losses import balanced_cross_entropy, cross_entropy
from chainrule.models.blocks import Block
from chainrule.models.decoder import Decoder, DecoderConfig
from chainrule.train.loop import _scale_and_clip
from chainrule.train.optim import AdamW, Muon, split_parameters

WAYS = {
    "plain": {},
    "biases": {"bias": True},
    "clamped": {"bias": True, "clamp": 0.5},
    "weighed-input": {"weigh": "input"},
}


def router(logits, **more):
    """A router that gives one token these logits."""
    layer = Router(**({"k": 2} | more)).build(1, len(logits))
    layer.weight.data = torch.tensor(logits)[:, None]
    return layer(torch.ones(1, 1))


def test_the_two_best_of_three_share_the_weight():
    routed = router([1.0, 3.0, 2.0])
    assert routed.experts.tolist() == [[1, 2]]
    assert_close(routed.weights, torch.tensor([[0.7311, 0.2689]]), atol=1e-4, rtol=0)  # 1 / (1 + e^-1)


def test_a_sigmoid_router_scales_and_need_not_sum_to_one():
    routed = router([0.0, 2.0, -1.0], score="sigmoid", normalize=False, scale=2.0)
    assert_close(routed.weights, 2 * torch.tensor([[0.8808, 0.5]]), atol=1e-4, rtol=0)


def test_the_sum_that_weights_are_divided_by_may_have_a_least_size():
    routed = router([0.0, 0.0, 0.0, 0.0], norm_min=0.8)  # two of four: 1/4 each, divided by 0.8 and not by 1/2
    assert_close(routed.weights, torch.tensor([[0.3125, 0.3125]]))


def test_the_best_groups_alone_are_looked_at():
    logits = [3.0, -9.0, 2.0, 2.0, -9.0, -9.0]  # three groups of two: the sums of sigmoids are largest in the second
    assert router(logits, score="sigmoid", groups=3, kept=1).experts.sort().values.tolist() == [[2, 3]]
    assert 0 in router(logits, score="sigmoid", groups=3, kept=1, best_of=1).experts[0].tolist()


def test_a_correction_steers_the_choice_and_not_the_weight():
    layer = Router(k=1, correction=True, normalize=False).build(1, 2)
    layer.weight.data = torch.tensor([[1.0], [0.0]])
    layer.e_score_correction_bias += torch.tensor([0.0, 9.0])
    routed = layer(torch.ones(1, 1))
    assert routed.experts.tolist() == [[1]]
    assert_close(routed.weights, torch.tensor([[0.2689]]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("dtype", "tokens"), [(torch.float32, 11), (torch.bfloat16, 11), (torch.float32, 1301)], ids=["fp32", "bf16", "filled-up"]
)
def test_the_grouped_product_is_the_loop_and_so_are_its_gradients(way, dtype, tokens):
    part = MixtureOfExperts(n_experts=5, d_ff=16, router=Router(k=2), **WAYS[way])
    layer = part.build(8)
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    layer.gate.weight.data[3] = -9.0  # one expert that nobody chooses
    x = torch.randn(tokens, 8, generator=generator).abs().requires_grad_()
    layer.to(dtype)
    routed = layer.gate(x.to(dtype))
    assert 3 not in routed.experts
    assert (routed.experts.numel() >= MANY * 5) == (tokens > 1000)
    found = {}
    for name, dispatch in (("loop", by_loop), ("grouped", grouped)):
        y = dispatch(layer.experts, x.to(dtype), routed)
        y.square().sum().backward(retain_graph=True)
        found[name] = [y, x.grad, *(p.grad for p in layer.experts.parameters())]
        x.grad = None
        layer.experts.zero_grad()
    room = 1e-5 if dtype == torch.float32 else 0.1
    for one, other in zip(found["loop"], found["grouped"], strict=True):
        assert_close(one.float(), other.float(), atol=room * float(one.abs().max() + 1), rtol=room)


def test_filled_up_rows_change_nothing_in_bf16(monkeypatch):
    layer = MixtureOfExperts(n_experts=3, d_ff=16, router=Router(k=2), bias=True).build(8).to(torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=generator)
    x = torch.randn(MANY * 3, 8, generator=generator).bfloat16().requires_grad_()
    found = []
    for many in (MANY, 10 * MANY):
        monkeypatch.setattr(moe, "MANY", many)
        layer.zero_grad()
        x.grad = None
        y = layer(x[None])
        y.float().square().mean().backward()
        found.append([y, x.grad, *(parameter.grad for parameter in layer.parameters())])
    for one, other in zip(*found, strict=True):
        assert_close(one.float(), other.float(), atol=0.01 * float(one.abs().max()), rtol=0)


def test_experts_used_alike_have_an_imbalance_of_k():
    scores = torch.full((4, 4), 0.25)
    assert_close(imbalance(scores, torch.tensor([[0], [1], [2], [3]])), torch.tensor(1.0))
    assert_close(imbalance(scores, torch.tensor([[0, 1], [2, 3], [0, 1], [2, 3]])), torch.tensor(2.0))
    one = torch.tensor([[1.0, 0, 0, 0]]).expand(4, 4)
    assert_close(imbalance(one, torch.zeros(4, 1, dtype=torch.long)), torch.tensor(4.0))  # all on one of four


def test_imbalance_equals_that_of_transformers():
    mixtral = pytest.importorskip("transformers.models.mixtral.modeling_mixtral")
    logits = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    expected = mixtral.load_balancing_loss_func((logits,), 6, 2)
    scores = logits.softmax(-1)
    assert_close(imbalance(scores, scores.topk(2).indices), expected, atol=1e-5, rtol=1e-5)


def mixture(mlp=None, **more):
    mlp = mlp or MixtureOfExperts(n_experts=4, d_ff=12, router=Router(k=2))
    from chainrule.layers.attention import GroupedQuery

    block = Block(attention=GroupedQuery(n_heads=2, n_kv_heads=2, d_head=8), mlp=mlp)
    model = Decoder(DecoderConfig(vocab_size=13, context=16, d_model=16, blocks=(block, block), **more))
    model.init(torch.Generator().manual_seed(0), Normal(std=0.3))
    return model


def test_the_balance_is_added_once_a_batch_and_padding_does_not_count():
    model = mixture()
    tokens = torch.randint(13, (2, 8), generator=torch.Generator().manual_seed(1))
    plain, balanced = (
        loss(model, Batch(tokens, torch.ones(2, 8)))
        for loss in (cross_entropy, lambda m, b: balanced_cross_entropy(m, b, balance=0.5))
    )
    extra = (balanced.total - plain.total) / plain.weight
    assert_close(extra, 0.5 * balanced.metrics["imbalance"] / plain.weight)
    assert float(extra) >= 0.99  # half of k = 2, or more
    lengths = torch.tensor([8, 5])
    padded = Batch(tokens, torch.ones(2, 8), Layout.lengths(lengths, 8))
    other = tokens.clone()
    other[1, 5:] = 0
    again = Batch(other, torch.ones(2, 8), Layout.lengths(lengths, 8))
    assert_close(
        balanced_cross_entropy(model, padded, balance=0.5).total, balanced_cross_entropy(model, again, balance=0.5).total
    )


def test_a_model_without_experts_has_nothing_to_balance():
    with pytest.raises(ConfigError, match="this model has none"):
        balanced_cross_entropy(
            mixture(Gated(d_ff=12)), Batch(torch.ones(1, 4, dtype=torch.long), torch.ones(1, 4)), balance=0.1
        )


def test_muon_takes_every_expert_as_a_matrix_of_its_own():
    model = mixture()
    inside, _ = split_parameters(model)
    assert {parameter.ndim for parameter in inside.values()} == {2, 3}
    optimizer = Muon(model, lr=0.1, adam_lr=0.1)
    before = model.layers[0].mlp.experts.up_proj.detach().clone()
    loss = cross_entropy(
        model, Batch(torch.randint(13, (4, 16), generator=torch.Generator().manual_seed(2)), torch.ones(4, 16))
    )
    loss.total.backward()
    optimizer.step(1.0)
    change = model.layers[0].mlp.experts.up_proj.detach() - before
    sizes = torch.linalg.svdvals(change)  # each expert's update is nearly orthogonal
    assert sizes.min() > 0.03
    assert sizes.max() < 0.13


def test_the_biases_of_experts_are_no_matrices():
    """They are stacked to two dimensions; Muon would orthogonalise them, and weight decay draw them to zero."""
    model = mixture(MixtureOfExperts(n_experts=4, d_ff=12, router=Router(k=2), bias=True))
    inside, rest = split_parameters(model)
    biases = {f"layers.{i}.mlp.experts.{name}_bias" for i in (0, 1) for name in ("gate", "up", "down")}
    assert biases <= set(rest)
    assert not any("bias" in name for name in inside)
    for parameter in model.parameters():
        parameter.data += 1.0
        parameter.grad = torch.zeros_like(parameter)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    AdamW(model, lr=0.1, weight_decay=0.5).step(1.0)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) == (parameter.ndim < 2 or name in biases), name


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_a_narrow_model_keeps_its_router_wide_and_learns(kind):
    """As in a run in pure bf16: gradients of both formats are clipped together, and every matrix moves."""
    model = mixture(MixtureOfExperts(n_experts=16, d_ff=16, router=Router(k=2, correction=True))).to(torch.bfloat16)
    gate = model.layers[0].mlp.gate
    assert gate.weight.dtype == gate.e_score_correction_bias.dtype == torch.float32
    assert model.layers[0].self_attn.q_proj.weight.dtype == torch.bfloat16
    assert gate.weight.shape == model.layers[0].self_attn.q_proj.weight.shape  # Muon stacks matrices of one shape
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = Muon(model, lr=0.1, adam_lr=0.1) if kind == "muon" else AdamW(model, lr=0.1)
    tokens = torch.randint(13, (4, 16), generator=torch.Generator().manual_seed(2))
    cross_entropy(model, Batch(tokens, torch.ones(4, 16))).total.backward()
    _scale_and_clip(list(model.parameters()), 4 * 15.0, 1.0)
    optimizer.step(1.0)
    assert not [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]
    assert gate.weight.dtype == torch.float32


COMPILED = """
import torch
from chainrule.layers.moe import MixtureOfExperts
from chainrule.layers.router import Router
for dtype, width in ((torch.float32, 16), (torch.bfloat16, 12)):
    generator = torch.Generator().manual_seed(0)
    layer = MixtureOfExperts(n_experts=4, d_ff=width, router=Router(k=2)).build(16).to(dtype)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    x = torch.randn(2, 8, 16, generator=generator).to(dtype)
    y = torch.compile(layer, backend="aot_eager")(x)
    torch.testing.assert_close(y, layer(x), atol=1e-2, rtol=1e-2)
    y.sum().backward()
"""


def test_experts_compile_in_every_format_and_width():
    """Compiling, torch knows the grouped product in bf16 alone, and of rows of whole 16 bytes."""
    # in a process of its own: what checks shapes under pytest cannot be traced
    subprocess.run([sys.executable, "-c", COMPILED], check=True)


def test_a_head_whose_scores_are_capped_is_no_inner_matrix():
    model = mixture(tied=False, logit_cap=3.0)
    assert model.readout_weight is None
    inside, rest = split_parameters(model)
    assert "lm_head.weight" in rest
    assert "lm_head.weight" not in inside


def test_a_router_that_cannot_choose_is_refused():
    with pytest.raises(ConfigError, match="cannot be chosen"):
        Router(k=5).build(8, 4)
    with pytest.raises(ConfigError, match="1 <= kept <= groups"):
        Router(k=1, groups=2, kept=3)
