"""A plan for a person: tables of parameters, FLOPs, memory and time, and what to change where it does not fit."""

from collections.abc import Mapping
from typing import Any

from chainrule.pages.table import Table
from chainrule.pages.text import compact, percent


def plan_text(plan: Mapping[str, Any]) -> str:
    """The whole plan."""
    setting, device = plan["setting"], plan["device"]
    devices = setting["ranks"] * setting["tensor"]
    place = f"{devices} × {device['name']}" if devices > 1 else device["name"]
    where = f"{place}: {gigabytes(device['memory_bytes'])}, {compact(device['bandwidth'])}B/s, {_rates(device['rates'])}"
    what = f"{setting['rows']} × {setting['length']:,} tokens at once" + _parallel(setting)
    parts = [f"{plan['model']} on {where}", what, "", parameters(plan).text(), "", _flops(plan), ""]
    parts += ["Training, on each device (seconds at best)", training(plan).text(), *_changes(plan), ""]
    parts += ["Inference (seconds at best)", inference(plan).text()]
    return "\n".join(parts)


def parameters(plan: Mapping[str, Any]) -> Table:
    """Parameters by part."""
    counts = plan["parameters"]
    total = counts["total"]
    rows = [(part, f"{n:,}", percent(n / total)) for part, n in counts.items() if part not in ("total", "active")]
    sizes = ", ".join(f"{gigabytes(size)} in {format}" for format, size in plan["bytes"].items())
    rows.append(("total", f"{total:,}", sizes))
    if counts["active"] != total:
        rows.append(("active", f"{counts['active']:,}", f"{percent(counts['active'] / total)} of all meet a token"))
    return Table(names=("part", "parameters", "share"), rows=rows, numbers=frozenset({1}))


def training(plan: Mapping[str, Any]) -> Table:
    """Memory and time by way of training."""
    names = ("way", "learned", "weights", "gradients", "optimizer", "activations", "peak", "fits", "step", "tokens/s", "sent")
    return Table(names=names, rows=[_training(row) for row in plan["training"]], numbers=frozenset(range(1, 11)) - {7})


def _training(row: Mapping[str, Any]) -> tuple[str, ...]:
    memory = row["memory"]
    sizes = [gigabytes(memory[name]) for name in ("weights", "gradients", "optimizer", "activations", "peak")]
    time = (seconds(row["seconds"]), compact(row["tokens_per_second"])) if "seconds" in row else ("—", "—")
    sent = sum(row["sent_bytes"].values())
    return (row["way"], compact(row["learned"]), *sizes, yes(row["fits"]), *time, gigabytes(sent) if sent else "—")


def inference(plan: Mapping[str, Any]) -> Table:
    """Memory and time by format of the weights."""
    names = ("format", "weights", "KV cache", "at work", "peak", "fits", "read the rows", "one more token", "tokens/s")
    return Table(names=names, rows=[_inference(row) for row in plan["inference"]], numbers=frozenset(range(1, 9)) - {5})


def _inference(row: Mapping[str, Any]) -> tuple[str, ...]:
    memory = row["memory"]
    sizes = [gigabytes(memory[name]) for name in ("weights", "cache", "activations", "peak")]
    if "prefill_seconds" not in row:
        return (row["format"], *sizes, yes(row["fits"]), "—", "—", "—")
    times = seconds(row["prefill_seconds"]), seconds(row["decode_seconds"])
    return (row["format"], *sizes, yes(row["fits"]), *times, compact(row["tokens_per_second"]))


def _changes(plan: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for row in plan["training"]:
        if row["fits"]:
            continue
        lines += ["", f"{row['way']} does not fit; change, in this order:"]
        for i, change in enumerate(row["changes"], 1):
            lines.append(f"  {i}. {change['change']}: {gigabytes(change['peak'])}{', which fits' if change['fits'] else ''}")
        if not row["changes"] or not row["changes"][-1]["fits"]:
            lines.append("  and then a larger device, or a smaller model")
    return lines


def _flops(plan: Mapping[str, Any]) -> str:
    flops = plan["flops"]
    share = percent(flops["scores"] / flops["forward"])
    return (
        f"FLOPs a token: {flops['formula']}\n"
        f"training 3 × forward = {compact(flops['training'])}FLOP; comparing tokens is {share} of it (a causal row sees half "
        f"of the square); the last token alone {compact(flops['last_token'])}FLOP\n"
        f"KV cache: {plan['cache_bytes_per_token']:,.0f} bytes a token in bf16"
    )


def _parallel(setting: Mapping[str, Any]) -> str:
    said = f" on each of {setting['ranks']} ranks" if setting["ranks"] > 1 else ""
    said += f", ZeRO-{setting['zero']}" if setting["zero"] else ""
    return said + (f", {setting['tensor']} devices to a rank" if setting["tensor"] > 1 else "")


def _rates(rates: Mapping[str, float]) -> str:
    return ", ".join(f"{compact(rate)}FLOP/s {format}" for format, rate in rates.items())


def gigabytes(size: float) -> str:
    """Bytes in GB or MB of powers of ten, three digits."""
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


def seconds(value: float) -> str:
    """Seconds or milliseconds, three digits."""
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def yes(value: bool) -> str:
    """Said in a table."""
    return "yes" if value else "no"
