"""The report in short, for the terminal: the goals, the ladder, chats, probes and cost as plain text."""

from chainrule.eval import findings, tables
from chainrule.eval.results import Results
from chainrule.pages.text import duration, fixed


def summary(results: Results) -> str:
    """Several short tables with a line between them; it ends without a newline."""
    checks = findings.checks(results)
    parts = [f"{results.name}: {results.model.shape}, trained on {results.source}, seed {results.seed}"]
    if results.ladder:
        parts.append(tables.ladder(results.ladder).text())
    parts += _samples(results)
    if results.chats:
        parts.append(tables.chats(results.chats).text())
    if results.order is not None:
        parts.append(f"{results.order.plain} against {results.order.fronted}: the truth is {_expected(results)}")
        parts.append(tables.order(results.order).text())
    parts += [tables.following(probe).text() for probe in results.next]
    if len(results.seeds) > 1:
        parts.append(tables.seeds(results).text())
    if results.costs:
        parts.append(tables.costs(results).text())
    if checks:
        parts.append(tables.checks(checks).text())
    return "\n\n".join([*parts, _verdict(results, checks)])


def _expected(results: Results) -> str:
    return f"{fixed(results.order.expected, 2)} nats" if results.order else ""


def _samples(results: Results) -> list[str]:
    """The last stage's sample in each language."""
    last = {sample.language: sample for sample in results.samples}
    return [f"{sample.stage}: {sample.prompt}{sample.text}" for sample in last.values()]


def _verdict(results: Results, checks: list[findings.Check]) -> str:
    took = duration(sum(cost.seconds for cost in results.costs))
    met = sum(check.met for check in checks)
    return f"{met} of {len(checks)} goals met in {took}" if checks else f"done in {took}"
