"""Loading a checkpoint of 2 GB: ours against transformers, each in a fresh process, from warm files, in one run.

    python benchmarks/loading.py            [--gb 2] [--rounds 3] [--dtype bf16]

Seconds until the model is there, seconds until it has answered one token as well (a mapped tensor is read when it is used);
and, in a run of its own since watching slows what is watched, the most anonymous memory (no file behind it), every 2 ms.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from chainrule.hub.fresh import fresh
from chainrule.hub.save import save
from chainrule.hub.trace import anonymous_bytes

WIDTH, LAYER = 2048, 2 * (2 * 2048 * 2048 + 2 * 2048 * 512 + 3 * 2048 * 5632)
"""The width of the model, and the bytes of one of its layers in bf16."""


def ours(folder: str, dtype: str) -> object:
    from chainrule.hub.load import load

    return load(folder, device="cpu", dtype=dtype).model


def theirs(folder: str, dtype: str) -> object:
    from transformers import AutoModelForCausalLM

    wanted = {"auto": "auto", "bf16": torch.bfloat16, "fp32": torch.float32}[dtype]
    return AutoModelForCausalLM.from_pretrained(folder, dtype=wanted).eval()


class Peak(threading.Thread):
    """The most anonymous memory since it was started."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most, self.done = anonymous_bytes() or 0, threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.002):
            self.most = max(self.most, anonymous_bytes() or 0)


def one(engine: str, folder: str, dtype: str, what: str) -> None:
    """In a process of its own: load, answer, print what it took: seconds, or with ``what`` "memory" bytes."""
    load = {"chainrule": ours, "transformers": theirs}[engine]
    if engine == "transformers":  # both sides have what they need imported: imports are not loading
        import transformers

        for name in ("AutoModelForCausalLM", "LlamaForCausalLM"):
            getattr(transformers, name)
    before, peak = anonymous_bytes() or 0, Peak()
    if what == "memory":
        peak.start()
    began = time.perf_counter()
    model = load(folder, dtype)
    loaded = time.perf_counter() - began
    with torch.inference_mode():
        model(torch.tensor([[1]]))
    answered = time.perf_counter() - began
    peak.done.set()
    print(json.dumps([peak.most - before] if what == "memory" else [loaded, answered]))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--gb", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=("auto", "bf16", "fp32"), default="auto", help="auto: bf16, as stored")
    args = parser.parse_args()
    if args.one:
        one(*args.one)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = checkpoint(Path(place), args.gb)
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        print(
            f"{size / 1e9:.2f} GB of bf16, wanted as {args.dtype}; {torch.get_num_threads()} threads, torch {torch.__version__}"
        )
        print(f"{'':<14}{'loaded':>10}{'answered':>10}{'anonymous':>12}")
        seen: dict[str, list[list[float]]] = {"chainrule": [], "transformers": []}
        for _ in range(args.rounds):
            for engine, rows in seen.items():
                rows.append(alone(engine, folder, args.dtype, "seconds") + alone(engine, folder, args.dtype, "memory"))
        medians = {engine: [statistics.median(column) for column in zip(*rows, strict=True)] for engine, rows in seen.items()}
        for engine, (loaded, answered, anonymous) in medians.items():
            print(f"{engine:<14}{loaded:9.2f}s{answered:9.2f}s{anonymous / 1e9:9.2f} GB")
        ratios = [a / b for a, b in zip(*medians.values(), strict=True)]
        print(f"{'ratio':<14}{ratios[0]:10.2f}{ratios[1]:10.2f}{ratios[2]:12.2f}")


def alone(engine: str, folder: Path, dtype: str, what: str) -> list[float]:
    """What ``one`` prints, in a fresh process."""
    argv = [sys.executable, __file__, "--one", engine, str(folder), dtype, what]
    return json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def checkpoint(place: Path, size_gb: float) -> Path:
    """A random LLaMA of about so many bytes in bf16, in shards of half a gigabyte."""
    model = fresh(
        vocab_size=32000, context=4096, n_layers=max(1, round((size_gb * 1e9 - 4 * 32000 * WIDTH) / LAYER)), d_model=WIDTH,
        n_heads=32, n_kv_heads=8, d_ff=5632, rope_theta=1e4, tied=False, init="normal", seed=0,
    )  # fmt: skip
    return save(place / "model", model.bfloat16(), shard_bytes=500_000_000)


if __name__ == "__main__":
    main()
