"""FLOPs of models that plan does not know: as torch counts them, and told at taps that are heard."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from chainrule.eval.explain.forward import pass_over
from chainrule.eval.explain.work import layers_of, work_of
from chainrule.hub.fresh import fresh_encoder, fresh_seq2seq, neural_ngram, recurrent

SHAPE = {"vocab_size": 50, "context": 64, "n_layers": 2, "d_model": 32, "n_heads": 2, "d_ff": 48}
IDS, SOURCE = [3, 1, 4, 1, 5], [2, 7, 1, 8, 2, 8, 1]
MODELS = {
    "encoder": lambda: fresh_encoder(**SHAPE, seed=0),
    "lstm": lambda: recurrent(vocab_size=50, d_model=16, n_layers=2),
    "gru": lambda: recurrent(vocab_size=50, d_model=16, cell="gru", d_hidden=24, tied=False),
    "neural-ngram": lambda: neural_ngram(vocab_size=50, d_model=8, d_hidden=16, direct=True),
    "t5": lambda: fresh_seq2seq(**SHAPE, plan="t5", init="normal", seed=0),
    "original": lambda: fresh_seq2seq(**SHAPE, plan="original", init="normal", seed=0),
}


@pytest.mark.parametrize("name", MODELS)
def test_products_are_those_that_torch_counts(name):
    model = MODELS[name]()
    pair = name in ("t5", "original")
    ids = IDS[:1] if pair else IDS  # of several target tokens torch counts the whole square, we the half that is seen
    given = {"given": {"source": torch.tensor([SOURCE])}} if pair else {}
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(torch.tensor([ids]), **given)
    works = work_of(model, None, len(ids), len(SOURCE))
    assert sum(work.flops for work in works) == counter.get_total_flops()
    assert sum(sum(layer.flops.values()) for layer in layers_of(works)) == counter.get_total_flops()


@pytest.mark.parametrize("name", MODELS)
def test_every_product_is_told_at_a_tap(name):
    model = MODELS[name]()
    pair = name in ("t5", "original")
    works = work_of(model, None, len(IDS), len(SOURCE))
    told = pass_over(model, IDS, works=works, given={"source": torch.tensor([SOURCE])} if pair else None)
    assert sum(seen.flops for seen in told.seen) == pytest.approx(told.flops, rel=1e-12)
    assert {name for seen in told.seen for name in seen.by} == {work.by for work in works}
    if pair:
        keys = {seen.name: seen.flops for seen in told.seen if seen.name.endswith("cross_attn.hook_k")}
        assert set(keys.values()) == {2 * 32 * 32 * len(SOURCE)}  # keys of the source, whatever the target


def test_the_products_of_an_encoders_mlp_are_told_where_each_is_done():
    model = MODELS["encoder"]()
    told = pass_over(model, IDS, works=work_of(model, None, len(IDS)))
    by = {seen.name: (seen.by, seen.flops) for seen in told.seen}
    for layer in ("blocks.0", "blocks.1"):
        assert by[f"{layer}.mlp.hook_post"] == (("up_proj",), 2 * 32 * 48 * len(IDS))
        assert by[f"{layer}.hook_mlp_out"] == (("down_proj",), 2 * 32 * 48 * len(IDS))


def test_a_causal_target_sees_half_of_its_square():
    works = work_of(MODELS["t5"](), None, len(IDS), len(SOURCE))
    own = [work.flops for work in works if work.place == "decoder.0" and work.tap == "attn.hook_z"]
    assert own == [2 * 2 * 2 * 16 * (5 * 6 / 2)]
