"""Bytes that devices send each other in one training step.

A ring sends (n − 1)/n of the whole to scatter or to gather it, twice that to reduce it everywhere (Patarasuk & Yuan 2009).

    data parallel, ZeRO-1, ZeRO-2    2 · G · (n − 1)/n      gradients summed (ZeRO: scattered, and new weights gathered)
    ZeRO-3, FSDP                     (2 · W + G) · (n − 1)/n    weights gathered forward and backward, gradients scattered
    tensor parallel                  4 · 2 · (p − 1)/p · tokens · d   a layer: attention and mlp, forward and backward

Rajbhandari et al. 2019, arXiv:1910.02054; Shoeybi et al. 2019 (Megatron-LM), arXiv:1909.08053.
"""

from chainrule.eval.activations import WIDTHS
from chainrule.eval.anatomy import Anatomy
from chainrule.eval.memory import BYTES, STORED, Setting, adapter_parameters, shard


def sent_bytes(anatomy: Anatomy, setting: Setting) -> dict[str, float]:
    """What one device sends in a step, by kind of parallelism; empty on one device."""
    sent: dict[str, float] = {}
    if setting.ranks > 1:
        sent["data"] = _data(anatomy, setting) * (setting.ranks - 1) / setting.ranks
    if setting.tensor > 1:
        state = setting.tokens * anatomy.d_model * WIDTHS[setting.precision].product
        sent["tensor"] = 8 * len(anatomy.blocks) * state * (setting.tensor - 1) / setting.tensor
    return sent


def _data(anatomy: Anatomy, setting: Setting) -> float:
    width = BYTES[STORED[setting.precision]] if setting.method == "full" else 4.0
    weights = shard(anatomy, setting.tensor)
    learned = weights if setting.method == "full" else adapter_parameters(anatomy, setting)
    gathered = {"full": weights * width, "lora": weights * 2.0, "qlora": weights * BYTES["int4"]}[setting.method]
    return 2 * gathered + learned * width if setting.zero == 3 else 2 * learned * width
