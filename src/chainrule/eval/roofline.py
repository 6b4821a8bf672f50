"""Time on paper: no device is faster than its arithmetic, nor than its memory.

    time of a brick ≥ max(FLOPs / rate, bytes / bandwidth)          Williams et al. 2009, the roofline

The sum over all bricks is a bound from below; well-tuned programs need about twice that, others more. Devices that share
matrices wait for each other after every attention and every mlp, so what they send comes on top. A training step goes over a
brick as often as its product's FLOPs are counted (``flops.passes``), over what adds up gradients once, and over the blocks once
more where activations are computed again. A step of several micro-batches does all this for each, and updates once.
"""

from collections import Counter
from dataclasses import dataclass, replace

from chainrule.eval.activations import WIDTHS
from chainrule.eval.anatomy import Anatomy
from chainrule.eval.bricks import (
    UPDATES,
    Brick,
    Pass,
    Product,
    Scores,
    adapter_bricks,
    bricks,
    inner_bricks,
    learning_bricks,
    update_bricks,
)
from chainrule.eval.devices import Device
from chainrule.eval.flops import passes
from chainrule.eval.memory import BYTES, STATES, Setting, adapter_parameters, width_of
from chainrule.eval.parallel import sent_bytes, sent_forward

PRODUCTS = {"fp32": "fp32", "mixed": "bf16", "bf16": "bf16", "fp16": "fp16"}
"""The format of matrix products by precision of training."""


@dataclass(frozen=True)
class Times:
    """Seconds of one training step, by what it is spent on; links are taken to work while the device computes."""

    compute: float
    update: float
    link: float

    @property
    def step(self) -> float:
        """Of the whole step."""
        return max(self.compute, self.link) + self.update


def training_time(anatomy: Anatomy, setting: Setting, device: Device) -> Times:
    """The least seconds of a training step on one device of the setting's."""
    format, width, total = PRODUCTS[setting.precision], WIDTHS[setting.precision].product, 0.0
    for laid, frozen in _trained(anatomy, setting):
        for brick, n in laid.items():
            once = isinstance(brick, Pass) and brick.kind in UPDATES
            ways = 1 if once else passes(setting, frozen=frozen and isinstance(brick, Product))
            total += n * ways * brick_time(brick, device, format, width, width)
    if setting.checkpointing:
        total += sum(n * brick_time(brick, device, format, width, width) for brick, n in _again(anatomy, setting).items())
    compute = setting.micro_batches * total / setting.tensor
    return Times(compute, _update_time(anatomy, setting, device), sum(sent_bytes(anatomy, setting).values()) / device.link)


def _trained(anatomy: Anatomy, setting: Setting) -> list[tuple[Counter[Brick], bool]]:
    """What a training step goes forward and back over, and whether its matrices are the model's own."""
    read = bricks(anatomy, setting.rows, setting.length, setting.length)
    if setting.adapters is None:
        return [(read + learning_bricks(anatomy, setting.tokens), True)]
    beside = adapter_bricks(anatomy, setting.adapters, setting.tokens)
    return [(read + learning_bricks(anatomy, setting.tokens, frozen=True), True), (beside, False)]


def _again(anatomy: Anatomy, setting: Setting) -> Counter[Brick]:
    """What is computed again where activations are not kept."""
    inner = inner_bricks(anatomy, setting.rows, setting.length, setting.length)
    return inner if setting.adapters is None else inner + adapter_bricks(anatomy, setting.adapters, setting.tokens)


def prefill_time(anatomy: Anatomy, setting: Setting, device: Device, format: str) -> float:
    """The least seconds in which the rows are read, up to the scores after their last tokens."""
    laid = bricks(anatomy, setting.rows, setting.length, setting.length, words=setting.rows)
    sent = sent_forward(anatomy, setting.tokens, setting.tensor, width_of(format))
    return _inference(laid, setting.tensor, device, format) + sent / device.link


def decode_time(anatomy: Anatomy, setting: Setting, device: Device, format: str) -> float:
    """The least seconds in which each of the rows, grown to its length, gets one more token."""
    laid = bricks(anatomy, setting.rows, 1, setting.length)
    sent = sent_forward(anatomy, setting.rows, setting.tensor, width_of(format))
    return _inference(laid, setting.tensor, device, format) + sent / device.link


def brick_time(brick: Brick, device: Device, format: str, weights: float, others: float) -> float:
    """max(arithmetic, traffic), with so many bytes a weight and a number of anything else."""
    arithmetic = brick.flops / device.rate(format) if brick.flops else 0.0
    return max(arithmetic, (brick.weights * weights + brick.moved * others) / device.bandwidth)


def _inference(laid: Counter[Brick], tensor: int, device: Device, format: str) -> float:
    """Seconds of bricks that ``tensor`` devices share: scores by heads, all others evenly."""
    product, width, total = "fp32" if format == "fp32" else "bf16", width_of(format), 0.0
    for brick, n in laid.items():
        packs = isinstance(brick, Product) and brick.packs
        weights = BYTES[format] if packs else max(BYTES[format], 2.0)
        if isinstance(brick, Scores):
            total += n * brick_time(replace(brick, shape=brick.shape.on(tensor)), device, product, weights, width)
        else:
            total += n * brick_time(brick, device, product, weights, width) / tensor
    return total


def _update_time(anatomy: Anatomy, setting: Setting, device: Device) -> float:
    """Weights and states read and written, gradients read; Muon's products besides. ZeRO shares the work out."""
    share = setting.tensor * (setting.ranks if setting.zero else 1)
    if setting.method != "full":
        numbers = 3 + 2 * STATES[setting.optimizer]  # weight and gradient read, weight written; states read and written
        return adapter_parameters(anatomy, setting) * 4.0 * numbers / device.bandwidth / share
    width, format = BYTES[setting.stored], PRODUCTS[setting.precision]
    laid = update_bricks(anatomy, setting.optimizer)
    return sum(n * brick_time(brick, device, format, width, width) for brick, n in laid.items()) / share
