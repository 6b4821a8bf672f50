"""``chainrule eval MODEL``: bits per byte and perplexity of any text; or how often an encoder–decoder translates exactly."""

import math
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from chainrule.cli import options
from chainrule.data.documents import read_jsonl

if TYPE_CHECKING:
    from chainrule.hub.lm import LM


def arguments(parser: ArgumentParser) -> None:
    """What the verb takes."""
    options.model(parser)
    options.documents(
        parser, text=f"{options.TEXT};\nan encoder–decoder reads a .jsonl of pairs, or held-out pairs of the world"
    )
    parser.add_argument("--force", action="store_true", help="measure even with a tokenizer that loses part of the text")
    options.where(parser)
    options.as_json(parser)


def run(args: Namespace) -> None:
    """Measure and print."""
    from chainrule.eval.bpb import measure

    options.check_drawn(args)
    rows = Path(args.text or "").suffix.lower() == ".jsonl"
    if rows:
        next(read_jsonl(Path(args.text)), None)  # what is not there is refused before anything is loaded
    read = None if rows else options.read(args)
    lm = options.load(args)
    if lm.model.needs:
        return _translations(lm, args)  # its rows are pairs
    texts, languages = read or options.read(args)
    found = measure(lm.model, lm.need_tokenizer(), texts, languages, name=lm.name, force=args.force)
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    bits = {**found.by_language, "all": found.bits_per_byte}
    perplexity = found.perplexity
    assert perplexity is not None  # a model judges token by token
    if args.json:
        by = {key: value if math.isfinite(value) else None for key, value in bits.items()}
        options.dump({"model": lm.name, "bits_per_byte": by,
                      "perplexity": perplexity if math.isfinite(perplexity) else None,
                      "judged_tokens": found.judged_tokens, "documents": len(texts), "bytes": sum(found.size_bytes),
                      "tokens": found.tokens, "seconds": round(found.seconds, 3), "notes": list(found.notes)})  # fmt: skip
        return
    size = sum(found.size_bytes)
    for language, value in bits.items() if len(bits) > 2 else [("all", found.bits_per_byte)]:
        print(f"{language:<5} {value:.4f} bits per byte")
    print(f"perplexity {perplexity:.4g} per token, over {found.judged_tokens:,} judged tokens")
    print(f"{len(texts):,} documents, {size:,} bytes, {found.tokens:,} tokens, {found.tokens / found.seconds:,.0f} tokens/s")


def _translations(lm: "LM", args: Namespace) -> None:
    """Greedy targets of held-out pairs of the world, or of a .jsonl file's."""
    from dataclasses import asdict

    from chainrule.data.pairs import read_pairs
    from chainrule.eval.translations import exactness, world_pairs

    pairs = world_pairs(args.documents, seed=args.seed) if args.text is None else {"all": read_pairs(args.text)}
    found = {direction: exactness(lm, each) for direction, each in pairs.items()}
    if args.json:
        options.dump({"model": lm.name, "translations": {name: asdict(one) for name, one in found.items()}})
        return
    for name, one in found.items():
        cut = f"; {one.cut} were not at their end after {one.max_tokens} tokens" if one.cut else ""
        print(f"{name:<6} {one.right} of {one.asked} translated exactly; the right target has {one.nats:.2f} nats{cut}")
