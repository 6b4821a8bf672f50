"""Time on paper: no device is faster than its arithmetic, nor than its memory.

    time of a brick ≥ max(FLOPs / rate, bytes / bandwidth)          Williams et al. 2009, the roofline

The sum over all bricks is a bound from below; well-tuned programs need about twice that, others more. Devices that share
matrices wait for each other after every attention and every mlp, so what they send comes on top.
"""

from collections import Counter
from dataclasses import dataclass, replace

from chainrule.eval.activations import WIDTHS
from chainrule.eval.anatomy import Anatomy
from chainrule.eval.bricks import Brick, Product, Scores, bricks, learning_bricks, update_bricks
from chainrule.eval.devices import Device
from chainrule.eval.memory import BYTES, STORED, Setting, adapter_parameters, width_of
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
    format, widths = PRODUCTS[setting.precision], WIDTHS[setting.precision]
    laid = bricks(anatomy, setting.rows, setting.length, setting.length) + learning_bricks(anatomy, setting.tokens)
    forward = sum(n * brick_time(brick, device, format, widths.product, widths.product) for brick, n in laid.items())
    way = 3.0 if setting.method == "full" else 2.0  # frozen weights have no gradient
    compute = forward * (way + setting.checkpointing) / setting.tensor
    return Times(compute, _update_time(anatomy, setting, device), sum(sent_bytes(anatomy, setting).values()) / device.link)


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
        return adapter_parameters(anatomy, setting) * 4.0 * 7 / device.bandwidth / share
    width, format = BYTES[STORED[setting.precision]], PRODUCTS[setting.precision]
    laid = update_bricks(anatomy, setting.optimizer)
    return sum(n * brick_time(brick, device, format, width, width) for brick, n in laid.items()) / share
