"""Matrices in four bits: a group by hand, a stack of them in place of a mixture's experts."""

from typing import Literal

import pytest
import torch
from torch.testing import assert_close

from chainrule.adapt.int4 import Int4Linear, Int4Stack, dequantize, in_four_bits, pack, quantize, unpack
from chainrule.layers.moe import Experts, MixtureOfExperts, by_loop, grouped
from chainrule.layers.router import Routed, Router


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_a_group_by_hand():
    """0, 1 … 31 in sixteen steps of 31/15: the scale is 2.0625 in bf16, the zero 16.5, so that code 8 means 16.5."""
    q, scales = quantize(torch.arange(32.0)[None])
    assert scales[0, 0].tolist() == [2.0625, 16.5]
    assert dequantize(q, scales)[0, [0, 16, 31]].tolist() == [0.0, 16.5, 30.9375]
    assert torch.equal(unpack(pack(q)), q)


@pytest.mark.parametrize("kernel", [None, False])
def test_a_stack_holds_what_its_matrices_hold_one_by_one(kernel):
    weights = normal(3, 64, 96)
    stack = Int4Stack.of(weights, kernel=kernel)
    assert len(stack) == 3
    assert sum(buffer.nbytes for buffer in stack.buffers()) == weights.numel() * 5 // 8
    for i, weight in enumerate(weights):
        assert torch.equal(stack[i].weight, Int4Linear.of(weight, kernel=kernel).weight)


@torch.no_grad()
def experts(bias: bool, weigh: Literal["input", "output"]) -> tuple[Experts, Experts]:
    """(a mixture's experts in four bits, the same matrices in float32)."""
    part = MixtureOfExperts(n_experts=4, d_ff=32, router=Router(k=2), bias=bias, weigh=weigh)
    packed, plain = Experts(part, 64), Experts(part, 64)
    for i, (name, parameter) in enumerate(plain.named_parameters()):
        parameter.copy_(normal(*parameter.shape, seed=i))
        if name.endswith("_proj"):
            stack = Int4Stack.of(parameter)
            delattr(packed, name)
            setattr(packed, name, stack)
            setattr(plain, name, torch.nn.Parameter(torch.stack([stack[j].weight for j in range(4)])))
        else:
            setattr(packed, name, parameter)
    return packed, plain


@pytest.mark.parametrize(("bias", "weigh"), [(False, "output"), (True, "input")])
@pytest.mark.parametrize("dispatch", [grouped, by_loop])
def test_experts_in_four_bits_say_what_their_matrices_say(bias, weigh, dispatch):
    """One expert is read by nobody; the gradient reaches what they read."""
    packed, plain = experts(bias, weigh)
    assert in_four_bits(packed) == ["gate_proj", "up_proj", "down_proj"]
    chosen = torch.tensor([[0, 1], [1, 3], [3, 0], [1, 0], [0, 3]])
    routed = Routed(chosen, normal(5, 2, seed=8).softmax(-1), torch.zeros(5, 4))
    with torch.no_grad():
        assert_close(dispatch(packed, normal(5, 64), routed), dispatch(plain, normal(5, 64), routed), atol=1e-3, rtol=1e-4)
    gradients = []
    for one in (packed, plain):
        x = normal(5, 64).requires_grad_()
        dispatch(one, x, routed).square().sum().backward()
        gradients.append(x.grad)
    assert_close(*gradients, atol=1e-1, rtol=1e-3)


@pytest.mark.parametrize("kernel", [None, False])
def test_on_the_way_back_a_matrix_is_unpacked_again_and_nothing_is_kept(kernel):
    layer = Int4Linear.of(normal(64, 96), torch.nn.Parameter(normal(64, seed=1)), kernel=kernel)
    x, kept = normal(5, 96, seed=2).requires_grad_(), []
    with torch.autograd.graph.saved_tensors_hooks(kept.append, lambda tensor: tensor):
        y = layer(x)
    assert kept == []
    towards = normal(5, 64, seed=3)
    y.backward(towards)
    assert_close(y, x @ layer.weight.mT + layer.bias, atol=1e-4, rtol=1e-4)
    assert_close(x.grad, towards @ layer.weight, atol=1e-4, rtol=1e-4)
    assert_close(layer.bias.grad, towards.sum(0), atol=1e-4, rtol=1e-4)


def test_no_token_at_all_is_read_too():
    packed, _ = experts(False, "output")
    routed = Routed(torch.zeros(0, 2, dtype=torch.long), torch.zeros(0, 2), torch.zeros(0, 4))
    assert grouped(packed, torch.zeros(0, 64), routed).shape == (0, 64)
