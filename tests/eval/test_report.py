import dataclasses
import json
import math
import re
from html.parser import HTMLParser

import pytest

from chainrule.eval import findings, report, tables
from chainrule.eval.results import (
    ChatScore,
    Goals,
    Machine,
    ModelFacts,
    NextProbe,
    Odds,
    OrderProbe,
    Results,
    Rung,
    read,
    write,
)
from chainrule.eval.summary import summary
from chainrule.pages.text import columns


def small(**changes) -> Results:
    """The least that a run on one's own text finds."""
    parts = {
        "name": "mine",
        "source": "book.txt",
        "seed": 0,
        "chainrule": "0.1.0",
        "machine": Machine(device="cpu", threads=2, dtype="fp32", python="3.11", torch="2.13"),
        "model": ModelFacts(parameters=10, vocab_size=257, shape="1 layer"),
        "ladder": (
            Rung(name="tokens 2-gram", family="tokens", bits_per_byte={"text": 2.0}),
            Rung(name="Transformer", family="model", bits_per_byte={"text": 1.5}),
        ),
        "costs": (),
    }
    return Results(**{**parts, **changes})


class Headings(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.inside, self.found = False, []
        self.feed(html)

    def handle_starttag(self, tag, attrs) -> None:
        self.inside = tag == "h2"

    def handle_data(self, data) -> None:
        if self.inside:
            self.found.append(data)

    def handle_endtag(self, tag) -> None:
        self.inside = False


def test_a_complete_report_has_every_part(results) -> None:
    html = report.page(results).html()
    heads = [head.split(" · ")[0] for head in Headings(html).found]
    assert heads == [
        "Goals",
        "Learning",
        "The ladder",
        "What it wrote",
        "Chat",
        "Word order",
        "What comes next",
        "Seeds",
        "Cost",
        "Go on",
    ]
    for text in ("entropy, English: 0.512", "truth 0.634", "Transformer after SFT", "仙II-212", "0.541 ± 0.002"):
        assert text in html


def test_a_report_fetches_nothing(results) -> None:
    assert not re.search(r"https?:|//[a-z]|url\(|@import|src=|href=", report.page(results).html())


def test_a_report_on_a_text_without_a_truth_leaves_out_what_was_not_measured() -> None:
    html = report.page(small()).html()
    assert [head.split(" · ")[0] for head in Headings(html).found] == ["The ladder"]
    assert "Nobody knows" in html
    assert "above truth" not in html
    assert "book.txt" in summary(small())


def test_what_a_model_wrote_never_becomes_markup(results) -> None:
    html = report.page(results).html()
    assert "<b>7" not in html
    assert "&lt;b&gt;7" in html
    assert "\x00" not in html


def test_results_survive_their_file(results, tmp_path) -> None:
    path = write(results, tmp_path)
    assert read(path) == read(tmp_path) == results
    assert path.name == "results.json"


def test_a_results_file_that_is_not_one_is_refused(results, tmp_path) -> None:
    path = write(results, tmp_path)
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "sede": 1}))
    with pytest.raises(ValueError, match="did you mean 'seed'"):
        read(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        read(path)


def test_numbers_that_are_not_finite_are_not_written(tmp_path) -> None:
    bad = small(ladder=(Rung(name="x", family="bytes", bits_per_byte={"text": math.inf}),))
    with pytest.raises(ValueError, match="write None for it"):
        write(bad, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_gap_closed_is_the_share_of_the_way_from_the_best_ngram_to_the_truth() -> None:
    ladder = (
        Rung(name="a", family="bytes", bits_per_byte={"en": 3.0}),
        Rung(name="b", family="tokens", bits_per_byte={"en": 2.0}),
        Rung(name="c", family="tokens", bits_per_byte={"en": None}),
        Rung(name="m", family="model", bits_per_byte={"en": 1.25}),
        Rung(name="t", family="truth", bits_per_byte={"en": 1.0}),
    )
    assert findings.best_ngram(ladder, "en") == ladder[1]
    assert findings.gap_closed(ladder, "en") == 0.75
    assert findings.above_truth(ladder, ladder[3], "en") == 0.25
    assert findings.above_truth(ladder, ladder[2], "en") is None
    assert findings.gap_closed(ladder[:4], "en") is None


def test_goals_are_checked_in_every_language(results) -> None:
    checks = findings.checks(results)
    missed = [check.claim for check in checks if not check.met]
    assert missed == ["top 5 after 今天的天气"]
    chat = [check for check in checks if check.claim == "chat questions answered exactly"]
    assert [(check.language, check.found) for check in chat] == [("en", "95.0\u202f%"), ("zh", "95.0\u202f%")]


def test_a_goal_missed_in_one_language_is_named(results) -> None:
    weak = [
        dataclasses.replace(score, right=50) if (score.role, score.language) == ("after", "zh") else score
        for score in results.chats
    ]
    table = tables.checks(findings.checks(dataclasses.replace(results, chats=tuple(weak))))
    row = next(row for row in table.rows if row[0] == "chat questions answered exactly")
    assert list(row) == ["chat questions answered exactly", "95.0\u202f% · 50.0\u202f%", "≥ 90\u202f%", "missed, 中文"]


def test_a_slow_or_large_run_misses_its_goals(results) -> None:
    slow = dataclasses.replace(results.costs[1], seconds=1000.0, memory_bytes=5_000_000_000)
    checks = findings.checks(dataclasses.replace(results, costs=(slow,)))
    assert [check.met for check in checks[-2:]] == [False, False]


def test_the_memory_of_a_stage_is_called_what_it_is(results) -> None:
    table = tables.costs(results)
    assert table.names[-1] == "memory, peak so far"
    assert [row[-1] for row in table.rows][-2:] == ["1.2\u202fGB", "1.73\u202fGB"]
    assert "memory, peak so far" in report.page(results).html()


def test_log_odds_of_a_sentence_that_is_ruled_out_do_not_exist() -> None:
    assert Odds(name="ML", family="tokens", plain=-9.0, fronted=None).nats is None


TRUE_ODDS = math.log(20)
OFF = {"unigram": -TRUE_ODDS, "bigram": -0.31, "trigram": -0.29, "4-gram": 0.0, "5-gram": 0.29, "6-gram": 0.31, "ML": None}
"""How far models are from the true odds, in nats; the last one rules a sentence out."""


def said_of_order(off: dict[str, float | None], **goals: float) -> list[str]:
    """The paragraphs that the report has on the order of words."""
    odds = [
        Odds(name=name, family="tokens", plain=-8.0, fronted=None if nats is None else -8.0 - TRUE_ODDS - nats)
        for name, nats in off.items()
    ]
    probe = OrderProbe(plain="今天我来到了仙II-212。", fronted="今天仙II-212我来到了。", expected=TRUE_ODDS, odds=tuple(odds))
    found = small(order=probe, goals=Goals(**goals))
    section = report.order(found)
    assert section.html() in report.page(found).html()
    return section.blocks[0].paragraphs


def test_who_gets_the_order_of_words_wrong_is_named_and_nobody_else() -> None:
    truth = "In truth 今天我来到了仙II-212。 is 20 times as likely as 今天仙II-212我来到了。"
    assert said_of_order(OFF) == [truth, "Not within 0.3 nats of that: unigram, bigram, 6-gram, ML."]
    assert said_of_order(OFF, odds=0.1) == [
        truth, "Not within 0.1 nats of that: unigram, bigram, trigram, 5-gram, 6-gram, ML."
    ]  # fmt: skip
    assert said_of_order({name: OFF[name] for name in ("trigram", "4-gram", "5-gram")}) == [truth, "All get it right."]


def test_a_probe_knows_its_largest_deviation(results) -> None:
    places, weather = results.next
    assert places.deviation == pytest.approx(0.011)
    assert places.same
    assert weather.deviation == pytest.approx(0.04)
    assert not weather.same
    assert NextProbe(prompt="", language="en", phrases=(), top=()).deviation == 0


def test_accuracy_adds_up_over_kinds() -> None:
    scores = [
        ChatScore(system="x", role="after", language="en", kind=kind, right=right, asked=asked)
        for kind, right, asked in (("a", 1, 1), ("b", 0, 3))
    ]
    assert findings.accuracy(scores) == 0.25
    assert findings.accuracy([]) is None


def test_mean_and_spread_by_hand() -> None:
    assert findings.spread([1.0, 2.0, 3.0], 2) == "2.00 ± 1.00"
    assert findings.spread([0.5], 1, 100) == "50.0"


def test_the_summary_aligns_every_table(results) -> None:
    for table in summary(results).split("\n\n"):
        lines = table.split("\n")
        rules = [line for line in lines if line.startswith("─")]
        if rules:
            ends = [column.end() for column in re.finditer("─+", rules[0])]
            assert all(columns(line) <= ends[-1] for line in lines)
    assert summary(results).endswith("17 of 18 goals met in 8\u202fmin 15\u202fs") or summary(results).endswith(
        "17 of 18 goals met in 8 min 15 s"
    )
