"""Pairs to batches: nothing of one leaks into another, each pair is learned whole, and the order is a function of the step."""

import json

import pytest
import torch

from chainrule.core.datum import PADDING
from chainrule.core.errors import DataError
from chainrule.data.pairs import PairStream, encode_pairs, read_pairs
from chainrule.logprobs.scoring import judged
from chainrule.tokenizers.byte import ByteTokenizer

PAIRS = [("ab", "x"), ("abcdef", "yz"), ("a", "wxyz"), ("abc", "v"), ("abcd", "uvw")]


def stream(rows=4, micro=2, pairs=PAIRS):
    return PairStream(encode_pairs(pairs, ByteTokenizer(), 256, 16), rows, micro, seed=1)


def test_a_batch_by_hand():
    (batch,) = stream(2, 2, PAIRS[:2]).batches(0)
    assert batch.tokens.tolist() == [[256, ord("x"), 256, 0], [256, ord("y"), ord("z"), 256]]
    assert batch.given["source"].tolist() == [[97, 98, 256, *[PADDING] * 4], [*b"abcdef", 256]]
    assert batch.mask.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert judged(batch).sum(1).tolist() == [2, 3]  # each letter and the end


def test_an_epoch_holds_every_pair_once_and_a_step_is_the_same_step_again():
    seen = [tuple(row[row != PADDING].tolist()) for step in range(5) for batch in stream(1, 1).batches(step)
            for row in batch.given["source"]]  # fmt: skip
    assert sorted(seen) == sorted((*source.encode(), 256) for source, _ in PAIRS)
    once, again = (stream().batches(7) for _ in range(2))
    for a, b in zip(once, again, strict=True):
        assert torch.equal(a.tokens, b.tokens)
        assert torch.equal(a.given["source"], b.given["source"])


def test_pairs_of_like_length_stand_together():
    first, second = stream().batches(0)
    assert (first.given["source"] != PADDING).sum(1).max() <= (second.given["source"] != PADDING).sum(1).min()


def test_a_file_of_pairs_is_read_and_a_broken_row_named(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps({"source": a, "target": b}) for a, b in PAIRS))
    assert read_pairs(path) == PAIRS
    path.write_text('{"source": "a", "target": "b"}\n{"source": "a", "taget": "b"}')
    with pytest.raises(DataError, match=r"pairs\.jsonl:2 has keys \['source', 'taget'\]"):
        read_pairs(path)
    path.write_text('{"source": "a", "target": "b"}')
    assert read_pairs(path) == [("a", "b")]
    path.write_text("{}")
    with pytest.raises(DataError, match=r"has keys \[\]"):
        read_pairs(path)


def test_a_pair_that_the_context_does_not_hold_is_refused():
    with pytest.raises(DataError, match="pair 2 is 7 and 4 tokens long and the context is 6; set context to 7 or more"):
        encode_pairs(PAIRS, ByteTokenizer(), 256, 6)


def test_micro_batches_divide_a_step():
    with pytest.raises(DataError, match="batch_rows=4 is not a multiple of micro_rows=3"):
        stream(4, 3)
