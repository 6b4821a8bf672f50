"""Bytes that devices send each other, in one training step or in reading tokens.

A ring sends (n − 1)/n of the whole to scatter or to gather it, twice that to reduce it everywhere (Patarasuk & Yuan 2009). A
step sums the gradients of m micro-batches: whole ones are sent once, those that ranks share out after each.

    data parallel, ZeRO-1    2 · G · (n − 1)/n                      gradients summed (ZeRO-1: scattered, new weights gathered)
    ZeRO-2                   (m + 1) · G · (n − 1)/n                gradients scattered, new weights gathered
    ZeRO-3, FSDP             m · (2 · W + G) · (n − 1)/n            weights gathered forward and backward, gradients scattered
    tensor parallel          m · 2 · 2 · (p − 1)/p · tokens · d     a layer forward: what attention and mlp say is summed
                                                                    as much backward, and where activations are computed again

Rajbhandari et al. 2019, arXiv:1910.02054; Shoeybi et al. 2019 (Megatron-LM), arXiv:1909.08053; Korthikanti et al. 2022,
arXiv:2205.05198. ZeRO-3 gathers weights twice even where blocks are computed again: a block's are there by then.
"""

from chainrule.eval.activations import WIDTHS
from chainrule.eval.anatomy import Anatomy, Parts
from chainrule.eval.memory import BYTES, Setting, adapter_parameters, shard, weight_bytes


def sent_bytes(anatomy: Anatomy, setting: Setting) -> dict[str, float]:
    """What one device sends in a step, by kind of parallelism; empty on one device."""
    sent = sent_between_ranks(anatomy, setting)
    if setting.tensor > 1:
        ways = setting.micro_batches * (3 if setting.checkpointing else 2)
        sent["tensor"] = ways * sent_forward(anatomy, setting.tokens, setting.tensor, WIDTHS[setting.precision].product)
    return sent


def sent_between_ranks(parts: Parts, setting: Setting) -> dict[str, float]:
    """The part of ``sent_bytes`` that depends on no block."""
    share = (setting.ranks - 1) / setting.ranks
    return {"data": _data(parts, setting) * share} if setting.ranks > 1 else {}


def sent_forward(anatomy: Anatomy, tokens: int, tensor: int, width: float) -> float:
    """What one of ``tensor`` devices sends while they read so many tokens together, ``width`` bytes a number."""
    return 4 * len(anatomy.blocks) * tokens * anatomy.d_model * width * (tensor - 1) / tensor


def _data(parts: Parts, setting: Setting) -> float:
    if setting.method == "full":
        gradients = BYTES[setting.stored] * shard(parts, setting.tensor)
    else:
        gradients = 4.0 * adapter_parameters(parts, setting) / setting.tensor
    if setting.zero == 3:
        return setting.micro_batches * (2 * weight_bytes(parts, setting) + gradients)
    return gradients * (setting.micro_batches + 1 if setting.zero == 2 else 2)
