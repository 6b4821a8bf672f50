"""What several verbs ask alike: the model, the text, how to draw, how to print."""

import json
import math
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chainrule.core.errors import ConfigError

if TYPE_CHECKING:
    from chainrule.hub.lm import LM


MODELS = "runs/NAME, a folder, org/name, modelscope:org/name, a .gguf or .bin, ngram:FILE or world"
ENCODERS = "an encoder: runs/NAME, a folder, org/name or modelscope:org/name"
TEXT = "a text file, folder, .jsonl or .parquet; without it: held-out world text"
"""How the verbs describe their MODEL (most of them, those for encoders) and ``--text``."""


def model(parser: ArgumentParser, name: str = "model", known: str = MODELS) -> None:
    """A model, and what kinds of names are known for it."""
    parser.add_argument(name, metavar=name.upper(), help=known)


def where(
    parser: ArgumentParser, adapted: str = "the weights", dtype: str = "auto (as stored), fp32, bf16, fp16 or int4"
) -> None:
    """Device and number format, and beside what an adapter goes."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps")
    parser.add_argument("--dtype", default="auto", help=dtype)
    parser.add_argument("--pickle", action="store_true", help="allow weights that are pickles, which may run code")
    parser.add_argument(
        "--adapter", metavar="FOLDER", help=f"a LoRA to put beside {adapted}: a folder that PEFT wrote, or org/name"
    )


def as_json(parser: ArgumentParser) -> None:
    """Output for machines."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def sampling(parser: ArgumentParser, *, temperature: float, max_tokens: int) -> None:
    """How to draw the next token."""
    parser.add_argument("--max-tokens", type=int, default=max_tokens, help=f"the most new tokens ({max_tokens})")
    parser.add_argument("--temperature", type=float, default=temperature, help=f"0 is greedy ({temperature:g})")
    parser.add_argument("--top-k", type=int, metavar="K", help="only the K likeliest tokens")
    parser.add_argument("--top-p", type=float, metavar="P", help="only the likeliest tokens that make up P of the probability")
    parser.add_argument("--min-p", type=float, metavar="P", help="only tokens at least P times as likely as the likeliest")
    parser.add_argument("--repetition-penalty", type=float, default=1.0, help="above 1 discourages what was said before")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same text (0)")
    parser.add_argument("--stop", action="append", default=[], metavar="TEXT", help="stop before this text; may be repeated")


SETTINGS = ("max_tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "stop")


def settings(args: Namespace) -> dict[str, Any]:
    """The sampling options as settings of a request."""
    return {name: getattr(args, name) for name in SETTINGS} | {"stop": tuple(args.stop)}


def check_settings(args: Namespace) -> None:
    """Refuse, before any model is loaded, sampling options that no request can have."""
    from chainrule.generate.engine import Request

    Request(tokens=[0], **settings(args))


DRAWN = {"documents": 200, "seed": 0}
"""The options that say what is drawn from the world, and what they are where they were not given."""


def documents(
    parser: ArgumentParser,
    text: str = TEXT,
    seed: str = "seed of the world's documents (0)",
    drawn: str = "how many documents of the world to measure on (200)",
) -> None:
    """The texts to measure on."""
    parser.add_argument("--text", metavar="FILE", help=text)
    parser.add_argument("--documents", type=int, default=DRAWN["documents"], help=drawn)
    parser.add_argument("--seed", type=int, default=DRAWN["seed"], help=seed)


def run_folder(
    parser: ArgumentParser,
    usual: str,
    *,
    default: str | None = None,
    resume: str = "go on with a run that was interrupted",
    force: str = "replace an existing run",
) -> None:
    """Where a run goes, and what becomes of one that is there."""
    parser.add_argument("--name", default=default, help=f"the run's folder in runs/ ({usual})")
    parser.add_argument("--runs", default="runs", metavar="FOLDER", help="where run folders are (runs)")
    parser.add_argument("--resume", action="store_true", help=resume)
    parser.add_argument("--force", action="store_true", help=force)


def spelt(name: str) -> str:
    """How an option is typed."""
    return f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"


def check_least(args: Namespace, **least: float) -> None:
    """Refuse an option whose number is below its least, or not finite."""
    for name, bound in least.items():
        value = getattr(args, name)
        if value is not None and not bound <= value < math.inf:
            finite = ", and finite" if isinstance(value, float) else ""
            raise ConfigError(f"{spelt(name)} is {value}; it must be {bound} or more{finite}")


def refuse(args: Namespace, usual: Mapping[str, Any], why: str) -> None:
    """Refuse the first of some options that was given and would change nothing; ``usual`` says what they are where not given.

    ``why`` says what it does not go with, and what to do.
    """
    for name, absent in usual.items():
        value = getattr(args, name)
        if value != absent:
            raise ConfigError(f"{spelt(name)}{'' if isinstance(value, bool) else f' {value}'} {why}")


def run_name(name: str, runs: str) -> str:
    """The name of a run, which must be that of a folder inside ``runs``."""
    if not name or "/" in name or name in (".", ".."):
        raise ConfigError(f"--name is {name!r}; it names a folder inside {runs}, without slashes")
    return name


def check_drawn(args: Namespace, *names: str) -> None:
    """Refuse what says what to draw from the world beside a ``--text``, which is read whole; and to draw less than one."""
    if args.text is None:
        return check_least(args, documents=1)
    usual = {name: DRAWN[name] for name in names or DRAWN}
    refuse(args, usual, f"is about documents of the world, but --text {args.text} is measured on; leave one of them out")


def read(args: Namespace) -> tuple[list[str], list[str]]:
    """(texts, the language of each): the file's, or held-out documents of the world."""
    check_drawn(args)
    if args.text is not None:
        from chainrule.data.documents import read_documents

        texts = read_documents(args.text)
        return texts, ["text"] * len(texts)
    from itertools import islice

    from chainrule.world import documents

    drawn = list(islice(documents(args.seed, split="heldout"), args.documents))
    return [one.text for one in drawn], [one.language for one in drawn]


def load(args: Namespace) -> "LM":
    """The model of the arguments."""
    from chainrule.hub.load import left_to_right, load

    return left_to_right(load(args.model, **loading(args)))


def loading(args: Namespace) -> dict[str, Any]:
    """How to load, as settings of ``hub.load.load``."""
    return {name: getattr(args, name) for name in ("device", "dtype", "pickle", "adapter")}


def prompt(words: str) -> str:
    """A prompt as given; ``-`` reads it from standard input, ``@FILE`` from a file."""
    if words == "-":
        return sys.stdin.read()
    if words.startswith("@"):
        from chainrule.core.files import read_text

        return read_text(Path(words[1:]))
    return words


def candidate(text: str, probability: float) -> str:
    """A line of the verbs that list candidates; a text whose ends could not be seen is quoted."""
    return f"{probability:8.4f}  {text if text and text == text.strip() else repr(text)}"


def say(notes: Mapping[str, Sequence[str]]) -> None:
    """Say on stderr what must be known to read what was measured, with the names of those that a note is about."""
    for note in dict.fromkeys(note for each in notes.values() for note in each):
        print(f"note: {', '.join(name for name, each in notes.items() if note in each)}: {note}", file=sys.stderr)


def dump(data: Any) -> None:
    """Print JSON on stdout."""
    print(json.dumps(data, ensure_ascii=False, indent=1))
