"""The encoder–decoder: equal to torch's own Transformer layers, blind to padding of the source, each row with its own."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from chainrule.core.datum import PADDING, Layout
from chainrule.core.errors import ConfigError, RequestError
from chainrule.generate.engine import Engine, Request, run
from chainrule.layers.init import Normal
from chainrule.layers.mlp import Plain
from chainrule.layers.multi_head import MultiHead
from chainrule.layers.relative_bias import RelativeBias
from chainrule.models.seq2seq import Seq2Seq, Seq2SeqConfig
from chainrule.models.stack import PreNormBlock

SIZES = {"vocab_size": 29, "context": 40, "d_model": 24, "n_layers": 2, "n_heads": 4, "d_ff": 36}
PLANS = {"original": Seq2SeqConfig.original, "t5": Seq2SeqConfig.t5}


def made(plan: str, std: float = 0.3) -> Seq2Seq:
    model = Seq2Seq(PLANS[plan](**SIZES))
    model.init(torch.Generator().manual_seed(0), Normal(std=std))
    return model.eval()


def ids(b: int, t: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(29, (b, t), generator=torch.Generator().manual_seed(seed))


def copy_attention(theirs: nn.MultiheadAttention, ours: nn.Module) -> None:
    for at, proj in zip(theirs.in_proj_weight.chunk(3), (ours.q_proj, ours.k_proj, ours.v_proj), strict=True):
        at.copy_(proj.weight)
    for at, proj in zip(theirs.in_proj_bias.chunk(3), (ours.q_proj, ours.k_proj, ours.v_proj), strict=True):
        at.copy_(proj.bias)
    theirs.out_proj.load_state_dict(ours.o_proj.state_dict())


def copy_layer(theirs: nn.Module, ours: nn.Module, *, decodes: bool) -> None:
    copy_attention(theirs.self_attn, ours.self_attn)
    theirs.linear1.load_state_dict(ours.mlp.up_proj.state_dict())
    theirs.linear2.load_state_dict(ours.mlp.down_proj.state_dict())
    theirs.norm1.load_state_dict(ours.self_attn_norm.state_dict())
    if decodes:
        copy_attention(theirs.multihead_attn, ours.cross_attn)
        theirs.norm2.load_state_dict(ours.cross_attn_norm.state_dict())
    (theirs.norm3 if decodes else theirs.norm2).load_state_dict(ours.mlp_norm.state_dict())


def sinusoids(t: int, d: int) -> torch.Tensor:
    table = torch.zeros(t, d)
    for p in range(t):
        for i in range(0, d, 2):
            angle = torch.tensor(p / 10000 ** (i / d), dtype=torch.float64)
            table[p, i], table[p, i + 1] = angle.sin(), angle.cos()
    return table


@torch.no_grad()
def test_the_original_equals_a_construction_from_torchs_own_layers():
    ours = made("original")
    for parameter in ours.parameters():  # norms and biases too, so that nothing hides
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=1.0, std=0.3, generator=torch.Generator().manual_seed(parameter.numel()))
    make = {"d_model": 24, "nhead": 4, "dim_feedforward": 36, "dropout": 0.0, "activation": "relu", "batch_first": True}
    encoder = [nn.TransformerEncoderLayer(**make).eval() for _ in range(2)]
    decoder = [nn.TransformerDecoderLayer(**make).eval() for _ in range(2)]
    for theirs, own in zip(encoder, ours.encoder.layers, strict=True):
        copy_layer(theirs, own, decodes=False)
    for theirs, own in zip(decoder, ours.decoder.layers, strict=True):
        copy_layer(theirs, own, decodes=True)
    source, target = ids(3, 9), ids(3, 7, 1)
    source[1, 5:] = PADDING
    hidden = source == PADDING
    x = ours.embed_tokens.weight[source.clamp(min=0)] * 24**0.5 + sinusoids(9, 24)
    for layer in encoder:
        x = layer(x, src_key_padding_mask=hidden)
    assert_close(ours.encode(source)[~hidden], x[~hidden], atol=1e-5, rtol=1e-5)
    y = ours.embed_tokens.weight[target] * 24**0.5 + sinusoids(7, 24)
    mask = nn.Transformer.generate_square_subsequent_mask(7).isinf()
    for layer in decoder:
        y = layer(y, x, tgt_mask=mask, memory_key_padding_mask=hidden)
    assert_close(ours(target, given={"source": source}), y @ ours.embed_tokens.weight.T, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("plan", PLANS)
@torch.no_grad()
def test_padding_of_the_source_changes_nothing_wherever_it_stands(plan):
    model, source, target = made(plan), ids(1, 6), ids(1, 5, 1)
    plain = model(target, given={"source": source})
    empty = torch.full((1, 3), PADDING)
    for padded in ([source, empty], [empty, source], [empty, source[:, :2], empty, source[:, 2:]]):
        assert_close(model(target, given={"source": torch.cat(padded, 1)}), plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("plan", PLANS)
@torch.no_grad()
def test_the_source_matters_and_so_does_its_order(plan):
    model, target = made(plan), ids(1, 5, 1)
    a, b = (model(target, given={"source": source}) for source in (ids(1, 6), ids(1, 6).flip(1)))
    assert (a - b).abs().max() > 0.1


@pytest.mark.parametrize("plan", PLANS)
def test_requests_with_sources_of_their_own_get_what_they_would_get_alone(plan):
    model = made(plan)
    requests = [
        Request(tokens=[1], max_tokens=4 + 3 * i, temperature=1.0, seed=i, given={"source": ids(1, n, seed=i)})
        for i, n in enumerate((3, 8, 1, 5))
    ]
    together = run(Engine(model), requests)
    alone = [run(Engine(model), [request])[0] for request in requests]
    for ours, single in zip(together, alone, strict=True):
        assert [event.token for event in ours] == [event.token for event in single]
        assert_close(torch.tensor([e.logp for e in ours]), torch.tensor([e.logp for e in single]), atol=1e-5, rtol=1e-5)


def test_a_condition_filled_in_is_that_of_every_request():
    model, source = made("t5"), ids(1, 5)
    requests = [Request(tokens=[1], max_tokens=4, seed=seed) for seed in (1, 2)]
    own = replace(requests[0], given={"source": ids(1, 3, 7)})
    found = run(Engine(model.given({"source": source})), [*requests, own])
    expected = run(Engine(model), [*(replace(request, given={"source": source}) for request in requests), own])
    assert [[event.token for event in events] for events in found] == [[event.token for event in events] for events in expected]
    with torch.no_grad():
        both = model.given({"source": source})(ids(2, 3, 1))
        assert_close(both, model(ids(2, 3, 1), given={"source": source.expand(2, -1)}))


def test_a_condition_of_many_rows_is_refused_before_a_request_waits():
    engine = Engine(made("t5").given({"source": ids(2, 5)}))
    with pytest.raises(ConfigError, match="2 by 5; it must be ids, one row for each of 1 targets"):
        engine.submit(Request(tokens=[1]))
    assert not engine.busy


def test_a_cache_encodes_the_source_once():
    model, read = made("t5"), []
    model.encoder.register_forward_hook(lambda *_: read.append(1))
    run(Engine(model), [Request(tokens=[1], max_tokens=6, given={"source": ids(1, 5)}) for _ in range(3)])
    assert len(read) == 1


@pytest.mark.parametrize("plan", PLANS)
@torch.no_grad()
def test_a_cache_that_keeps_other_rows_keeps_their_sources(plan):
    model, source, first, more = made(plan), ids(2, 5, 1), ids(2, 3, 2), ids(2, 2, 3)
    known = model.given({"source": source})
    cache = known.cache(2, 10)
    known(first, cache)
    cache.keep(torch.tensor([1, 0]))
    whole = model(torch.cat([first[[1, 0]], more], 1), given={"source": source[[1, 0]]})
    assert_close(known(more, cache), whole[:, 3:], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_rows_may_be_packed_where_they_share_a_source():
    model, source = made("t5"), ids(1, 6)
    row = torch.cat([ids(1, 4, 1), ids(1, 3, 2)], 1)
    layout = Layout(torch.tensor([[0, 1, 2, 3, 0, 1, 2]]), torch.tensor([[0, 0, 0, 0, 1, 1, 1]]))
    found = model(row, layout=layout, given={"source": source})
    assert_close(found[:, 4:], model(ids(1, 3, 2), given={"source": source}), atol=1e-5, rtol=1e-5)


def test_taps_have_the_names_of_an_encoder_decoder():
    heard = {}
    made("t5")(ids(2, 5), given={"source": ids(2, 7)}, tap=heard.__setitem__)
    wanted = {
        "encoder.0.attn.hook_pattern": (2, 4, 7, 7), "decoder.1.cross_attn.hook_pattern": (2, 4, 5, 7),
        "decoder.1.attn.hook_q": (2, 5, 4, 6), "decoder.0.hook_cross_attn_out": (2, 5, 24), "encoder.1.hook_resid_post": (2, 7, 24),
    }  # fmt: skip
    assert {name: tuple(heard[name].shape) for name in wanted} == wanted
    assert_close(heard["decoder.0.cross_attn.hook_pattern"].sum(-1), torch.ones(2, 4, 5))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "given a source"),
        ({"pictures": torch.zeros(1, 3)}, "needs to be given source"),
        ({"source": torch.zeros(1, 3, dtype=torch.long), "pictures": torch.zeros(1, 3)}, "cannot be given pictures"),
        ({"source": torch.zeros(1, 3)}, "must be ids"),
        ({"source": torch.zeros(2, 3, dtype=torch.long)}, "one row for each of 1 targets"),
        ({"source": torch.full((1, 3), PADDING)}, "a source is empty"),
        ({"source": torch.zeros(1, 0, dtype=torch.long)}, "a source is empty"),
        ({"source": torch.tensor([[1, 29]])}, "holds the id 29"),
        ({"source": torch.tensor([[1, -2]])}, "holds the id -2"),
        ({"source": torch.zeros(1, 41, dtype=torch.long)}, "a source of 41 tokens is too long"),
    ],
)
def test_a_source_that_cannot_be_read_is_refused_before_any_work(given, says):
    model = made("t5")
    with pytest.raises((ConfigError, RequestError), match=says):
        model(ids(1, 3), given=given)
    with pytest.raises((ConfigError, RequestError), match=says):
        Engine(model).submit(Request(tokens=[1], given=given))


def test_a_target_beyond_the_context_is_refused():
    with pytest.raises(RequestError, match="a target of 41 tokens"):
        made("original")(ids(1, 41), given={"source": ids(1, 3)})


def test_configs_that_cannot_be_built_say_why():
    few = PreNormBlock(attention=MultiHead(n_heads=2, d_head=4), mlp=Plain(d_ff=8))
    many = PreNormBlock(attention=MultiHead(n_heads=4, d_head=4), mlp=Plain(d_ff=8))
    rest = {"vocab_size": 5, "context": None, "d_model": 8, "position": RelativeBias(), "norm": None}
    with pytest.raises(ConfigError, match=r"\[2, 4\] heads"):
        Seq2SeqConfig(encoder=(few, many), decoder=(few,), **rest)
    with pytest.raises(ConfigError, match="decoder is empty"):
        Seq2SeqConfig(encoder=(few,), decoder=(), **rest)
    with pytest.raises(ConfigError, match="n_heads=5"):
        Seq2SeqConfig.t5(**SIZES | {"n_heads": 5})
