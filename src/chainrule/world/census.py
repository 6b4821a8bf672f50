"""How far back the questions of a story reach: tokens between a question and the last sentence that says its answer.

A token is a word, a digit or a punctuation mark; Chinese is cut by the world's own lexicon. What somebody has when they enter
counts as said with their last words, so that a distance is never made longer than it is.
"""

import re

from chainrule.world.story import State, story
from chainrule.world.texts import FIRST, TONGUES, Document
from chainrule.world.tongue import Tongue
from chainrule.world.words import cut_words

_PIECE = re.compile(r"[A-Za-z]+|\d|[一-鿿]+|[^\sA-Za-z\d一-鿿]")
_ASKED = {"where": "place", "job": "job", "many": "count"}


def count_tokens(text: str) -> int:
    """The tokens of a text.

    >>> count_tokens("Tom has 12 hats."), count_tokens("小明去了公园。")
    (6, 4)
    """
    return sum(len(_PIECE.findall(piece)) for piece in cut_words(text))


def distances(document: Document) -> list[int]:
    """For each question of a story, in order, how many tokens back its answer was last said."""
    t, state = TONGUES[document.language], State()
    _, _, lead = FIRST.outcomes[FIRST.phrases.index(document.phrases[0])]
    grammar = story(t, state, lead)
    choice = next(grammar)
    at = count_tokens(document.phrases[0])
    said: dict[tuple[str, int, int], int] = {}
    found: list[int] = []
    for phrase in document.phrases[1:]:
        outcome = choice.outcomes[choice.phrases.index(phrase)]
        at += count_tokens(phrase)
        if isinstance(outcome, tuple) and outcome and outcome[0] in _ASKED:
            kind, who, thing = outcome
            found.append(at - said[_ASKED[kind], who, thing if kind == "many" else -1])
        before = _facts(state)
        try:
            choice = grammar.send(outcome)
        except StopIteration:
            break
        after = _facts(state)
        told = {key for key in after if any(one in phrase for one in _sentences(t, key, after[key]))}
        said |= {key: at for key in after if after[key] != before.get(key) or key in told}
    return found


def _facts(state: State) -> dict[tuple[str, int, int], int]:
    """All that is so, by (what, who, thing)."""
    facts = {("place", who, -1): place for who, place in state.place.items()}
    facts |= {("job", who, -1): job for who, job in state.job.items()}
    return facts | {("count", who, thing): n for who, have in state.have.items() for thing, n in have.items()}


def _sentences(t: Tongue, key: tuple[str, int, int], value: int) -> tuple[str, ...]:
    """The sentences that say a fact outright."""
    kind, who, thing = key
    name = t.names[who]
    if kind == "place":
        return tuple(way.format(name=name, place=t.places[value]) for way in t.is_at)
    if kind == "job":
        return tuple(way.format(name=name, job=t.jobs[value]) for way in t.has_job)
    return tuple(way.format(name=name, things=t.things(value, thing)) for way in (*t.holds, *t.now))
