"""Optimizers: AdamW, and Muon for the matrices inside a model with AdamW for the rest.

    AdamW   m ← β₁m + (1−β₁)g;  v ← β₂v + (1−β₂)g²;  w ← (1 − lr·λ)w − lr·m̂ / (√v̂ + ε)     arXiv:1711.05101
    Muon    m ← μm + (1−μ)g;  u = orthogonal((1−μ)g + μm);  w ← (1 − lr·λ)w − lr·√max(1, rows/cols)·u

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) replaces a matrix's update by the nearest orthogonal one, found by
five Newton–Schulz steps, so that no direction is starved. Matrices of one shape are orthogonalised together. Embeddings,
heads, norms and biases take AdamW.

    Averaged    w̄ = the mean of w after each of the last steps        (Polyak & Juditsky 1992; arXiv:1803.05407)

What happens once in a thousand tokens is seen a few times while the rate is small, and the last weights remember those few
by chance. The mean of many steps does not.
"""

from collections import defaultdict
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from chainrule.core.errors import ConfigError
from chainrule.core.masked import Model
from chainrule.core.shapes import Float, Tensor

Named = dict[str, nn.Parameter]
"""Parameters by their names in the model."""
HEAD = "lm_head.weight"
"""What the name of a head that is no embedding table ends in."""
A, B, C = 3.4445, -4.7750, 2.0315
"""The quintic whose iteration drives singular values towards one (Jordan 2024)."""


@runtime_checkable
class Optimizer(Protocol):
    """What the loop asks of an optimizer."""

    def step(self, scale: float) -> None:
        """Change the weights, every learning rate multiplied by ``scale``."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that must be remembered between steps."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Remember again what ``state_dict`` said."""
        ...

    def skip(self) -> None:
        """What is to be done where a step was not finite and left the weights alone."""

    def finish(self) -> None:
        """What is to be done after the last step."""


def orthogonal(g: Float[Tensor, "n r c"], dtype: torch.dtype = torch.float32) -> Float[Tensor, "n r c"]:
    """The nearest orthogonal matrix to each g, nearly: U Vᵀ of its U S Vᵀ, by five Newton–Schulz steps in ``dtype``."""
    wide = g.float().mT if g.shape[1] > g.shape[2] else g.float()
    wide = (wide / wide.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)).to(dtype)  # fp16 would lose what is small before it
    for _ in range(5):
        gram = wide @ wide.mT
        wide = A * wide + (B * gram + C * gram @ gram) @ wide
    return (wide.mT if g.shape[1] > g.shape[2] else wide).to(g.dtype)


