"""An explanation for the terminal: short sections in the order in which things happen, equal layers folded."""

from chainrule.eval.explain import rows
from chainrule.eval.explain.facts import Explanation, Forward
from chainrule.eval.explain.tree import tree_lines
from chainrule.pages.table import Table

TEMPLATE = 300
"""So many characters of a chat template are shown; all of it is in --json."""


def explanation_text(told: Explanation) -> str:
    """The whole explanation."""
    parts = [
        head(told),
        _section("Files", _files(told)),
        _section("What the config means", _parts(told)),
        _section("Modules", _tree(told)),
        _section("Parameters", rows.parameters(told).text() if told.parameters else ""),
        _section("Tensors, from file to model", rows.tensors(told).text() if told.tensors else ""),
        _section("The load", rows.stages(told).text() if told.stages else ""),
        _section("Beside transformers", _beside(told)),
        _section("Around the model", _around(told)),
        _section("One forward pass", "" if told.forward is None else _forward(told.forward)),
        _section("Not shown", "\n".join(told.unknown)),
    ]
    return "\n\n".join(part for part in parts if part)


def head(told: Explanation) -> str:
    """What it is, in two lines."""
    tensors = f"{told.tensors_published:,} tensors, " if told.tensors_published else ""
    size = f", {exact(told.size_bytes)} in {told.dtype}" if told.size_bytes else ""
    what = f"{article(told.kind)} of {tensors}{told.parameters:,} parameters{size}, on {told.device}"
    return f"{told.name}: {what}\nfound: {told.found}"


def article(noun: str) -> str:
    """A noun with its article.

    >>> article("Encoder")
    'an Encoder'
    """
    return f"{'an' if noun[0] in 'AEIOUaeiou' else 'a'} {noun}"


def exact(size_bytes: int) -> str:
    """Bytes in GB or MB with two decimals."""
    return f"{size_bytes / 1e9:,.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:,.2f} MB"


def _section(title: str, body: str) -> str:
    return f"{title}\n{body}" if body else ""


def _files(told: Explanation) -> str:
    lines = [(file.name, rows.data(file.size_bytes), file.what) for file in told.files]
    return Table(names=("file", "bytes", "what for"), rows=lines, numbers=frozenset({1})).text() if lines else ""


def _parts(told: Explanation) -> str:
    width = max((len(part.where) for part in told.parts), default=0)
    says = {name: text for part in told.parts for name, text in part.says.items()}
    lines = [f"{part.where:<{width}}  {part.what}" for part in told.parts]
    return "\n".join([*lines, *(f"  {name}: {text}" for name, text in says.items())])


def _tree(told: Explanation) -> str:
    lines = [
        (name or told.kind, kind if name else "", f"{count:,} {each}".rstrip() if count else "")
        for name, kind, count, each in tree_lines(told.tree)
    ]
    return Table(names=("module", "kind and shapes", "parameters"), rows=lines, numbers=frozenset({2})).text()


def _beside(told: Explanation) -> str:
    if told.theirs is None:
        return ""
    what = [f"  {stage.name}: {stage.what}" for stage in told.theirs.stages]
    return "\n".join([rows.beside(told).text(), *what, *rows.notes(told)])


def _around(told: Explanation) -> str:
    lines = [f"tokenizer: {told.tokenizer}"] if told.tokenizer else []
    if told.stages:
        settings = ", ".join(f"{key}={value}" for key, value in told.generation.items())
        lines.append(f"generation settings: {settings or 'none given'}")
        lines.append(f"chat template: {_template(told.template)}")
    return "\n".join(lines)


def _template(template: str | None) -> str:
    if template is None:
        return "none: not taught to chat"
    beginning = " ".join(template[:TEMPLATE].split())
    return f"{len(template):,} characters of Jinja: {beginning}{' …' * (len(template) > TEMPLATE)}"


def _forward(told: Forward) -> str:
    lines = [_asked(told), rows.forward(told).text()]
    if told.flops:
        lines += ["", rows.work(told).text(), *([f"FLOPs a token: {told.formula}"] if told.formula else [])]
    stream = rows.stream(told)
    if stream:
        lines.append("rms of the stream, at first and after each layer: " + " ".join(f"{rms:.3g}" for _, rms in stream))
    if told.likeliest:
        lines += ["", f"{told.asks}:", *(f"{p:8.4f}  {piece!r}" for piece, p in told.likeliest)]
    return "\n".join(lines)


def _asked(told: Forward) -> str:
    how = f"in {rows.time(told.seconds)}" if told.likeliest else "as shapes alone"
    if told.prompt is None:
        return f"{told.tokens:,} made-up ids, {how}"
    pieces = "|".join(told.pieces[:24]) + "|…" * (len(told.pieces) > 24)
    return f"{told.prompt!r} in {len(told.pieces)} tokens ({pieces}), {how}"
