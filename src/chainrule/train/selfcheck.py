"""What must hold on any machine before a training is worth starting: a loss of ln V at step 0, one batch learned by heart."""

import torch

from chainrule.core.datum import Batch
from chainrule.hub.fresh import fresh
from chainrule.logprobs.losses import cross_entropy
from chainrule.train.objective import Objective
from chainrule.train.optim import Muon

VOCAB = 100


def overfit(steps: int = 60, *, device: torch.device | str = "cpu") -> tuple[float, float, int]:
    """(loss before, loss after, vocabulary size) of training a small fresh model on a single batch, on that device."""
    model = fresh(
        vocab_size=VOCAB, context=32, n_layers=2, d_model=64, n_heads=2, n_kv_heads=2, d_ff=128, rope_theta=10000.0,
        tied=True, init="normal", seed=0,
    ).to(device)  # fmt: skip
    tokens = torch.randint(VOCAB, (4, 32), generator=torch.Generator().manual_seed(0)).to(device)
    objective = Objective(model, cross_entropy)
    optimizer = Muon(model, lr=0.02, adam_lr=0.01)
    losses: list[float] = []
    for _ in range(steps):
        loss = objective(Batch(tokens, torch.ones(4, 32, device=device)))
        (loss.total / loss.weight).backward()
        optimizer.step(1.0)
        model.zero_grad()
        losses.append(float(loss.total.detach() / loss.weight))
    return losses[0], losses[-1], VOCAB
