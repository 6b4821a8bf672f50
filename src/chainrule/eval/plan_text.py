"""A plan for a person: tables of parameters, FLOPs, memory and time, and what to change where it does not fit."""

from collections.abc import Iterable, Mapping

from chainrule.eval.memory import Setting
from chainrule.eval.plan import InferenceRow, Plan, TrainingRow
from chainrule.pages.table import Table
from chainrule.pages.text import compact, percent, size, timing


def plan_text(plan: Plan) -> str:
    """The whole plan."""
    setting, device = plan.setting, plan.device
    devices = setting.ranks * setting.tensor
    place = f"{devices} × {device.name}" if devices > 1 else device.name
    where = f"{place}: {size(device.memory_bytes)}, {compact(device.bandwidth)}B/s, {_rates(device.rates)}"
    often = f", {setting.micro_batches} times a step" if setting.micro_batches > 1 else ""
    what = f"{setting.rows} × {setting.length:,} tokens at once{often}{_parallel(setting)}"
    parts = [f"{plan.model} on {where}", what, "", parameters(plan).text(), "", _flops(plan), ""]
    parts += [f"Training, on each device ({_clock(plan)})", training(plan).text()]
    parts += [*_unexpected((row.way, row.not_expected) for row in plan.training), *_changes(plan), ""]
    parts += [f"Inference ({_clock(plan)})", inference(plan).text()]
    parts += _unexpected((row.format, row.not_expected) for row in plan.inference)
    return "\n".join(parts)


def parameters(plan: Plan) -> Table:
    """Parameters by part."""
    counts = plan.parameters
    total = counts["total"]
    rows = [(part, f"{n:,}", percent(n / total)) for part, n in counts.items() if part not in ("total", "active")]
    sizes = ", ".join(f"{size(stored)} in {format}" for format, stored in plan.bytes.items())
    rows.append(("total", f"{total:,}", sizes))
    if counts["active"] != total:
        rows.append(("active", f"{counts['active']:,}", f"{percent(counts['active'] / total)} of all meet a token"))
    return Table(names=("part", "parameters", "share"), rows=rows, numbers=frozenset({1}))


def training(plan: Plan) -> Table:
    """Memory and time by way of training."""
    names = (
        "way",
        "learned",
        "weights",
        "gradients",
        "optimizer",
        "activations",
        "peak",
        "fits",
        "step",
        "expected",
        "tokens/s",
    )
    rows = [(*_training(row), _sent(row.sent_bytes)) for row in plan.training]
    return _timed(Table(names=(*names, "sent"), rows=rows, numbers=frozenset(range(1, 12)) - {7}), plan)


def _training(row: TrainingRow) -> tuple[str, ...]:
    memory = row.memory
    held = (memory.weights, memory.gradients, memory.optimizer, memory.activations, memory.peak)
    times = (timing(row.seconds), timing(row.expected_seconds), compact(row.tokens_per_second))
    return (row.way, compact(row.learned), *map(_held, held), yes(row.fits), *times)


def inference(plan: Plan) -> Table:
    """Memory and time by format of the weights."""
    names = (
        "format",
        "weights",
        "KV cache",
        "at work",
        "peak",
        "fits",
        "read the rows",
        "expected",
        "one more token",
        "expected",
    )
    rows = [(*_inference(row), _sent(row.sent_bytes)) for row in plan.inference]
    return _timed(Table(names=(*names, "tokens/s", "sent"), rows=rows, numbers=frozenset(range(1, 12)) - {5}), plan)


def _inference(row: InferenceRow) -> tuple[str, ...]:
    memory = row.memory
    held = (memory.weights, memory.cache, memory.activations, memory.peak)
    read, write = (row.prefill_seconds, row.expected_prefill_seconds), (row.decode_seconds, row.expected_decode_seconds)
    return (row.format, *map(_held, held), yes(row.fits), *map(timing, read + write), compact(row.tokens_per_second))


def _sent(sent_bytes: Mapping[str, float]) -> str:
    return ", ".join(size(sent) for sent in sent_bytes.values()) or "—"


def _timed(table: Table, plan: Plan) -> Table:
    """The table, without what is expected where nothing was timed."""
    if plan.timing_seconds is not None:
        return table
    kept = [i for i, name in enumerate(table.names) if name != "expected"]
    rows = [[row[i] for i in kept] for row in table.rows]
    numbers = frozenset(new for new, old in enumerate(kept) if old in table.numbers)
    return Table(names=[table.names[i] for i in kept], rows=rows, numbers=numbers)


def _clock(plan: Plan) -> str:
    if plan.unknown is not None:
        return plan.unknown
    spent = plan.timing_seconds
    return "seconds at best" + ("" if spent is None else f"; expected: its bricks timed here, which took {spent:.1f} s in all")


def _unexpected(rows: Iterable[tuple[str, str | None]]) -> list[str]:
    """One line for each reason why some rows, each a name and its reason or None, were not timed."""
    reasons: dict[str, list[str]] = {}
    for name, reason in rows:
        if reason is not None:
            reasons.setdefault(reason, []).append(name)
    return [f"not timed, {'; '.join(names)}: {reason}" for reason, names in reasons.items()]


def _changes(plan: Plan) -> list[str]:
    lines: list[str] = []
    for row in plan.training:
        if row.fits is not False:
            continue
        if not row.changes:
            lines += ["", f"{row.way} does not fit; take a larger device, or a smaller model"]
            continue
        lines += ["", f"{row.way} does not fit; change, in this order:"]
        for i, step in enumerate(row.changes, 1):
            lines.append(f"  {i}. {step.change}: {size(step.peak)}{', which fits' if step.fits else ''}")
        if not row.changes[-1].fits:
            lines.append("  and then a larger device, or a smaller model")
    return lines


def _flops(plan: Plan) -> str:
    flops = plan.flops
    every = f"FLOPs a token: {flops.formula}\ntraining = {flops.training_formula}"
    if flops.adapting_formula is not None:
        every += f"\ntraining adapters of rank {plan.setting.rank} = {flops.adapting_formula}"
    if plan.cache_bytes_per_token is None:
        return every
    share = percent(flops.scores / flops.forward)
    return (
        f"{every}\ncomparing tokens is {share} of the forward pass (a causal row sees half of the square); "
        f"the last token alone takes {compact(flops.last_token)}FLOP\n"
        f"KV cache: {plan.cache_bytes_per_token:,.0f} bytes a token in bf16"
    )


def _parallel(setting: Setting) -> str:
    ranks = f" on each of {setting.ranks} ranks" if setting.ranks > 1 else ""
    zero = f", ZeRO-{setting.zero}" if setting.zero else ""
    return ranks + zero + (f", {setting.tensor} devices to a rank" if setting.tensor > 1 else "")


def _rates(rates: Mapping[str, float]) -> str:
    return ", ".join(f"{compact(rate)}FLOP/s {format}" for format, rate in rates.items())


def _held(size_bytes: float | None) -> str:
    return "unknown" if size_bytes is None else size(size_bytes)


def yes(value: bool | None) -> str:
    """Said in a table."""
    return "unknown" if value is None else "yes" if value else "no"
