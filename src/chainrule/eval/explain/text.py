"""An explanation for the terminal: short sections in the order in which things happen, equal layers folded."""

from chainrule.eval.explain import rows
from chainrule.eval.explain.facts import Explanation, Forward
from chainrule.eval.explain.tree import tree_lines
from chainrule.pages.table import Table
from chainrule.pages.text import size, timing

TEMPLATE = 300
"""So many characters of a chat template are shown; all of it is in --json."""


def explanation_text(explanation: Explanation) -> str:
    """The whole explanation."""
    parts = [
        head(explanation),
        _section("Files", _files(explanation)),
        _section("What the config means", _parts(explanation)),
        _section("Modules", _tree(explanation)),
        _section("Parameters", rows.parameters(explanation).text() if explanation.parameters else ""),
        _section("Tensors, from file to model", rows.tensors(explanation).text() if explanation.tensors else ""),
        _section("The load", rows.stages(explanation).text() if explanation.stages else ""),
        _section("Beside transformers", _beside(explanation)),
        _section("Around the model", _around(explanation)),
        _section("One forward pass", "" if explanation.forward is None else _forward(explanation.forward)),
        _section("Not shown", "\n".join(explanation.unknown)),
    ]
    return "\n\n".join(part for part in parts if part)


def head(explanation: Explanation) -> str:
    """What it is, in two lines."""
    tensors = f"{explanation.tensors_published:,} tensors, " if explanation.tensors_published else ""
    weights = f", {size(explanation.size_bytes, digits=4)} in {explanation.dtype}" if explanation.size_bytes else ""
    what = f"{article(explanation.kind)} of {tensors}{explanation.parameters:,} parameters{weights}, on {explanation.device}"
    return f"{explanation.name}: {what}\nfound: {explanation.found}"


def article(noun: str) -> str:
    """A noun with its article.

    >>> article("Encoder")
    'an Encoder'
    """
    return f"{'an' if noun[0] in 'AEIOUaeiou' else 'a'} {noun}"


def _section(title: str, body: str) -> str:
    return f"{title}\n{body}" if body else ""


def _files(explanation: Explanation) -> str:
    lines = [(file.name, rows.data(file.size_bytes), file.what) for file in explanation.files]
    return Table(names=("file", "bytes", "what for"), rows=lines, numbers=frozenset({1})).text() if lines else ""


def _parts(explanation: Explanation) -> str:
    width = max((len(part.where) for part in explanation.parts), default=0)
    says = {name: text for part in explanation.parts for name, text in part.says.items()}
    lines = [f"{part.where:<{width}}  {part.what}" for part in explanation.parts]
    return "\n".join([*lines, *(f"  {name}: {text}" for name, text in says.items())])


def _tree(explanation: Explanation) -> str:
    lines = [
        (name or explanation.kind, kind if name else "", f"{count:,} {each}".rstrip() if count else "")
        for name, kind, count, each in tree_lines(explanation.tree)
    ]
    return Table(names=("module", "kind and shapes", "parameters"), rows=lines, numbers=frozenset({2})).text()


def _beside(explanation: Explanation) -> str:
    if explanation.theirs is None:
        return ""
    what = [f"  {stage.name}: {stage.what}" for stage in explanation.theirs.stages]
    return "\n".join([rows.beside(explanation).text(), *what, *rows.notes(explanation)])


def _around(explanation: Explanation) -> str:
    lines = [f"tokenizer: {explanation.tokenizer}"] if explanation.tokenizer else []
    if explanation.stages:
        settings = ", ".join(f"{key}={value}" for key, value in explanation.generation.items())
        lines.append(f"generation settings: {settings or 'none given'}")
        lines.append(f"chat template: {_template(explanation.template)}")
    return "\n".join(lines)


def _template(template: str | None) -> str:
    if template is None:
        return "none: not taught to chat"
    beginning = " ".join(template[:TEMPLATE].split())
    return f"{len(template):,} characters of Jinja: {beginning}{' …' * (len(template) > TEMPLATE)}"


def _forward(passed: Forward) -> str:
    lines = [_asked(passed), rows.forward(passed).text()]
    if passed.flops:
        lines += ["", rows.work(passed).text(), *([f"FLOPs a token: {passed.formula}"] if passed.formula else [])]
    stream = rows.stream(passed)
    if stream:
        lines.append("rms of the stream, at first and after each layer: " + " ".join(f"{rms:.3g}" for _, rms in stream))
    if passed.likeliest:
        lines += ["", f"{passed.asks}:", *(f"{p:8.4f}  {piece!r}" for piece, p in passed.likeliest)]
    return "\n".join(lines)


def _asked(passed: Forward) -> str:
    how = f"in {timing(passed.seconds)}" if passed.likeliest else "as shapes alone"
    if passed.prompt is None:
        return f"{passed.tokens:,} made-up ids, {how}"
    pieces = "|".join(passed.pieces[:24]) + "|…" * (len(passed.pieces) > 24)
    return f"{passed.prompt!r} in {len(passed.pieces)} tokens ({pieces}), {how}"
