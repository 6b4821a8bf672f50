"""A brick is exchanged by argument: a decoder with a part that chainrule has never seen is a decoder like any other."""

from dataclasses import dataclass, replace
from typing import Literal

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from chainrule.core.datum import Batch, Layout
from chainrule.core.errors import CheckpointError
from chainrule.generate.engine import Engine, Request
from chainrule.hub.save import save
from chainrule.layers.init import Normal
from chainrule.layers.mlp import Gated, Plain
from chainrule.logprobs.losses import cross_entropy
from chainrule.models.decoder import Decoder, DecoderConfig

T = 9


@dataclass(frozen=True, kw_only=True)
class Sine(Plain):
    """A part of somebody else's; it says that it is an mlp, which is what blocks are declared to take."""

    kind: Literal["sine"] = "sine"
    d_ff: int = 16

    def build(self, d_model: int) -> nn.Module:
        return SineLayer(d_model, d_model)


class SineLayer(nn.Linear):
    def forward(self, x, tap=None):
        return super().forward(x).sin()


@dataclass(frozen=True, kw_only=True)
class Impostor(Gated):
    """One under the name of a part that published families have too."""

    d_ff: int = 24

    def build(self, d_model: int) -> nn.Module:
        return SineLayer(d_model, d_model)


def decoder(part: Plain | Gated) -> Decoder:
    config = DecoderConfig.uniform(vocab_size=23, context=64, d_model=16, n_layers=2, n_heads=2)
    model = Decoder(replace(config, blocks=tuple(replace(block, mlp=part) for block in config.blocks)))
    model.init(torch.Generator().manual_seed(1), Normal(std=0.3))
    return model.eval()


@pytest.fixture
def model() -> Decoder:
    return decoder(Sine())


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(23, (2, T), generator=torch.Generator().manual_seed(2))


def close(a, b):
    assert_close(a, b, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_foreign_part_decides_what_the_model_says(model, tokens):
    seen = []
    hidden = model.hidden(tokens, tap=lambda name, tensor: seen.append(name))
    assert sum(name.endswith("hook_mlp_out") for name in seen) == 2
    close(model.readout(hidden), model(tokens))
    before = model(tokens)
    model.layers[0].mlp.weight.zero_()
    assert not torch.allclose(model(tokens), before)


@torch.no_grad()
def test_a_cache_and_a_layout_change_nothing_with_a_foreign_part(model, tokens):
    whole, cache = model(tokens), model.cache(2, T)
    close(torch.cat([model(part, cache) for part in tokens.split([4, 1, T - 5], dim=1)], 1), whole)
    lengths = torch.tensor([T, 5])
    shifted = torch.stack([tokens[0], torch.cat([tokens[1, 5:], tokens[1, :5]])])
    padded = model(shifted, layout=Layout.lengths(lengths, T, left=True))
    close(padded[1, T - 5 :], whole[1, :5])


@torch.no_grad()
def test_the_engine_continues_with_a_foreign_part_as_reading_everything_again_does(model, tokens):
    engine, text = Engine(model), tokens[0, :4].tolist()
    engine.submit(Request(tokens=text, max_tokens=8, temperature=0.0))
    for event in (event for _ in range(8) for event in engine.step()):
        assert event.token == int(model(torch.tensor([text]))[0, -1].argmax())
        text.append(event.token)
    assert len(text) == 12


def test_gradients_reach_a_foreign_part(model, tokens):
    loss = cross_entropy(model, Batch(tokens, torch.ones(2, T)))
    loss.total.backward()
    for layer in model.layers:
        assert layer.mlp.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("part", "why"), [(Sine(), "'blocks\\[0\\].mlp' has kind 'sine'"), (Impostor(), "read back as another")]
)
def test_a_foreign_part_is_not_saved_as_what_nobody_could_load(part, why, tmp_path):
    with pytest.raises(CheckpointError, match=rf"no config.json can say .*{why}.*torch\.save"):
        save(tmp_path / "model", decoder(part))
    assert not (tmp_path / "model").exists()
