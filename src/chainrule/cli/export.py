"""``chainrule export MODEL OUT``: a model into the file of another program (llama.cpp, ollama, llama2.c, llm.c)."""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from chainrule.cli import options
from chainrule.core.files import named

FORMATS = {".gguf": "gguf", ".bin": "llama2c"}
"""What a name that ends like this stands for, where --to does not say."""


def arguments(parser: ArgumentParser) -> None:
    """What the verb takes."""
    options.model(parser)
    parser.add_argument("out", metavar="OUT", help="the file to write (OUT.gguf, OUT.bin), or a folder")
    parser.add_argument(
        "--to",
        choices=("gguf", "llama2c", "llmc", "hf"),
        help="the format (as OUT ends: .gguf; .bin is llama2c, say llmc for llm.c; else a folder)",
    )
    parser.add_argument(
        "--type",
        help="how weights are stored.\ngguf: f32, f16, bf16, q8_0 (without --type), q6_k, q4_k_m, q4_0\n"
        "llama2c: f32 (without --type), int8\nllmc: f32 (without --type), bf16",
    )
    parser.add_argument("--modelfile", action="store_true", help="also write ollama's Modelfile beside OUT.gguf")
    parser.add_argument("--shard-gb", type=float, metavar="GB", help="the largest file of weights in a folder (50)")
    parser.add_argument("--force", action="store_true", help="replace what is there")
    options.where(parser)
    options.as_json(parser)


def run(args: Namespace) -> None:
    """Load, write, say what was written."""
    out = named(Path(args.out))
    from chainrule.adapt.lora import merge
    from chainrule.hub.export import checked, export
    from chainrule.hub.load import load

    to = args.to or FORMATS.get(out.suffix, "hf")
    settings = {"kind": args.type, "modelfile": args.modelfile, "shard_gb": args.shard_gb}
    checked(to, **settings)  # known to fail before anything is loaded
    lm = load(args.model, **options.loading(args)) if to == "hf" else options.load(args)  # an encoder has a folder alone
    if args.adapter:
        merge(lm.model)  # no such file holds an adapter beside its weights
        print(f"note: {args.adapter} was added to the weights", file=sys.stderr)
    notes = export(lm, out, to=to, force=args.force, **settings)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    size = sum(file.stat().st_size for file in out.rglob("*") if file.is_file()) if out.is_dir() else out.stat().st_size
    if args.json:
        options.dump({"out": str(out), "format": to, "size_bytes": size, "notes": notes})
        return
    print(f"{out}: {to}, {size:,} bytes")
