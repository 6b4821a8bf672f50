"""How many sources a model translates exactly: greedy targets, letter for letter, and the log-probability of the right ones.

Exactness is asked where one target alone is right, as in the world's pairs. Elsewhere the share is a lower bound, and nats per
target tell models apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from chainrule.core.errors import DataError
from chainrule.data.pairs import Pair
from chainrule.generate.engine import Engine, run
from chainrule.hub.lm import LM

ROWS = 64


@dataclass(frozen=True)
class Exactness:
    """How many of so many sources were translated exactly, and the mean −log p of a right target, in nats.

    ``cut`` many were not at their end after ``max_tokens``, as many as the longest right target has with its end, or where the
    model reads no more.
    """

    right: int
    asked: int
    nats: float
    cut: int
    max_tokens: int


def world_pairs(n: int, *, seed: int = 0, people: int = 2, events: int = 3) -> dict[str, list[Pair]]:
    """``n`` held-out pairs of the world in each direction."""
    from chainrule.world.translations import translations

    drawn = list(islice(translations(seed, split="heldout", people=people, events=events), n))
    return {"en-zh": [one.pairs[0] for one in drawn], "zh-en": [one.pairs[1] for one in drawn]}


def translate(lm: LM, sources: Sequence[str], *, max_tokens: int) -> list[tuple[str, bool]]:
    """The greedy target of each source, and whether it came to its end within ``max_tokens`` and what the model reads.

    Many go at once through the engine; rows of like length run together.
    """
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    requests = [lm.asked(sources[i], temperature=0.0, max_tokens=max_tokens) for i in order]
    events = run(Engine(lm.model, lm.tokenizer, rows=ROWS), requests)
    targets = {i: ("".join(e.text for e in each), each[-1].done == "stop") for i, each in zip(order, events, strict=True)}
    return [targets[i] for i in range(len(sources))]


def exactness(lm: LM, pairs: Sequence[Pair]) -> Exactness:
    """How well a model translates these pairs; raises ``DataError`` where there are none."""
    if not pairs:
        raise DataError("there are no pairs to measure on; give at least one")
    longest = 1 + max(map(len, lm.need_tokenizer().encode_many([target for _, target in pairs])))
    found = translate(lm, [source for source, _ in pairs], max_tokens=longest)
    right = sum(text == target for (text, _), (_, target) in zip(found, pairs, strict=True))
    nats = -sum(lm.score(target, given=source, end=True, force=True).total for source, target in pairs) / len(pairs)
    cut = sum(not ended for _, ended in found)
    return Exactness(right, len(pairs), nats, cut, longest)
