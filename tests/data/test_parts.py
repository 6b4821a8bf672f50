"""A text in parts: nothing is lost, each part knows what stands before it and nothing of what comes."""

import pytest

from chainrule.data.parts import part_size, parts

START, END = 100, 99


@pytest.mark.parametrize("length", [1, 2, 3, 4, 7, 8, 9, 40])
def test_the_parts_of_a_text_are_the_text(length):
    ids = [*range(length), END]
    pairs = parts(ids, start=START, end=END, context=12)
    assert [token for _, target in pairs for token in target[1:]] == ids
    assert all(target[0] == START for _, target in pairs)
    assert all(len(target) <= 1 + part_size(12) for _, target in pairs)


def test_a_source_is_what_stands_before_its_part_as_far_as_the_context_reaches():
    pairs = parts([*range(40), END], start=START, end=END, context=12)
    for i, (source, _) in enumerate(pairs):
        before = list(range(3 * i))[-11:]
        assert source.tolist() == [*before, END]


def test_what_is_still_to_come_changes_no_part_before_it():
    short = parts([*range(9), END], start=START, end=END, context=12)
    long = parts([*range(30), END], start=START, end=END, context=12)
    for (a, b), (c, d) in zip(short[:3], long, strict=False):
        assert a.tolist() == c.tolist()
        assert b.tolist() == d.tolist()
