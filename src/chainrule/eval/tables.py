"""The tables of a report, which the page and the terminal share."""

from collections.abc import Sequence

from chainrule.eval import findings
from chainrule.eval.results import ChatScore, Comparison, NextProbe, OrderProbe, Results, Rung
from chainrule.pages.table import Table
from chainrule.pages.text import compact, duration, fixed, percent, size


def checks(checks: Sequence[findings.Check]) -> Table:
    """A row for every goal: what was found (in each language), what was wanted, and whether it was met."""
    claims = list(dict.fromkeys(check.claim for check in checks))
    groups = [[check for check in checks if check.claim == claim] for claim in claims]
    rows = [(group[0].claim, " · ".join(one.found for one in group), group[0].goal, _verdict(group)) for group in groups]
    spoken = dict.fromkeys(findings.spoken(check.language) for check in checks if check.language)
    names = ("goal", f"found ({' · '.join(spoken)})" if len(spoken) > 1 else "found", "wanted", "")
    missed = frozenset(i for i, group in enumerate(groups) if not all(check.met for check in group))
    return Table(names=names, rows=rows, numbers=frozenset({1, 2}), strong=missed)


def _verdict(group: Sequence[findings.Check]) -> str:
    missed = [findings.spoken(check.language) for check in group if not check.met and check.language]
    if all(check.met for check in group):
        return "met"
    return f"missed, {missed[0]}" if len(missed) == 1 < len(group) else "missed"


def ladder(rungs: Sequence[Rung]) -> Table:
    """All rungs: parameters, bits per byte and distance from the truth by language, tokens a second."""
    spoken = findings.languages(rungs)
    distances = [language for language in spoken if findings.truth(rungs, language) is not None]
    names = [
        "model",
        "parameters",
        *(f"bits/byte {findings.spoken(language)}" for language in spoken),
        *(f"above truth {findings.spoken(language)}" for language in distances),
        "tokens/s",
    ]
    rows = [
        [
            rung.name,
            compact(rung.parameters),
            *(_bits(rung.bits_per_byte.get(language)) for language in spoken),
            *(_above(rungs, rung, language) for language in distances),
            compact(rung.tokens_per_s),
        ]
        for rung in rungs
    ]
    strong = frozenset(i for i, rung in enumerate(rungs) if rung.family in ("model", "truth"))
    return Table(names=names, rows=rows, numbers=frozenset(range(1, len(names))), strong=strong)


def _bits(bits: float | None) -> str:
    return fixed(float("inf") if bits is None else bits)


def _above(rungs: Sequence[Rung], rung: Rung, language: str) -> str:
    if rung.bits_per_byte.get(language) is None:
        return fixed(float("inf"))
    return "" if rung.family == "truth" else percent(findings.above_truth(rungs, rung, language))


def comparisons(comparisons: Sequence[Comparison]) -> Table:
    """Differences in bits per byte with their intervals."""
    rows = [
        (
            f"{one.first} − {one.second}",
            findings.spoken(one.language),
            fixed(one.difference),
            f"{fixed(one.low)} … {fixed(one.high)}",
            f"{one.documents:,}",
        )
        for one in comparisons
    ]
    confidence = percent(comparisons[0].confidence, 0) if comparisons else ""
    names = ("difference", "language", "bits/byte", f"{confidence} interval", "documents")
    return Table(names=names, rows=rows, numbers=frozenset({2, 3, 4}))


def chats(scores: Sequence[ChatScore]) -> Table:
    """Share answered exactly: a row for every system and language, a column for every kind."""
    kinds = list(dict.fromkeys(score.kind for score in scores))
    keys = list(dict.fromkeys((score.system, score.role, score.language) for score in scores))
    rows: list[list[str]] = []
    for system, role, language in keys:
        mine = [score for score in scores if (score.system, score.role, score.language) == (system, role, language)]
        shares = [findings.accuracy(score for score in mine if score.kind == kind) for kind in kinds]
        asked = sum(score.asked for score in mine)
        rows.append([system, findings.spoken(language), *map(percent, shares), percent(findings.accuracy(mine)), f"{asked:,}"])
    names = ["system", "language", *kinds, "all", "asked"]
    strong = frozenset(i for i, (_, role, _) in enumerate(keys) if role == "after")
    return Table(names=names, rows=rows, numbers=frozenset(range(2, len(names))), strong=strong)


def order(probe: OrderProbe) -> Table:
    """log p of both orders and their log-odds under every model."""
    rows = [
        (odds.name, _nats(odds.plain), _nats(odds.fronted), fixed(odds.nats, 2), _off(odds.nats, probe.expected))
        for odds in probe.odds
    ]
    strong = frozenset(i for i, odds in enumerate(probe.odds) if odds.family in ("model", "truth"))
    names = ("model", "log p plain", "log p fronted", "log-odds", "off by")
    return Table(names=names, rows=rows, numbers=frozenset({1, 2, 3, 4}), strong=strong)


def _nats(logp: float | None) -> str:
    return fixed(float("-inf") if logp is None else logp, 2)


def _off(nats: float | None, expected: float) -> str:
    return fixed(None if nats is None else nats - expected, 2)


def following(probe: NextProbe) -> Table:
    """The true continuations of a prompt, and the model's probability of each."""
    rows = [
        (phrase.text, fixed(phrase.truth), fixed(phrase.model), fixed(phrase.model - phrase.truth)) for phrase in probe.phrases
    ]
    return Table(names=(f"{probe.prompt}…", "truth", "model", "off by"), rows=rows, numbers=frozenset({1, 2, 3}))


def seeds(results: Results) -> Table:
    """Each seed, then mean and spread."""
    spoken = [language for language in findings.languages(results.ladder) if language in results.seeds[0].bits_per_byte]
    chatty = list(results.seeds[0].chat_accuracy)
    rows = [
        [
            f"{one.seed}",
            *(fixed(one.bits_per_byte.get(language)) for language in spoken),
            *(percent(one.chat_accuracy.get(language)) for language in chatty),
        ]
        for one in results.seeds
    ]
    rows.append(
        [
            "mean",
            *(findings.spread(one.bits_per_byte[language] for one in results.seeds) for language in spoken),
            *(findings.spread((one.chat_accuracy[key] for one in results.seeds), 1, 100) + "\u202f%" for key in chatty),
        ]
    )
    names = [
        "seed",
        *(f"bits/byte {findings.spoken(language)}" for language in spoken),
        *(f"chat {findings.spoken(language)}" for language in chatty),
    ]
    return Table(names=names, rows=rows, numbers=frozenset(range(1, len(names))), strong=frozenset({len(results.seeds)}))


def costs(results: Results) -> Table:
    """Stages with their seconds, tokens, speed and the most memory up to their end, and the sum."""
    rows = [
        (cost.stage, duration(cost.seconds), compact(cost.tokens), compact(cost.tokens_per_s), size(cost.memory_bytes))
        for cost in results.costs
    ]
    memory = max((cost.memory_bytes for cost in results.costs if cost.memory_bytes), default=None)
    rows.append(("all", duration(sum(cost.seconds for cost in results.costs)), "", "", size(memory)))
    names = ("stage", "time", "tokens", "tokens/s", "memory, peak so far")
    return Table(names=names, rows=rows, numbers=frozenset({1, 2, 3, 4}), strong=frozenset({len(results.costs)}))