class AdamW(Optimizer):
    """AdamW over all parameters; weight decay on matrices alone."""

    def __init__(self, model: Model, *, lr: float, betas: tuple[float, float] = (0.9, 0.95), weight_decay: float = 0.0) -> None:
        self._adam = _adam(_learned(model), lr, betas, weight_decay)
        self._lr = lr

    def step(self, scale: float) -> None:
        _step(self._adam, self._lr * scale)

    def state_dict(self) -> dict[str, Any]:
        return {"adam": self._adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        _remember(self._adam, state["adam"])


class Muon(Optimizer):
    """Muon for the matrices between embedding and head, AdamW for everything else.

    ``dtype`` is the format of the orthogonalisation: bf16 is exact enough for it, and fast where the hardware knows it.
    """

    def __init__(
        self,
        model: Model,
        *,
        lr: float,
        adam_lr: float,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        matrices, rest = split_parameters(model)
        self._lr, self._adam_lr, self._momentum, self._decay, self._dtype = lr, adam_lr, momentum, weight_decay, dtype
        self._adam = _adam(rest, adam_lr, betas, 0.0)
        groups: dict[tuple[torch.Size, torch.dtype], list[nn.Parameter]] = defaultdict(list)
        for matrix in matrices.values():
            groups[matrix.shape, matrix.dtype].append(matrix)
        self._groups = list(groups.values())
        self._momenta = [torch.zeros_like(torch.stack([m.detach() for m in group])) for group in self._groups]

    @torch.no_grad()
    def step(self, scale: float) -> None:
        _step(self._adam, self._adam_lr * scale)
        lr = self._lr * scale
        for group, momentum in zip(self._groups, self._momenta, strict=True):
            gradient = torch.stack([matrix.grad for matrix in group if matrix.grad is not None])
            momentum.lerp_(gradient, 1 - self._momentum)
            towards = gradient.lerp_(momentum, self._momentum)
            rows, columns = group[0].shape[-2:]
            update = orthogonal(towards.view(-1, rows, columns), self._dtype).view_as(towards)
            update *= -lr * max(1, rows / columns) ** 0.5
            weights: list[Tensor] = list(group)
            torch._foreach_mul_(weights, 1 - lr * self._decay)
            torch._foreach_add_(weights, list(update.unbind()))

    def state_dict(self) -> dict[str, Any]:
        return {"adam": self._adam.state_dict(), "momenta": self._momenta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        _remember(self._adam, state["adam"])
        for momentum, saved in zip(self._momenta, state["momenta"], strict=True):
            momentum.copy_(saved)


class Averaged(Optimizer):
    """Another optimizer, whose weights are at last the mean of those after every step but the first ``skipped``."""

    def __init__(self, optimizer: Optimizer, model: Model, skipped: int) -> None:
        self._optimizer, self._skipped, self._steps = optimizer, skipped, 0
        self._weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._means = [torch.zeros_like(weight, dtype=torch.float32) for weight in self._weights]

    def step(self, scale: float) -> None:
        self._optimizer.step(scale)
        self._average()

    def skip(self) -> None:
        self._optimizer.skip()
        self._average()

    def _average(self) -> None:
        self._steps += 1
        n = self._steps - self._skipped
        if n > 0:
            torch._foreach_lerp_(self._means, [weight.detach().float() for weight in self._weights], 1 / n)

    @torch.no_grad()
    def finish(self) -> None:
        if self._steps > self._skipped:
            for weight, mean in zip(self._weights, self._means, strict=True):
                weight.copy_(mean)

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self._optimizer.state_dict(), "steps": self._steps, "means": self._means}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._optimizer.load_state_dict(state["optimizer"])
        self._steps = state["steps"]
        for mean, saved in zip(self._means, state["means"], strict=True):
            mean.copy_(saved)


def split_parameters(model: Model) -> tuple[Named, Named]:
    """(matrices inside the model and stacks of them, everything else): embeddings, heads and experts' biases are not inside."""
    outside = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    if model.readout_weight is not None:
        outside.add(id(model.readout_weight))
    inside: Named = {}
    rest: Named = {}
    for name, parameter in _learned(model).items():
        # a head of scores that are capped, scaled or shifted is no plain readout, so it is known by its name
        matrix = is_matrix(name, parameter) and parameter.ndim <= 3 and not name.endswith(HEAD)
        (inside if matrix and id(parameter) not in outside else rest)[name] = parameter
    return inside, rest


def is_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter multiplies: biases do not, though those of experts are stacked to as many dimensions."""
    return parameter.ndim >= 2 and not name.endswith("bias")


def _learned(model: Model) -> Named:
    """The parameters that are learned; raises ``ConfigError`` for a model that has none, such as a table of counts."""
    learned = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not learned:
        raise ConfigError(f"a {type(model).__name__} has no weights to learn by steps; start from a model that has some")
    return learned


def _adam(parameters: Named, lr: float, betas: tuple[float, float], decay: float) -> torch.optim.AdamW:
    matrices = [parameter for name, parameter in parameters.items() if is_matrix(name, parameter)]
    vectors = [parameter for name, parameter in parameters.items() if not is_matrix(name, parameter)]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, betas=betas, eps=1e-8, fused=True)


def _remember(adam: torch.optim.AdamW, saved: dict[str, Any]) -> None:
    """What was learned between steps; betas and weight decay stay this run's own, which a forced resume may have changed."""
    own = [{key: group[key] for key in ("betas", "weight_decay")} for group in adam.param_groups]
    adam.load_state_dict(saved)
    for group, settings in zip(adam.param_groups, own, strict=True):
        group.update(settings)


def _step(adam: torch.optim.AdamW, lr: float) -> None:
    for group in adam.param_groups:
        group["lr"] = lr
    adam.step()
