import pytest

from chainrule.pages import scale, text


def test_a_chinese_character_is_two_columns_and_a_combining_accent_none() -> None:
    assert [text.columns(word) for word in ("a", "中", "é", "e\u0301", "，", "…", "─")] == [1, 2, 1, 1, 2, 1, 1]


def test_padding_fills_to_the_same_width_in_every_script() -> None:
    assert {text.columns(text.pad(word, 10)) for word in ("bytes", "仙II-212", "天气", "")} == {10}
    assert text.pad("天气", 6, right=True) == "  天气"


def test_clipping_leaves_room_for_the_ellipsis_and_never_halves_a_wide_character() -> None:
    assert text.clip("图书馆里", 6) == "图书…"
    assert text.clip("图书馆", 6) == "图书馆"


def test_escaping_leaves_nothing_that_xml_forbids() -> None:
    assert text.escape("a\x00\x1b<&\"'\ud800") == "a\ufffd\ufffd&lt;&amp;&quot;&#x27;\ufffd"


def test_numbers_are_written_as_a_person_would() -> None:
    assert text.fixed(1234.5, 1) == "1,234.5"
    assert text.fixed(-0.0001, 2) == "0.00"
    assert text.percent(0.0567) == "5.7\u202f%"
    assert text.percent(None) == "—"
    assert text.compact(999_950) == "1\u202fM"
    assert text.compact(-1500) == "−1.5\u202fk"
    assert [text.duration(x) for x in (8.25, 59.99, 270, 600, 3900, None)] == [
        "8.2 s",
        "1 min",
        "4 min 30 s",
        "10 min",
        "1 h 05 min",
        "—",
    ]
    assert [text.size(x) for x in (0, 512, 910e6, 1.734e9, None)] == [
        "0\u202fB",
        "512\u202fB",
        "910\u202fMB",
        "1.73\u202fGB",
        "—",
    ]
    assert text.size(2.684e12) == "2.68\u202fTB"
    assert text.size(16.0605e9, digits=4) == "16.06\u202fGB"
    assert [text.timing(x) for x in (0.0, 4.56e-5, 0.00123, 0.9996, 1234.5, None)] == [
        "0\u202fµs",
        "45.6\u202fµs",
        "1.23\u202fms",
        "1\u202fs",
        "1230\u202fs",
        "—",
    ]


def test_the_language_of_a_text_is_told_by_its_script() -> None:
    assert text.language("今天我来到了仙II-212。") == "zh-Hans"
    assert text.language("bits per byte of a long English caption, 中文") is None
    assert text.language("42") is None


def test_linear_ticks_are_round_and_within_the_axis() -> None:
    assert scale.Scale(low=0.3, high=7.9).ticks(5) == [2.0, 4.0, 6.0]
    assert scale.Scale(low=-1, high=1).ticks(4) == [-1.0, -0.5, 0.0, 0.5, 1.0]


def test_log_ticks_are_powers_of_ten_and_a_few_between() -> None:
    assert scale.Scale(low=1, high=1e6, log=True).ticks(7) == [10.0**i for i in range(7)]
    assert scale.Scale(low=0.5, high=8, log=True).ticks(5) == pytest.approx([0.5, 1, 2, 5])


def test_an_axis_over_one_value_or_none_still_has_a_length() -> None:
    assert scale.Scale.over([3.0]).at(3.0) == 0.5
    assert scale.Scale.over([]).at(1.0) == 0.5
    assert scale.Scale.over([float("inf"), 1.0, 2.0]).high == 2.0


def test_an_axis_without_length_is_refused() -> None:
    with pytest.raises(ValueError, match="from 1 to 1"):
        scale.Scale(low=1, high=1)
    with pytest.raises(ValueError, match="in logarithms"):
        scale.Scale(low=0, high=1, log=True)
