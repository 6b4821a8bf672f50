"""Measuring on a device that has no float64, as Apple's MPS: the answers are those of the CPU.

No such device need be here. A ``Far`` tensor stands for one that lives there: all that is reckoned with it is far too, float64
is refused in torch's own words, and only ``cpu()`` brings it back.
"""

import pytest
import torch
from torch import nn

from chainrule.core.datum import Batch
from chainrule.eval.bpb import measure
from chainrule.eval.branches import measure_in_order, measure_in_parts
from chainrule.eval.gradients import layer_gradients
from chainrule.hub.fresh import fresh, fresh_encoder, fresh_seq2seq
from chainrule.hub.lm import LM
from chainrule.layers.sinusoidal import Sinusoidal
from chainrule.tokenizers.byte import ByteTokenizer

SHAPE = {"vocab_size": 258, "context": 32, "n_layers": 2, "d_model": 16, "n_heads": 2, "d_ff": 16, "seed": 0}
TEXTS = ["ab", "a longer text, in many parts", "猫"]
TOKENIZER = ByteTokenizer()


class Far(torch.Tensor):
    """A tensor on a device without float64."""

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func is torch.Tensor.cpu:
            return args[0].as_subclass(torch.Tensor)
        out = super().__torch_function__(func, types, args, kwargs)
        if func == torch.Tensor.grad.__get__ and out is not None:
            return out.as_subclass(Far)
        if isinstance(out, Far) and out.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64.")
        return out


def far(model: nn.Module) -> nn.Module:
    """The model with its weights on that device."""
    for module in list(model.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(parameter.detach().as_subclass(Far)))
    return model


def decoder():
    return fresh(**SHAPE, n_kv_heads=None, rope_theta=1e4, tied=True, init="normal")


def seq2seq(plan):
    return fresh_seq2seq(**SHAPE, plan=plan, init="normal")


def test_the_device_is_one_without_float64():
    weight = far(decoder()).embed_tokens.weight
    assert isinstance(weight * 2, Far)
    with pytest.raises(TypeError, match="doesn't support float64"):
        (weight * 2).double()
    assert weight.cpu().double().dtype == torch.float64


def test_a_decoder_costs_the_same():
    assert measure(far(decoder()), TOKENIZER, TEXTS).nats == measure(decoder(), TOKENIZER, TEXTS).nats


@pytest.mark.parametrize("plan", ["original", "t5"])
def test_an_encoder_decoder_costs_the_same(plan):
    found, wanted = (measure_in_parts(model, TOKENIZER, TEXTS, name="x") for model in (far(seq2seq(plan)), seq2seq(plan)))
    assert found.nats == wanted.nats


def test_an_encoder_costs_the_same():
    models = (far(fresh_encoder(**SHAPE)), fresh_encoder(**SHAPE))
    found, wanted = (measure_in_order(model, TOKENIZER, 257, TEXTS, name="x") for model in models)
    assert found.nats == wanted.nats


def test_the_beginning_of_a_text_is_as_likely():
    assert LM(far(decoder()), TOKENIZER).logp_begins("Tom") == LM(decoder(), TOKENIZER).logp_begins("Tom")


def test_the_gradients_are_the_same():
    tokens = torch.randint(257, (2, 8), generator=torch.Generator().manual_seed(0))
    batch = Batch(tokens, torch.ones(2, 8))
    assert layer_gradients(far(decoder()), batch) == layer_gradients(decoder(), batch)


def test_positions_are_the_same():
    position = torch.arange(40)[None]
    found = Sinusoidal().added(position.as_subclass(Far), 16)
    assert isinstance(found, Far)
    assert torch.equal(found.cpu(), Sinusoidal().added(position, 16))
