"""Plans against the clock and the memory of this machine: predicted, measured and their ratio, for sizes nothing was tuned on.

    python benchmarks/plan.py            [--precision bf16] [--optimizer muon] [--rounds 4] [--shared]

Time: bricks and steps are timed in turns, round by round, and medians compared. On a machine that others use, ``--shared``
takes one thread, and the processor's time instead of the clock's. Memory: the growth of a fresh process's resident set over
training steps, and over reading a batch into a cache and writing on. The exit code is 1 where one is more than 10 % off.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import torch

from chainrule.core.datum import Batch
from chainrule.core.device import cpu_threads
from chainrule.eval.anatomy import Anatomy, take_apart
from chainrule.eval.expected import decode_bricks, prefill_bricks, reading_times, step_bricks, step_times
from chainrule.eval.memory import Setting, inference_memory, training_memory
from chainrule.hub.fresh import fresh
from chainrule.logprobs.losses import cross_entropy
from chainrule.train.loop import _scale_and_clip
from chainrule.train.objective import Objective
from chainrule.train.optim import AdamW, Muon

SIZES = {
    "wide": ({"vocab_size": 4096, "n_layers": 3, "d_model": 448, "n_heads": 7, "d_ff": 1216}, 4, 256),
    "deep": ({"vocab_size": 2048, "n_layers": 10, "d_model": 256, "n_heads": 4, "d_ff": 704}, 6, 192),
    "long": ({"vocab_size": 8192, "n_layers": 4, "d_model": 320, "n_heads": 5, "n_kv_heads": 1, "d_ff": 896}, 1, 1024),
}
"""Shape, rows, tokens of a row."""
WRITTEN = 24
"""So many tokens are written after the rows are read."""
MOST = 0.10
"""So much, of what was measured, may a prediction be off."""


def model_of(name: str):
    shape, _, length = SIZES[name]
    settings = {"n_kv_heads": None, "rope_theta": 1e4, "tied": True, "init": "normal", "seed": 0} | shape
    return fresh(context=length + WRITTEN, **settings)


def optimizer_of(kind: str, model, mixed: bool):
    dtype = torch.bfloat16 if mixed else torch.float32
    return Muon(model, lr=1e-3, adam_lr=1e-3, dtype=dtype) if kind == "muon" else AdamW(model, lr=1e-3)


class Trainer:
    """A training step as the loop makes it."""

    def __init__(self, name: str, kind: str, mixed: bool) -> None:
        self.model, self.mixed = model_of(name).train(), mixed
        _, rows, length = SIZES[name]
        self.optimizer, self.objective = optimizer_of(kind, self.model, mixed), Objective(self.model, cross_entropy)
        self.tokens = torch.randint(self.model.vocab_size, (rows, length), generator=torch.Generator().manual_seed(0))

    def step(self) -> None:
        batch = Batch(self.tokens, torch.ones(self.tokens.shape))
        with torch.autocast("cpu", torch.bfloat16, enabled=self.mixed):
            loss = self.objective(batch)
        loss.total.backward()
        _scale_and_clip(list(self.model.parameters()), float(loss.weight), 1.0)
        self.optimizer.step(1.0)
        for parameter in self.model.parameters():
            parameter.grad = None


class Reader:
    """Rows read into a cache, and tokens written after them."""

    def __init__(self, name: str) -> None:
        self.model = model_of(name).eval()
        _, self.rows, self.length = SIZES[name]
        self.tokens = torch.randint(self.model.vocab_size, (self.rows, self.length))

    @torch.inference_mode()
    def read(self):
        cache = self.model.cache(self.rows, self.length + WRITTEN)
        return cache, self.model.readout(self.model.hidden(self.tokens, cache)[:, -1])

    @torch.inference_mode()
    def write(self, cache) -> None:
        self.model.readout(self.model.hidden(self.tokens[:, :1], cache)[:, -1])


CLOCKS = {False: time.perf_counter, True: time.process_time}
"""The clock, by whether the machine is shared."""


def setting_of(name: str, kind: Any, mixed: bool) -> Setting:
    _, rows, length = SIZES[name]
    return Setting(rows=rows, length=length, precision="mixed" if mixed else "fp32", optimizer=kind)


def predicted_step(anatomy: Anatomy, name: str, kind: str, mixed: bool, shared: bool) -> float:
    times = step_times(anatomy, mixed=mixed, clock=CLOCKS[shared])
    return times.total(step_bricks(anatomy, setting_of(name, kind, mixed)))


def predicted_reading(anatomy: Anatomy, name: str, shared: bool) -> tuple[float, float]:
    _, rows, length = SIZES[name]
    times = reading_times(anatomy, rows, length, clock=CLOCKS[shared])
    read = times.total(prefill_bricks(anatomy, rows, length))
    return read, times.total(decode_bricks(anatomy, rows, length + WRITTEN // 2))


def compare_time(name: str, kind: str, mixed: bool, rounds: int, shared: bool) -> list[tuple[str, float, float]]:
    clock = CLOCKS[shared]

    def clocked(work) -> float:
        began = clock()
        work()
        return clock() - began

    trainer, reader = Trainer(name, kind, mixed), Reader(name)
    anatomy = take_apart(trainer.model, name)
    for _ in range(2):
        trainer.step()
    seen: dict[str, list[tuple[float, float]]] = {"train": [], "read": [], "write": []}
    for _ in range(rounds):
        guess = predicted_step(anatomy, name, kind, mixed, shared)
        seen["train"].append((guess, statistics.median(clocked(trainer.step) for _ in range(5))))
        read, write = predicted_reading(anatomy, name, shared)
        seen["read"].append((read, statistics.median(clocked(reader.read) for _ in range(5))))
        cache, _ = reader.read()
        written = [clocked(lambda cache=cache: reader.write(cache)) for _ in range(WRITTEN)]
        seen["write"].append((write, statistics.median(written)))
    return [
        (what, statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)) for what, pairs in seen.items()
    ]


def resident() -> tuple[int, int]:
    """(now, most so far) in bytes."""
    with open("/proc/self/status", encoding="utf-8") as file:
        kilobytes = {line.split(":")[0]: line.split()[1] for line in file if line.startswith(("VmRSS", "VmHWM"))}
    return 1024 * int(kilobytes["VmRSS"]), 1024 * int(kilobytes["VmHWM"])


def grow(name: str, what: str, kind: str, mixed: bool) -> None:
    """In a process of its own: print how much memory the work took beyond what the libraries hold."""
    SIZES["warm"] = ({"vocab_size": 512, "n_layers": 1, "d_model": 192, "n_heads": 3, "d_ff": 512}, *SIZES[name][1:])
    for _ in range(2):
        Trainer("warm", kind, mixed).step()
        read_and_write("warm")
    with open("/proc/self/clear_refs", "w", encoding="utf-8") as file:
        file.write("5")  # forget the peak
    before, _ = resident()
    if what == "train":
        trainer = Trainer(name, kind, mixed)
        for _ in range(3):
            trainer.step()
    else:
        read_and_write(name)
    print(json.dumps(resident()[1] - before))


def read_and_write(name: str) -> None:
    reader = Reader(name)
    cache, _ = reader.read()
    for _ in range(WRITTEN):
        reader.write(cache)


def compare_memory(name: str, kind: str, mixed: bool) -> list[tuple[str, float, float]]:
    _, rows, length = SIZES[name]
    with torch.device("meta"):
        anatomy = take_apart(model_of(name), name)
    guesses = {"train": training_memory(anatomy, setting_of(name, kind, mixed)).peak}
    guesses["infer"] = inference_memory(anatomy, Setting(rows=rows, length=length + WRITTEN), "fp32").peak
    found = []
    for what, guess in guesses.items():
        # freed memory goes back at once, so that the resident set is what is in use
        argv = [sys.executable, __file__, "--grow", name, what, kind, "bf16" if mixed else "fp32"]
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
        out = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True).stdout
        found.append((what, guess, float(out)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--grow", nargs=4, metavar=("SIZE", "WHAT", "OPTIMIZER", "PRECISION"), help=argparse.SUPPRESS)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw")
    parser.add_argument("--shared", action="store_true", help="others use the machine: one thread, processor time")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(1 if args.shared else cpu_threads())
    if args.grow:
        name, what, kind, precision = args.grow
        grow(name, what, kind, precision == "bf16")
        return
    mixed = args.precision == "bf16"
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, {args.optimizer}, {args.precision}")
    print(f"{'size':<6} {'what':<14} {'predicted':>12} {'measured':>12} {'ratio':>6}")
    close = True
    for name in args.sizes:
        for what, guess, real in compare_time(name, args.optimizer, mixed, args.rounds, args.shared):
            close &= report(name, f"{what}, time", 1e3 * guess, 1e3 * real, "ms")
        for what, guess, real in compare_memory(name, args.optimizer, mixed):
            close &= report(name, f"{what}, memory", guess / 1e6, real / 1e6, "MB")
    if not close:
        sys.exit(1)


def report(name: str, what: str, guess: float, real: float, unit: str) -> bool:
    """Print a row; whether the prediction is close enough."""
    close = abs(guess / real - 1) <= MOST
    ending = "" if close else f"  more than {MOST:.0%} off"
    print(f"{name:<6} {what:<14} {guess:9.1f} {unit} {real:9.1f} {unit} {guess / real:6.2f}{ending}", flush=True)
    return close


if __name__ == "__main__":
    main()
