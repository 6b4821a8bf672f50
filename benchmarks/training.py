"""Training steps: our loop's step against transformers' LLaMA with torch's AdamW, same shape, same tokens, in one run.

    python benchmarks/training.py

Prints tokens per second of each, their ratio, and the share of the machine's measured bf16 matmul rate that ours reaches.
"""

import statistics
import time

import torch

from chainrule.core.datum import Batch
from chainrule.core.device import cpu_threads, pick_device, pick_dtype
from chainrule.hub.fresh import fresh
from chainrule.logprobs.losses import cross_entropy
from chainrule.train.objective import Objective
from chainrule.train.optim import AdamW, Muon

SHAPE = {"vocab_size": 2048, "context": 256, "n_layers": 4, "d_model": 192, "n_heads": 6, "n_kv_heads": 6, "d_ff": 512}
ROWS, STEPS, WARM = 16, 8, 3


def timed(step) -> float:
    """Median seconds of a step, after warming up."""
    for _ in range(WARM):
        step()
    seconds = []
    for _ in range(STEPS):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def ours(tokens, optimizer_of, dtype) -> float:
    model = fresh(**SHAPE, rope_theta=1e4, tied=True, init="normal", seed=0).train()
    optimizer, objective = optimizer_of(model), Objective(model, cross_entropy)
    batch = Batch(tokens, torch.ones(tokens.shape))

    def step():
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = objective(batch)
        (loss.total / loss.weight).backward()
        optimizer.step(1.0)
        model.zero_grad()

    return timed(step)


def theirs(tokens, dtype) -> float:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=SHAPE["vocab_size"], hidden_size=SHAPE["d_model"], intermediate_size=SHAPE["d_ff"],
        num_hidden_layers=SHAPE["n_layers"], num_attention_heads=SHAPE["n_heads"], tie_word_embeddings=True, use_cache=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def step():
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return timed(step)


def matmul_rate(dtype, n: int = 1024) -> float:
    """FLOP a second of a square product."""
    a = torch.ones(n, n, dtype=dtype)
    return 2 * n**3 / timed(lambda: a @ a)


def main() -> None:
    torch.set_num_threads(cpu_threads())
    dtype = pick_dtype("auto", pick_device("cpu"))
    tokens = torch.randint(SHAPE["vocab_size"], (ROWS, SHAPE["context"]), generator=torch.Generator().manual_seed(0))
    peer = theirs(tokens, dtype)
    parameters = sum(p.numel() for p in fresh(**SHAPE, rope_theta=1e4, tied=True, init="normal", seed=0).parameters())
    limit = matmul_rate(dtype)
    print(f"{dtype}, {cpu_threads()} threads, {parameters:,} parameters, limit {limit / 1e9:,.0f} GFLOP/s")
    print(f"transformers + AdamW  {tokens.numel() / peer:10,.0f} tokens/s")
    for name, make in (("AdamW", lambda m: AdamW(m, lr=1e-3)), ("Muon", lambda m: Muon(m, lr=0.01, adam_lr=1e-3, dtype=dtype))):
        seconds = ours(tokens, make, dtype)
        share = 6 * parameters * tokens.numel() / seconds / limit
        rate = tokens.numel() / seconds
        print(f"chainrule + {name:<8}  {rate:10,.0f} tokens/s  {peer / seconds:5.2f} x  {share:6.1%} of the limit")


if __name__ == "__main__":
    main()
