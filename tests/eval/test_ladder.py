import json
import math
import weakref

import pytest

from chainrule.eval.ladder import climb, contender, ngrams, parameters, truth, uniform
from chainrule.pages.text import columns

TEXTS, LANGUAGES = ["abcd", "今天"], ["en", "zh"]


def test_the_uniform_rung_costs_log_257_a_byte_and_an_end() -> None:
    (rung,) = climb([uniform()], TEXTS, LANGUAGES).rungs
    assert rung.bits_per_byte["en"] == pytest.approx(math.log2(257) * 5 / 4)
    assert rung.bits_per_byte["zh"] == pytest.approx(math.log2(257) * 7 / 6)
    assert rung.parameters is None


def test_the_truth_is_what_its_function_says() -> None:
    (rung,) = climb([truth(lambda text: -len(text.encode()) * math.log(2) / 2)], TEXTS, LANGUAGES).rungs
    assert rung.family == "truth"
    assert rung.bits_per_byte == pytest.approx({"en": 0.5, "zh": 0.5})


def test_a_rung_without_an_end_has_null_for_machines_and_infinity_for_people(toys) -> None:
    climbed = climb([contender("ML", "bytes", lambda: (toys.Uniform(257, never=97), toys.Bytes()))], TEXTS, LANGUAGES)
    assert climbed.rungs[0].bits_per_byte["en"] is None
    assert json.loads(climbed.json())[0]["bits_per_byte"]["en"] is None
    assert "∞" in climbed.text()


def test_ngrams_of_every_order_are_built_one_at_a_time(toys) -> None:
    alive: list[weakref.ref] = []

    def fit(order: int):
        assert all(model() is None for model in alive)
        model = toys.Reader(257)
        alive.append(weakref.ref(model))
        return model, toys.Bytes()

    climbed = climb(ngrams("bytes", fit), TEXTS, LANGUAGES)
    assert [rung.name for rung in climbed.rungs] == [f"bytes {n}-gram" for n in range(1, 7)]
    assert [rung.order for rung in climbed.rungs] == [1, 2, 3, 4, 5, 6]
    assert len(alive) == 6


def test_parameters_are_counted_and_tables_where_there_are_none(toys) -> None:
    assert parameters(toys.Reader(257)) == 257**2
    assert parameters(toys.Uniform(257)) == 0


def test_progress_hears_of_every_rung() -> None:
    heard = []
    climb([uniform(), truth(lambda text: -1.0)], TEXTS, progress=heard.append)
    assert [rung.name for rung in heard] == ["uniform", "truth"]


def test_what_was_measured_is_kept_for_comparisons() -> None:
    climbed = climb([uniform()], TEXTS, LANGUAGES)
    assert climbed.measured["uniform"].languages == ("en", "zh")


def test_the_table_aligns_under_chinese_headings() -> None:
    text = climb([uniform(), truth(lambda text: -1.0)], TEXTS, LANGUAGES).text()
    head, rule, *rows = text.split("\n")
    assert "中文" in head
    assert columns(head) == columns(rule) == max(map(columns, rows))
