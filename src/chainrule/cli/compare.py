"""``chainrule compare FIRST SECOND``: which of two models is better on a text, and is that luck?"""

import sys
from argparse import ArgumentParser, Namespace
from collections import Counter

from chainrule.cli import options
from chainrule.core.errors import DataError


def arguments(parser: ArgumentParser) -> None:
    """What the verb takes."""
    options.model(parser, "first")
    options.model(parser, "second")
    options.documents(parser)
    parser.add_argument(
        "--force", action="store_true",
        help="measure even with a tokenizer that loses part of the text,\n"
        "or where one of the two alone pays for the ends of documents",
    )  # fmt: skip
    options.where(parser, adapted="the weights of the SECOND")
    options.as_json(parser)


def run(args: Namespace) -> None:
    """Measure both on the same documents; print the difference with its interval."""
    from chainrule.core.schema import dump
    from chainrule.eval.bpb import measure
    from chainrule.eval.compare import compare, verdict
    from chainrule.hub.load import left_to_right, load

    texts, languages = options.read(args)
    texts, languages = _pieces(texts, languages)
    if len(texts) < 2:
        more = "--documents 2 or more" if args.text is None else "a text of two lines or more"
        raise DataError(f"a comparison over {len(texts)} documents says nothing; give {more}")
    spoken = _spoken(languages)
    measured = []
    for name, adapter in ((args.first, None), (args.second, args.adapter)):
        lm = left_to_right(load(name, **{**options.loading(args), "adapter": adapter}))
        measured.append(measure(lm.model, lm.need_tokenizer(), texts, languages, name=name, force=args.force))
    notes = {one.name: one.notes for one in measured}
    options.say(notes)
    found = [compare(measured[0], measured[1], language=language, force=args.force) for language in spoken]
    if args.json:
        options.dump([{**dump(one), "notes": notes} for one in found])
        return
    for one in found:
        print(verdict(one) if one.language == "all" else f"{one.language}: {verdict(one)}")


def _spoken(languages: list[str]) -> list[str | None]:
    """All documents (None), then each language that has two or more, where there are several; the others are named."""
    counts = Counter(languages)
    if len(counts) == 1:
        return [None]
    few = [language for language, count in counts.items() if count < 2]
    if few:
        print(f"note: one document in {', '.join(few)} is too few to compare on; give more --documents", file=sys.stderr)
    return [None, *(language for language in counts if language not in few)]


def _pieces(texts: list[str], languages: list[str]) -> tuple[list[str], list[str]]:
    """A single long text as its paragraphs, so that there is something to draw again."""
    if len(texts) != 1:
        return texts, languages
    parts = [part for part in texts[0].split("\n\n") if part.strip()]
    if len(parts) < 2:
        parts = [line for line in texts[0].splitlines() if line.strip()]
    return parts, languages * len(parts)
