"""The command line: one verb, one file. A verb parses, calls a room, prints; torch is imported only once it must compute.

Results go to stdout (``--json`` for machines), progress to stderr. Exit 0: done. 2: the input was wrong, and the message says
what to do. 130: interrupted. 1: a check of doctor failed; else our own fault, with a traceback.
"""

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from chainrule.core.errors import ChainruleError, closest, perhaps
from chainrule.core.files import unusable

VERBS = {
    "quickstart": "train a language model from nothing, teach it to chat, measure it and report",
    "train": "train what a YAML recipe says; --resume goes on after any interruption",
    "chat": "talk with a model that was taught to chat",
    "generate": "continue a prompt",
    "score": "judge a text: its log-probability, token by token",
    "next": "show the likeliest continuations of a prompt, with probabilities",
    "fill": "show the likeliest words behind every [MASK] of a text, by an encoder",
    "tokenize": "show the pieces that a tokenizer makes of a text",
    "words": "learn word vectors, see the nearest words, score them",
    "ladder": "climb the history of language models on one text, from uniform to the truth, in bits per byte",
    "eval": "measure the bits per byte of a text under a model",
    "compare": "compare two models on one text, with an interval",
    "plan": "reckon what a model needs: parameters, FLOPs, memory, time, and whether it fits",
    "explain": "show how a name becomes a model that answers, step by step; or what a number format is",
    "export": "write a model into the file of another program: GGUF, llama2.c, llm.c, a folder",
    "doctor": "see what this machine has, and check that training works on it",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(argv)
        sys.stdout.flush()  # what cannot be written is known here, and not when Python has left
        return code
    except ChainruleError as error:
        print(f"chainrule: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"\nchainrule: {str(stop) or 'interrupted'}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output has left, as in `chainrule ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (OSError, UnicodeError) as error:
        told = _told(error)
        if told is None:
            raise
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try again as it leaves
        print(f"chainrule: {told}", file=sys.stderr)
        return 2


def _told(error: OSError | UnicodeError) -> str | None:
    """What to say where the system refuses a text or a file that the user gave; None where the fault is ours."""
    if isinstance(error, UnicodeEncodeError | UnicodeDecodeError):  # input in another encoding; files are read by core.files
        bad = error.object[error.start : error.end]
        mend = "convert it first, as iconv -f GBK -t UTF-8 does" if error.encoding == "utf-8" else "set PYTHONIOENCODING=utf-8"
        if isinstance(bad, str) and all("\udc80" <= letter <= "\udcff" for letter in bad):  # how Python escapes such bytes
            bad = bad.encode("utf-8", "surrogateescape")
        shown = f"input (bytes {bad[:8].hex(' ')})" if isinstance(bad, bytes) else repr(bad)
        return f"{shown} is no text in {error.encoding}; {mend}"
    if isinstance(error, UnicodeError):
        return None
    if error.errno == errno.ENOSPC:
        return f"the disk is full: {error}; make room, and run it again"
    return str(unusable(error)) if isinstance(error.filename, str | bytes) else None


class _Help(argparse.Action):
    """``--help`` that fails where it cannot be written: argparse's own would not tell."""

    def __call__(self, parser: argparse.ArgumentParser, *arguments: Any) -> None:
        sys.stdout.write(parser.format_help())
        parser.exit()


def _run(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(overview())
        return 0
    if argv[0] in ("-V", "--version"):
        from chainrule.core.version import __version__

        print(f"chainrule {__version__}")
        return 0
    verb, rest = argv[0], argv[1:]
    if verb not in VERBS:
        raise ChainruleError(f"there is no verb {verb!r}{perhaps(closest(verb, VERBS))}; see: chainrule --help")
    module = import_module(f"chainrule.cli.{verb}")
    parser = argparse.ArgumentParser(
        prog=f"chainrule {verb}", description=_sentence(VERBS[verb]), formatter_class=argparse.RawTextHelpFormatter,
        add_help=False,
    )  # fmt: skip
    nowhere = argparse.SUPPRESS
    parser.add_argument(
        "-h", "--help", action=_Help, nargs=0, dest=nowhere, default=nowhere, help="show this help message and exit"
    )
    module.arguments(parser)
    if "(" in parser.format_help():
        parser.epilog = "In brackets: what an option is where it is not given."
    try:
        args = parser.parse_intermixed_args(rest)
    except SystemExit as stop:
        return int(stop.code or 0)
    return module.run(args) or 0


def _sentence(what: str) -> str:
    """A verb's description with a capital and a full stop; what stands inside (FLOPs, [MASK]) stays as it is."""
    return f"{what[0].upper()}{what[1:]}."


def overview() -> str:
    """The help of ``chainrule`` itself."""
    verbs = "\n".join(f"  {verb:<11} {what}" for verb, what in VERBS.items())
    return (
        "chainrule: language models, from the bigram table to a chatting Transformer\n\n"
        f"usage: chainrule VERB ...\n\n{verbs}\n\n"
        "chainrule VERB --help says more. MODEL is a run (runs/quickstart), a folder with config.json and safetensors,\n"
        "org/name of Hugging Face (org/name@revision) or modelscope:org/name, a .gguf, a llama2.c .bin,\n"
        "ngram:FILE (ngram5:FILE sets the order), or world (the exact truth)."
    )
