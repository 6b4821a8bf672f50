"""ollama's Modelfile: which GGUF file, how a chat is written, where a reply ends, how long a row may be.

ollama writes templates in Go's language. One kind is known here by what it renders, ChatML; any other template stays in the
GGUF file.
"""

from pathlib import Path

from chainrule.core.errors import TokenizerError
from chainrule.core.files import write_text
from chainrule.hub.lm import LM
from chainrule.tokenizers.chat import ChatTemplate

CHATML = '''TEMPLATE """{{- range .Messages }}<|im_start|>{{ .Role }}
{{ .Content }}<|im_end|>
{{ end }}<|im_start|>assistant
"""'''
PROBES = (
    [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello."), ("user", "Bye")],
    [("user", "Hi")],
)


def modelfile(lm: LM, gguf: Path) -> tuple[str, str | None]:
    """(the Modelfile of a model and its GGUF file beside it, a note for the user)."""
    lines = [f"FROM ./{gguf.name}"]
    note = None
    if lm.template is not None and is_chatml(lm.template):
        lines.append(CHATML)
    elif lm.template is not None:
        note = "the chat template is not ChatML, so the Modelfile has none; it is inside the GGUF"
    lines += [f'PARAMETER stop "{stop}"' for stop in stops(lm)]
    if lm.model.context is not None:
        lines.append(f"PARAMETER num_ctx {lm.model.context}")
    return "\n".join(lines) + "\n", note


def write_modelfile(lm: LM, gguf: Path) -> str | None:
    """Write ``Modelfile`` beside the GGUF file; returns a note for the user."""
    text, note = modelfile(lm, gguf)
    write_text(gguf.with_name("Modelfile"), text)
    return note


def is_chatml(template: ChatTemplate) -> bool:
    """Whether a template writes conversations as ChatML does, to the letter, but for BOS, which ollama puts in front itself."""
    tokenizer = template.tokenizer
    bos = next((name for name, id in tokenizer.specials.items() if id == tokenizer.bos), "")
    try:
        said = [template.render([{"role": role, "content": words} for role, words in probe], generate=True) for probe in PROBES]
        return [text.removeprefix(bos) for text in said] == [_chatml(probe) for probe in PROBES]
    except TokenizerError:
        return False


def _chatml(turns: list[tuple[str, str]]) -> str:
    said = "".join(f"<|im_start|>{role}\n{words}<|im_end|>\n" for role, words in turns)
    return f"{said}<|im_start|>assistant\n"


def stops(lm: LM) -> list[str]:
    """The texts at which a reply ends."""
    tokenizer = lm.tokenizer
    if tokenizer is None:
        return []
    names = {id: name for name, id in tokenizer.specials.items()}
    return list(dict.fromkeys(names[id] for id in (*lm.turn_ends(), *tokenizer.eos) if id in names))
