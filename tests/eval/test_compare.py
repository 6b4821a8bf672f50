import math
from dataclasses import replace

import numpy as np
import pytest

from chainrule.eval.bpb import Measured
from chainrule.eval.compare import compare, interval, verdict


def measured(name: str, bits: list[float], size: list[int], languages: list[str] | None = None) -> Measured:
    nats = tuple(math.log(2) * one for one in bits)
    spoken = tuple(languages or ["en"] * len(bits))
    return Measured(name=name, nats=nats, size_bytes=tuple(size), languages=spoken, tokens=1, seconds=1.0)


def test_a_model_does_not_differ_from_itself() -> None:
    one = measured("a", [10, 20, 35], [10, 10, 20])
    result = compare(one, one)
    assert (result.difference, result.low, result.high) == (0, 0, 0)
    assert verdict(result).startswith("No difference between a and a is shown")


def test_a_constant_advantage_has_an_interval_without_width() -> None:
    size = [10, 20, 40]
    result = compare(measured("a", [10, 20, 40], size), measured("b", [15, 30, 60], size))
    assert (result.difference, result.low, result.high) == pytest.approx((-0.5, -0.5, -0.5))
    assert verdict(result).startswith("a is better than b by 0.5000 bits per byte (95\u202f% interval −0.5000 to −0.5000")


def test_the_difference_weighs_documents_by_their_bytes() -> None:
    result = compare(measured("a", [4, 0], [1, 3]), measured("b", [0, 4], [1, 3]))
    assert result.difference == 0
    assert (result.low, result.high) == pytest.approx((-4 / 3, 4))


def test_the_interval_agrees_with_the_normal_approximation() -> None:
    generator = np.random.default_rng(1)
    difference = generator.normal(0.1, 1.0, size=4000)
    low, high = interval(list(difference), [1.0] * 4000, resamples=4000)
    half = 1.96 * difference.std() / math.sqrt(4000)
    assert low == pytest.approx(difference.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(difference.mean() + half, abs=0.1 * half)


def test_the_same_seed_gives_the_same_interval() -> None:
    difference, weight = [0.1, -0.4, 2.0, 0.3], [1.0, 2.0, 3.0, 1.0]
    assert interval(difference, weight, seed=3) == interval(difference, weight, seed=3)
    assert interval(difference, weight, seed=3, resamples=50) != interval(difference, weight, seed=4, resamples=50)


def test_many_documents_are_resampled_in_pieces_of_bounded_size(monkeypatch) -> None:
    whole = interval([0.1, -0.4, 2.0], [1.0, 2.0, 3.0], resamples=100)
    monkeypatch.setattr("chainrule.eval.compare.AT_ONCE", 21)
    assert interval([0.1, -0.4, 2.0], [1.0, 2.0, 3.0], resamples=100) == whole


def test_one_language_can_be_compared_alone() -> None:
    a = measured("a", [1, 2, 3, 4], [1, 1, 1, 1], ["en", "en", "zh", "zh"])
    b = measured("b", [1, 2, 5, 6], [1, 1, 1, 1], ["en", "en", "zh", "zh"])
    assert compare(a, b, language="zh").difference == pytest.approx(-2)
    assert compare(a, b, language="en").difference == 0
    assert compare(a, b).language == "all"


def test_a_model_that_pays_for_no_ends_is_compared_only_where_it_is_forced() -> None:
    a, b = measured("a", [1, 2], [1, 1]), replace(measured("b", [2, 3], [1, 1]), ends=False)
    for first, second in ((a, b), (b, a)):
        with pytest.raises(ValueError, match="a pays for the end of every document and b does not"):
            compare(first, second)
    assert compare(a, b, force=True).difference == pytest.approx(-1)
    assert compare(b, b).difference == 0


def test_where_one_alone_cannot_begin_a_document_that_is_told_and_not_the_documents() -> None:
    a, b = measured("a", [1, 2], [4, 4]), replace(measured("b", [1, 2], [3, 2]), begins=False)
    for force in (False, True):
        with pytest.raises(
            ValueError, match=r"the tokenizer of b has no token to begin .* a and b are judged on 8 and 5 bytes"
        ):
            compare(a, b, force=force)
    assert compare(b, b).difference == 0


def test_what_cannot_be_compared_is_refused() -> None:
    a = measured("a", [1, 2], [1, 1])
    with pytest.raises(ValueError, match="a paired comparison needs the same ones"):
        compare(a, measured("b", [1, 2], [1, 2]))
    with pytest.raises(ValueError, match="over 0 documents"):
        compare(a, a, language="zh")
    with pytest.raises(ValueError, match="b gives a document probability 0"):
        compare(a, measured("b", [1, math.inf], [1, 1]))
