"""``chainrule eval MODEL``: bits per byte of any text under any model."""

import math
import sys
from argparse import ArgumentParser, Namespace

from chainrule.cli import options


def arguments(parser: ArgumentParser) -> None:
    """What the verb takes."""
    options.model(parser)
    options.documents(parser)
    parser.add_argument("--force", action="store_true", help="measure even with a tokenizer that loses part of the text")
    options.where(parser)
    options.as_json(parser)


def run(args: Namespace) -> None:
    """Measure and print."""
    from chainrule.eval.bpb import measure

    texts, languages = options.read(args)
    lm = options.load(args)
    found = measure(lm.model, lm.tokenizer, texts, languages, name=lm.name, force=args.force)
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    bits = {**found.by_language, "all": found.bits_per_byte}
    if args.json:
        by = {key: value if math.isfinite(value) else None for key, value in bits.items()}
        options.dump({"model": lm.name, "bits_per_byte": by, "documents": len(texts), "bytes": sum(found.size_bytes),
                      "tokens": found.tokens, "seconds": round(found.seconds, 3), "notes": list(found.notes)})  # fmt: skip
        return
    size = sum(found.size_bytes)
    for language, value in bits.items() if len(bits) > 2 else [("all", found.bits_per_byte)]:
        print(f"{language:<5} {value:.4f} bits per byte")
    print(f"{len(texts):,} documents, {size:,} bytes, {found.tokens:,} tokens, {found.tokens / found.seconds:,.0f} tokens/s")
