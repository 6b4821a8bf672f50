"""A tap that hears some names alone: an ending may be a leaf, a part of a name or the whole of it."""

import pytest
import torch

from chainrule.core.tap import Only, under, wants
from chainrule.models.decoder import Decoder, DecoderConfig


@pytest.mark.parametrize(
    ("ending", "expected"),
    [
        ("blocks.0.hook_resid_post", ["blocks.0.hook_resid_post"]),
        ("blocks.1.attn.hook_pattern", ["blocks.1.attn.hook_pattern"]),
        ("attn.hook_z", ["blocks.0.attn.hook_z", "blocks.1.attn.hook_z"]),
        ("hook_pattern", ["blocks.0.attn.hook_pattern", "blocks.1.attn.hook_pattern"]),
        (("hook_embed", "1.mlp.hook_post"), ["hook_embed", "blocks.1.mlp.hook_post"]),
        ("hook_nothing", []),
    ],
)
def test_only_what_was_asked_for_is_heard_and_as_it_is_without_it(ending, expected):
    config = DecoderConfig.uniform(vocab_size=11, context=8, d_model=8, n_layers=2, n_heads=2)
    model, tokens = Decoder(config, torch.Generator().manual_seed(0)).eval(), torch.tensor([[1, 2, 3]])
    whole, heard = {}, {}
    model.hidden(tokens, tap=whole.__setitem__)
    model.hidden(tokens, tap=Only(ending, heard.__setitem__))
    assert list(heard) == expected
    assert all(torch.equal(heard[name], whole[name]) for name in expected)


def test_what_nobody_asks_for_is_not_wanted():
    inner = under("attn.", under("blocks.1.", Only("blocks.1.attn.hook_pattern", print)))
    assert wants(inner, "hook_pattern")
    assert not wants(inner, "hook_z")
    assert not wants(under("attn.", under("blocks.0.", Only("blocks.1.attn.hook_pattern", print))), "hook_pattern")
    assert wants(under("attn.", print), "hook_pattern")
    assert not wants(under("attn.", None), "hook_pattern")
