"""Bricks: a step's work is theirs and no more, and each of them can be laid out and timed."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from chainrule.core.errors import ConfigError
from chainrule.eval.anatomy import attention_of, take_apart
from chainrule.eval.brick_times import BrickTimes, _scores, least_block
from chainrule.eval.bricks import Frame, Orthogonal, Pass, Product, Scores, Turn, bricks, learning_bricks, update_bricks
from chainrule.eval.flops import flops, flops_at
from chainrule.eval.memory import Setting, _workspace
from chainrule.eval.stopwatch import seconds_of
from chainrule.hub.fresh import fresh
from chainrule.layers.cache import KVCache
from chainrule.layers.mlp import Plain
from chainrule.layers.moe import MixtureOfExperts
from chainrule.layers.norm import LayerNorm
from chainrule.layers.position import Learned, NoPosition
from chainrule.layers.router import Router
from chainrule.models.blocks import Block
from chainrule.models.decoder import Decoder, DecoderConfig
from tests.eval.test_plan import D, V, attention


def tiny():
    model = fresh(vocab_size=50, context=64, n_layers=3, d_model=32, n_heads=2, n_kv_heads=1, d_ff=48, rope_theta=1e4, tied=True,
                  init="normal", seed=0)  # fmt: skip
    return take_apart(model, "tiny")


def test_bricks_of_a_row_have_the_flops_of_its_tokens():
    anatomy = tiny()
    whole = sum(n * brick.flops for brick, n in bricks(anatomy, 2, 20, 20).items())
    assert whole == pytest.approx(2 * 20 * flops(anatomy, 20).forward)
    one = sum(n * brick.flops for brick, n in bricks(anatomy, 2, 1, 20).items())
    assert one == pytest.approx(2 * flops_at(anatomy, 19).forward)
    words = bricks(anatomy, 2, 20, 20, words=2)
    assert words[Product(2, 32, 50, packs=False)] == 1


def test_muon_orthogonalises_the_matrices_inside_and_adamw_takes_the_rest():
    anatomy = tiny()
    muon = update_bricks(anatomy, "muon")
    assert muon[Orthogonal(6, 32, 32)] == 1  # q and o of three layers
    assert muon[Orthogonal(6, 48, 32)] == 1  # gate and up
    assert muon[Pass("adamw", 1, 50 * 32 + 7 * 32, 4, 3)] == 1
    assert Orthogonal(1, 4, 8).flops == 5 * (4 * 16 * 8 + 2 * 64)
    assert update_bricks(anatomy, "adamw")[Pass("adamw", 1, anatomy.total, 4, 3)] == 1


def test_every_expert_is_a_matrix_to_muon():
    experts = Block(attention=attention(), mlp=MixtureOfExperts(n_experts=4, d_ff=32, router=Router(k=2)))
    some = take_apart(Decoder(DecoderConfig(vocab_size=V, context=64, d_model=D, blocks=(experts, experts))), "experts")
    muon = update_bricks(some, "muon")
    assert muon[Orthogonal(2 * 4 * 2, 32, D)] == 1  # gate and up of four experts in two layers
    assert muon[Orthogonal(2 * 4, D, 32)] == 1
    assert muon[Pass("adamw", 1, V * D + 5 * D, 4, 3)] == 1  # the table of tokens, and norms
    assert _workspace(some, Setting(precision="fp32", optimizer="muon")) == 2 * 4 * 2 * 32 * D * (4 + 3 * 4)


@pytest.mark.parametrize("mixed", [False, True])
def test_every_brick_of_training_and_inference_can_be_timed(mixed):
    plain = Decoder(DecoderConfig(vocab_size=V, context=64, d_model=D, blocks=(Block(attention=attention(window=3), mlp=Plain(d_ff=20), norm=LayerNorm()),)))  # fmt: skip
    for anatomy in (tiny(), take_apart(plain, "plain")):
        learn = BrickTimes(1e5, mixed=mixed, tries=1)
        laid = (
            bricks(anatomy, 1, 8, 8)
            + learning_bricks(anatomy, 8)
            + update_bricks(anatomy, "muon")
            + update_bricks(anatomy, "sgd")
        )
        assert learn.total(laid) == pytest.approx(sum(n * learn.known[brick] for brick, n in laid.items()))
        assert min(learn.known.values()) > 0
        read = BrickTimes(1e5, learn=False, tries=1)
        token = bricks(anatomy, 1, 1, 8, cached=True)
        assert read.total(token) == pytest.approx(sum(n * read.known[brick] for brick, n in token.items()))


def test_every_block_that_writes_a_token_has_a_frame_and_no_other():
    anatomy = tiny()
    assert sum(n for brick, n in bricks(anatomy, 2, 1, 20, cached=True).items() if isinstance(brick, Frame)) == 3
    assert not any(isinstance(brick, Frame) for brick in (*bricks(anatomy, 2, 1, 20), *bricks(anatomy, 2, 20, 20, cached=True)))


PLAIN = Block(attention=attention(), mlp=Plain(d_ff=80), norm=LayerNorm(), position=Learned())


def test_rope_is_laid_only_where_there_is_rope():
    learned = Decoder(DecoderConfig(vocab_size=V, context=64, d_model=D, blocks=(PLAIN, PLAIN), position=Learned()))
    one_without = (replace(PLAIN, position=None), replace(PLAIN, position=NoPosition()))
    mixed = Decoder(DecoderConfig(vocab_size=V, context=64, d_model=D, blocks=one_without))
    for model, turned in ((learned, 0), (mixed, 1)):
        laid = bricks(take_apart(model, "plain"), 2, 1, 20, cached=True)
        assert sum(n for brick, n in laid.items() if isinstance(brick, Turn)) == turned
        assert sum(n for brick, n in laid.items() if isinstance(brick, Frame)) == 2


@pytest.mark.parametrize("block", [tiny().blocks[0], PLAIN])
def test_the_least_block_does_its_bricks(block):
    laid, products, least = least_block(Frame(2, block))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        laid.work(*laid.inputs)
    counted = {str(op): n for op, n in counter.get_flop_counts()["Global"].items()}
    assert sum(n for op, n in counted.items() if op.endswith(("mm", "addmm"))) == sum(
        n * brick.flops for brick, n in least.items() if isinstance(brick, Product)
    )
    assert len(products) == sum(n for brick, n in least.items() if isinstance(brick, Product))


def test_between_two_visits_to_what_a_block_reads_lies_as_much_as_between_two_visits_to_a_matrix():
    """Of a model of 48 MB, three blocks of seven matrices: 21 pieces of whole kilowords; no more than no cache holds."""
    pieces = BrickTimes(48e6).between(21)
    assert len({piece.data_ptr() for piece in pieces}) == 21
    assert 48e6 <= pieces.nbytes < 48e6 + 21 * 4096
    assert 64e6 <= BrickTimes(1e12).between(21).nbytes < 64e6 + 21 * 4096


def test_a_token_reads_keys_that_lie_as_in_a_cache():
    shape = attention_of(attention())
    cache = KVCache(2, 9, (((2, 12), (2, 12)),))
    cache.longest = 8
    keys, _ = cache.store(0, torch.tensor([[7], [7]]), torch.zeros(2, 1, 2, 12), torch.zeros(2, 1, 2, 12))
    _, k, _ = _scores(Scores(2, 1, 8, 8.0, shape, cached=True), torch.float32, False).inputs
    assert (k.shape, k.stride()[2:]) == (keys.shape, keys.stride()[2:])
    assert k.stride(1) > 8 * 12  # each head's keys stand together


def test_experts_are_refused_since_their_time_depends_on_the_text():
    experts = Block(attention=attention(), mlp=MixtureOfExperts(n_experts=4, d_ff=8, router=Router(k=2)))
    anatomy = take_apart(Decoder(DecoderConfig(vocab_size=V, context=64, d_model=D, blocks=(experts,))), "experts")
    with pytest.raises(ConfigError, match="depends on which are chosen"):
        BrickTimes(1e5, tries=1).total(bricks(anatomy, 1, 8, 8))


def test_the_clock_is_an_argument():
    ticks = iter(range(1000))
    times = BrickTimes(1e5, tries=3, clock=lambda: float(next(ticks)))
    assert times.seconds(Pass("add", 4, 4, 2, 1)) == 1.0
    assert seconds_of(lambda: torch.ones(1), tries=1) >= 0
