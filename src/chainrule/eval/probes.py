"""Two questions to which the world has exact answers: which order of words is likelier, and what comes next?"""

import math
from collections.abc import Mapping, Sequence

from chainrule.eval.results import Family, NextPhrase, NextProbe, Odds, OrderProbe
from chainrule.hub.lm import LM

PLAIN, FRONTED = "今天我来到了仙II-212。", "今天仙II-212我来到了。"
PROMPTS = (("今天我来到了", "zh"), ("今天的天气", "zh"))
SEARCHED = 12


def order_odds(name: str, family: Family, lm: LM) -> Odds:
    """log p that a text begins with the lecture's sentence, in each of its two orders, under one model."""
    plain, fronted = (_finite(lm.logp_begins(text)) for text in (PLAIN, FRONTED))
    return Odds(name=name, family=family, plain=plain, fronted=fronted)


def order_probe(odds: Sequence[Odds], expected: float) -> OrderProbe:
    """The odds of several models, against the true ones in nats."""
    return OrderProbe(plain=PLAIN, fronted=FRONTED, expected=expected, odds=tuple(odds))


def next_probes(truth: LM, lm: LM, prompts: Sequence[tuple[str, str]] = PROMPTS, k: int = 5) -> tuple[NextProbe, ...]:
    """The true top ``k`` continuations of each prompt, with the model's probabilities of the same."""
    probes: list[NextProbe] = []
    for prompt, language in prompts:
        true, found = truth.next(prompt, k), lm.next(prompt, SEARCHED)
        theirs: Mapping[str, float] = dict(found)
        phrases = tuple(NextPhrase(text=text, truth=p, model=theirs.get(text, 0.0)) for text, p in true)
        top = tuple(text for text, _ in found[:k])
        probes.append(NextProbe(prompt=prompt, language=language, phrases=phrases, top=top))
    return tuple(probes)


def _finite(logp: float) -> float | None:
    return logp if math.isfinite(logp) else None
