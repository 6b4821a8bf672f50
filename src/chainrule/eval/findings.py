"""What follows from the numbers of a run: distances to the truth, gaps closed, and which goals were met.

above the truth = b / b_truth − 1,      gap closed = (b_ngram − b) / (b_ngram − b_truth),      b in bits per byte
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from chainrule.eval.results import LANGUAGES, ChatScore, Results, Rung
from chainrule.pages.text import duration, fixed, percent, size


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing the run set out to show, and whether it did."""

    claim: str
    goal: str
    found: str
    met: bool
    language: str | None = None


Ladder = Sequence[Rung]


def languages(ladder: Ladder) -> list[str]:
    """The languages that were measured, in their order."""
    return list(ladder[0].bits_per_byte) if ladder else []


def spoken(language: str) -> str:
    """A language's name in itself."""
    return LANGUAGES.get(language, language)


def best_ngram(ladder: Ladder, language: str) -> Rung | None:
    """The n-gram with the fewest bits per byte."""
    ngrams = [rung for rung in ladder if rung.family in ("bytes", "tokens")]
    finite = [rung for rung in ngrams if rung.bits_per_byte.get(language) is not None]
    return min(finite, key=lambda rung: rung.bits_per_byte[language] or 0.0, default=None)


def trained(ladder: Ladder) -> Rung | None:
    """The rung of the model that was trained: the last of its family."""
    return next((rung for rung in reversed(ladder) if rung.family == "model"), None)


def truth(ladder: Ladder, language: str) -> float | None:
    """The truth's bits per byte, which no model can beat; None where nobody knows it."""
    return next((rung.bits_per_byte.get(language) for rung in ladder if rung.family == "truth"), None)


def above_truth(ladder: Ladder, rung: Rung | None, language: str) -> float | None:
    """How far above the truth a rung stands, as a share of the truth."""
    floor = truth(ladder, language)
    bits = rung.bits_per_byte.get(language) if rung else None
    return bits / floor - 1 if floor and bits is not None else None


def gap_closed(ladder: Ladder, language: str) -> float | None:
    """The share of the way from the best n-gram to the truth that the trained model has gone."""
    floor, ngram, model = truth(ladder, language), best_ngram(ladder, language), trained(ladder)
    start = ngram.bits_per_byte[language] if ngram else None
    bits = model.bits_per_byte.get(language) if model else None
    if floor is None or start is None or bits is None or start <= floor:
        return None
    return (start - bits) / (start - floor)


def accuracy(scores: Iterable[ChatScore]) -> float | None:
    """The share of questions answered exactly, over all these scores."""
    scores = list(scores)
    asked = sum(score.asked for score in scores)
    return sum(score.right for score in scores) / asked if asked else None


def chat_scores(results: Results, role: str, language: str, kind: str | None = None) -> list[ChatScore]:
    """The scores of one role in one language, of one kind of question or of all."""
    rows = [score for score in results.chats if (score.role, score.language) == (role, language)]
    return [score for score in rows if kind in (None, score.kind)]


def spread(values: Iterable[float], digits: int = 3, factor: float = 1.0) -> str:
    """Mean ± sample standard deviation, as text."""
    values = [factor * value for value in values]
    if not values:
        return "—"
    return f"{fixed(mean(values), digits)} ± {fixed(stdev(values), digits)}" if len(values) > 1 else fixed(values[0], digits)


def checks(results: Results) -> list[Check]:
    """Every goal that this run's numbers can speak of."""
    found = [check for language in languages(results.ladder) for check in _language_checks(results, language)]
    return [*found, *_odds_checks(results), *_next_checks(results), *_cost_checks(results)]


def _language_checks(results: Results, language: str) -> list[Check]:
    goals, ladder, model = results.goals, results.ladder, trained(results.ladder)
    who = model.name if model else "model"
    ngram = above_truth(ladder, best_ngram(ladder, language), language)
    right = {role: accuracy(chat_scores(results, role, language)) for role in ("after", "majority", "ngram")}
    wanted = [
        ("best n-gram above the truth", "≥", goals.ngram_above, ngram),
        (f"gap that the {who} closes", "≥", goals.gap_closed, gap_closed(ladder, language)),
        (f"{who} above the truth", "≤", goals.above_truth, above_truth(ladder, model, language)),
        ("chat questions answered exactly", "≥", goals.chat, right["after"]),
        ("by the majority answer", "≤", goals.baseline, right["majority"]),
        ("by the best n-gram", "≤", goals.baseline, right["ngram"]),
    ]
    return [_share(claim, sign, goal, value, language) for claim, sign, goal, value in wanted if value is not None]


def _share(claim: str, sign: str, goal: float, value: float, language: str) -> Check:
    met = value >= goal if sign == "≥" else value <= goal
    return Check(claim=claim, goal=f"{sign} {percent(goal, 0)}", found=percent(value), met=met, language=language)


def _odds_checks(results: Results) -> list[Check]:
    if results.order is None:
        return []
    expected, room = results.order.expected, results.goals.odds
    goal = f"{fixed(expected, 2)} ± {fixed(room, 2)}"
    return [
        Check(
            claim=f"log-odds of two orders, {odds.name}",
            goal=goal,
            found=fixed(odds.nats, 2),
            met=odds.nats is not None and abs(odds.nats - expected) <= room,
        )
        for odds in results.order.odds
        if odds.family in ("model", "truth")
    ]


def _next_checks(results: Results) -> list[Check]:
    return [
        Check(
            claim=f"top {len(probe.phrases)} after {probe.prompt}",
            goal=f"± {fixed(results.goals.next, 2)}",
            found=f"± {fixed(probe.deviation, 3)}{'' if probe.same else ', others'}",
            met=probe.same and probe.deviation <= results.goals.next,
        )
        for probe in results.next
    ]


def _cost_checks(results: Results) -> list[Check]:
    goals = results.goals
    seconds = sum(cost.seconds for cost in results.costs)
    memory = max((cost.memory_bytes for cost in results.costs if cost.memory_bytes), default=None)
    checks: list[Check] = []
    if results.costs:
        found, goal = duration(seconds), f"≤ {duration(goals.seconds)}"
        checks.append(Check(claim="time for everything", goal=goal, found=found, met=seconds <= goals.seconds))
    if memory is not None:
        found, goal = size(memory), f"≤ {size(goals.memory_bytes)}"
        checks.append(Check(claim="largest memory", goal=goal, found=found, met=memory <= goals.memory_bytes))
    return checks
