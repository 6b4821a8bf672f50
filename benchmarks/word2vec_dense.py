"""What a word2vec step in place saves over a dense one: milliseconds of each, the same blocks, losses and tables, one thread.

    python benchmarks/word2vec_dense.py [WORDS]

The dense step is that of the one loop: backward through the loss, the norm of all gradients, an optimizer over whole tables.
"""

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from chainrule.models.word2vec import cbow, cbow_loss, skip_gram, skip_gram_loss
from chainrule.models.word2vec_places import Epoch, Places

WIDTH, STEPS = 100, 10
Tables = Sequence[Tensor]
METHODS = {"skip-gram": (skip_gram, skip_gram_loss), "CBOW": (cbow, cbow_loss)}


def milliseconds(step: Callable[[int], None]) -> float:
    """The mean of some steps, after one that does not count."""
    step(0)
    began = time.perf_counter()
    for i in range(STEPS):
        step(i)
    return (time.perf_counter() - began) / STEPS * 1e3


def dense(tables: Tables, optimizer: Optimizer, loss: Callable[..., Tensor], epoch: Epoch, i: int) -> None:
    """A step on the i-th blocks as the one loop takes it."""
    optimizer.zero_grad()
    loss(*tables, epoch[i]).backward()
    torch.nn.utils.clip_grad_norm_(tables, 1.0)
    optimizer.step()


@torch.inference_mode()
def in_place(tables: Tables, step: Callable[..., None], epoch: Epoch, i: int) -> None:
    """A step on the i-th blocks as word2vec takes it."""
    step(*tables, epoch[i], 0.025)


def main(words: int) -> None:
    torch.set_num_threads(1)
    text = np.minimum(np.random.default_rng(0).zipf(1.1, 200_000) - 1, words - 1)
    epoch = Places.of([text], words).epoch((1, 0), window=5, negatives=5, sample=1e-3)
    tables = [torch.nn.Parameter(torch.randn(words, WIDTH, generator=torch.Generator().manual_seed(i)) / 100) for i in (0, 1)]
    optimizers = {"SGD": torch.optim.SGD(tables, lr=1e-3), "AdamW": torch.optim.AdamW(tables, lr=1e-3)}
    for name, (step, loss) in METHODS.items():
        plain = [table.detach().clone() for table in tables]
        print(f"{name}, in place: {milliseconds(partial(in_place, plain, step, epoch)):.1f} ms")
        for called, optimizer in optimizers.items():
            print(f"{name}, dense with {called}: {milliseconds(partial(dense, tables, optimizer, loss, epoch)):.1f} ms")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
