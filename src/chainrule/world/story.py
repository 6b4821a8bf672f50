"""Stories: people enter, move, get and lose things; questions are asked and answered from what is so.

Every draw is spoken when it is made, so nothing in a story is hidden: who is where, who has how many of what and who does
which work follows from the words alone. Later sentences draw from the people and things the story already has: cheap for
a model that can look back, expensive for one that cannot.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

from chainrule.world.choice import Choice
from chainrule.world.drivers import Grammar
from chainrule.world.sums import SIGNED, result
from chainrule.world.tongue import Tongue

MOST = 9
"""Nobody has more of one thing: numbers stay single digits."""
TAKEN = 2
"""So many of a thing come or go at once, at most."""
CROWD = 4
"""No story has more people."""
PLACE_ODDS = (30.0, 20.0, 14.0, 9.0, 6.0, *(21 / 11,) * 11)
"""How likely the lecture's places are, in percent: the first five stand well apart."""
WEATHER_ODDS = (34.0, 24.0, 16.0, 10.0, 7.0, 4.0, 3.0, 2.0)
FRONTED = 1 / 20
"""How likely the fronted order of words is against the usual one, for every place."""
CAME, WEATHER, COURSE = 0.55, 0.35, 0.10
USUAL = 0.8
"""How likely the lecture's own wording of the weather and of the course is; the other one has the rest."""
PLAIN = 6.0
"""How much likelier no manner is than any one manner."""
TODAY = 0.8
"""How likely a story begins with a sentence of today."""
AGAIN = 0.6
"""After a sentence of today, how likely another one is."""
ODDS = {"act": 0.52, "scene": 0.20, "arrive": 0.08, "ask": 0.17, "end": 0.03}
"""What the next sentence is, until questions are asked or the story ends."""
QUESTIONS = {"where": 0.42, "many": 0.42, "job": 0.16}
"""What is asked: each thing once, as long as something is left to ask."""
ENOUGH = 0.28
"""After a question, how likely it was the last one."""
ACTS = {"moves": 0.30, "gets": 0.26, "loses": 0.20, "gives": 0.06, "becomes": 0.05, "likes": 0.08, "counts": 0.05}
"""What somebody does."""
LONGEST = 10
"""After so many sentences beyond the first two people, questions are asked."""
RESTATED = 0.9
"""After a count has changed, how likely it is said at once."""
KEPT = 0.9
"""Who gets something gets more of what they know with this probability."""


@dataclass
class State:
    """What is so: for each of the cast a place, a job, and how many of what; and whose counts of what have changed."""

    cast: list[int] = field(default_factory=list)
    place: dict[int, int] = field(default_factory=dict)
    job: dict[int, int] = field(default_factory=dict)
    have: dict[int, dict[int, int]] = field(default_factory=dict)
    changed: list[tuple[int, int]] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)

    def owned(self, who: int) -> tuple[tuple[int, int], ...]:
        """The (thing, count) pairs of somebody, in the order they came."""
        return tuple(self.have[who].items())


def story(t: Tongue, state: State, lead: tuple[str, int]) -> Grammar:
    """A whole story, after its first phrase ``lead`` (see ``leads``) has been drawn."""
    while lead[0] == "today":
        yield from today(t)
        lead = yield leads(t, again=True)
    if lead[0] == "opening":
        yield arrivals(t)
    yield from arrive(t, state)
    yield arrivals(t)
    yield from arrive(t, state)
    yield from events(t, state)


@cache
def leads(t: Tongue, again: bool = False) -> Choice:
    """How a story begins: with today, with an opening, or with the first person; ``again`` after a today."""
    today = AGAIN if again else TODAY
    rest = [(phrase, 1.0, ("opening", i)) for i, phrase in enumerate(t.openings)]
    rest += [(phrase, 1.0, ("arrival", i)) for i, phrase in enumerate(t.arrivals)]
    return Choice([(t.today, today, ("today", 0)), *((p, (1 - today) / len(rest), o) for p, _, o in rest)])


def today(t: Tongue) -> Grammar:
    """One of the lecture's sentences, after its first word."""
    yield today_rest(t)


@cache
def today_rest(t: Tongue) -> Choice:
    """What may follow 今天: coming to a place, in the usual order or the fronted one, the weather, the course."""
    places, weathers = sum(PLACE_ODDS) * (1 + FRONTED), sum(WEATHER_ODDS)
    odds = list(zip(t.places, PLACE_ODDS, strict=True))
    options = [(t.came.format(place=place), CAME * p / places, None) for place, p in odds]
    options += [(t.fronted.format(place=place), CAME * p * FRONTED / places, None) for place, p in odds]
    skies = list(zip(t.weathers, WEATHER_ODDS, strict=True))
    for usual, weather_is, course in zip((USUAL, 1 - USUAL), t.weather, t.course, strict=True):
        options += [(weather_is.format(weather=weather), WEATHER * usual * p / weathers, None) for weather, p in skies]
        options.append((course, COURSE * usual, None))
    return Choice(options)


@cache
def arrivals(t: Tongue) -> Choice:
    """How somebody is announced."""
    return Choice.even(t.arrivals)


def arrive(t: Tongue, state: State) -> Grammar:
    """Somebody new: nature and name, then what they work as, where they are and what they have."""
    yield described(t)
    who = yield newcomers(t, tuple(state.cast))
    job = yield work(t, who)
    place = yield somewhere(t, who)
    count, thing = yield first_things(t, who)
    state.cast.append(who)
    state.job[who], state.place[who], state.have[who] = job, place, {thing: count}
    state.facts.append(f"{t.names[who]},{t.jobs[job]},{t.places[place]},{count},{t.one[thing]}")


@cache
def described(t: Tongue) -> Choice:
    """What somebody is like."""
    return Choice.even([t.described.format(nature=nature) for nature in t.natures])


@lru_cache(maxsize=4096)
def newcomers(t: Tongue, cast: tuple[int, ...]) -> Choice:
    """Names nobody in the story has yet."""
    left = [i for i in range(len(t.names)) if i not in cast]
    return Choice.even([t.called.format(name=t.names[i]) for i in left], left)


@cache
def work(t: Tongue, who: int) -> Choice:
    """What a newcomer works as."""
    return ways(t.has_job, [{"name": t.names[who], "job": job} for job in t.jobs])


@cache
def somewhere(t: Tongue, who: int) -> Choice:
    """Where a newcomer is."""
    return ways(t.is_at, [{"name": t.names[who], "place": place} for place in t.places])


@cache
def first_things(t: Tongue, who: int) -> Choice:
    """What a newcomer has: one to five of one thing."""
    pairs = [(count, thing) for count in range(1, 6) for thing in range(len(t.one))]
    return ways(t.holds, [{"name": t.names[who], "things": t.things(*pair)} for pair in pairs], pairs)


def ways(patterns: tuple[str, ...], words: Sequence[dict[str, str]], outcomes: Sequence[Any] | None = None) -> Choice:
    """The same said in several ways, each of the ``words`` in each of the ways, all equally likely."""
    meant = range(len(words)) if outcomes is None else outcomes
    return Choice((way.format(**one), 1.0, what) for way in patterns for one, what in zip(words, meant, strict=True))


def events(t: Tongue, state: State) -> Grammar:
    """Sentence after sentence; then questions, or the ending at once."""
    restate: tuple[str, ...] = ()
    kind = ""
    for _ in range(LONGEST):
        kind, who = yield sentences(t, tuple(state.cast), restate)
        restate = ()
        if kind in ("ask", "end"):
            break
        if kind == "arrive":
            yield from arrive(t, state)
        elif kind == "scene":
            yield from scene(t)
        elif kind == "act":
            restate = yield from act(t, state, who)
    else:
        yield certain(t.ask)
    if kind != "end":
        yield from questions(t, state)


@lru_cache(maxsize=8192)
def sentences(t: Tongue, cast: tuple[int, ...], restate: tuple[str, ...]) -> Choice:
    """How the next sentence begins."""
    room = ODDS["arrive"] if len(cast) < CROWD else 0.0
    act = (ODDS["act"] + ODDS["arrive"] - room) / len(cast)
    options = [(t.subject.format(name=t.names[who]), act, ("act", who)) for who in cast]
    options += [(phrase, room / len(t.arrivals), ("arrive", -1)) for phrase in t.arrivals]
    options += [(phrase, ODDS["end"] / len(t.endings), ("end", -1)) for phrase in t.endings]
    options += [(phrase, ODDS["scene"] / len(t.scenes), ("scene", -1)) for phrase in t.scenes]
    options.append((t.ask, ODDS["ask"], ("ask", -1)))
    if restate:
        options = [(phrase, p * (1 - RESTATED), outcome) for phrase, p, outcome in options]
        options += [(phrase, RESTATED / len(restate), ("restate", -1)) for phrase in restate]
    return Choice(options)


def questions(t: Tongue, state: State) -> Grammar:
    """Questions with their true answers, none twice, and the ending."""
    left = [(kind, who, -1) for who in state.cast for kind in ("where", "job")]
    left += [("many", who, thing) for who in state.cast for thing in state.have[who]]
    first = True
    while left:
        one = yield asking(t, tuple(left), first)
        if one is None:
            return
        yield certain(answer(t, state, *one))
        left.remove(one)
        first = False
    yield endings(t)


@lru_cache(maxsize=16384)
def asking(t: Tongue, left: tuple[tuple[str, int, int], ...], first: bool) -> Choice:
    """One of the questions left, drawn whole, or (after the first) an ending."""
    kinds = [kind for kind, _, _ in left]
    odds = [QUESTIONS[kind] / kinds.count(kind) for kind in kinds]
    go_on = (1.0 if first else 1 - ENOUGH) / sum(odds)
    options: list[tuple[str, float, tuple[str, int, int] | None]] = [
        (way, go_on * p / len(wordings(t, *one)), one) for one, p in zip(left, odds, strict=True) for way in wordings(t, *one)
    ]
    return Choice(options if first else [*options, *((ending, ENOUGH / len(t.endings), None) for ending in t.endings)])


@cache
def wordings(t: Tongue, kind: str, who: int, thing: int) -> tuple[str, ...]:
    """A question in each of the ways in which it is asked."""
    if kind == "many":
        return tuple(way.format(name=t.names[who], things=t.many[thing]) for way in t.how_many)
    return tuple(way.format(name=t.names[who]) for way in (t.where if kind == "where" else t.what_job))


@cache
def endings(t: Tongue) -> Choice:
    """How a story ends."""
    return Choice.even(t.endings)


def scene(t: Tongue) -> Grammar:
    """What an animal does meanwhile: every word a draw of its own, none of them remembered."""
    for phrases in (t.sizes, t.colours, t.animals, tuple(t.near.format(place=place) for place in t.places), t.how, t.cries):
        yield any_of(phrases)


@lru_cache(maxsize=64)
def any_of(phrases: tuple[str, ...]) -> Choice:
    """One of these phrases, all equally likely."""
    return Choice.even(phrases)


@lru_cache(maxsize=8192)
def certain(phrase: str) -> Choice:
    """Words that are certain."""
    return Choice([(phrase, 1.0, None)])


def answer(t: Tongue, state: State, kind: str, who: int, thing: int) -> str:
    """The true answer to a question, as a sentence in its plain wording."""
    name = t.names[who]
    if kind == "where":
        return t.is_at[0].format(name=name, place=t.places[state.place[who]])
    if kind == "job":
        return t.has_job[0].format(name=name, job=t.jobs[state.job[who]])
    return t.holds[0].format(name=name, things=t.things(state.have[who][thing], thing))


def act(t: Tongue, state: State, who: int) -> Grammar:
    """Somebody does something; returns the ways in which a changed count may be said again, or none."""
    others = tuple(other for other in state.cast if other != who)
    kind = yield acts(t, any(count for _, count in state.owned(who)))
    if kind == "moves":
        state.place[who] = yield destinations(t)
    elif kind == "becomes":
        state.job[who] = yield new_jobs(t)
    elif kind == "likes":
        yield people(t, others, t.whom)
    elif kind == "counts":
        a, sign, b = yield SIGNED[t.code]
        yield certain(result(t, a, sign, b))
    elif kind == "gets":
        count, thing = yield gains(t, state.owned(who))
        return change(t, state, who, thing, count)
    elif kind == "loses":
        count, thing = yield losses(t, state.owned(who))
        return change(t, state, who, thing, -count)
    else:
        other = yield people(t, others, t.to_whom)
        count, thing = yield losses(t, state.owned(who))
        taken, given = change(t, state, who, thing, -count), change(t, state, other, thing, count)
        return tuple(map("".join, zip(taken, given, strict=True)))
    return ()


def change(t: Tongue, state: State, who: int, thing: int, by: int) -> tuple[str, ...]:
    """Change a count, never beyond ``MOST``; the ways of saying what it is now."""
    before = state.have[who].get(thing, 0)
    count = min(MOST, before + by)
    state.have[who][thing] = count
    if count != before and (who, thing) not in state.changed:
        state.changed.append((who, thing))
    return tuple(way.format(name=t.names[who], things=t.things(count, thing)) for way in t.now)


@cache
def acts(t: Tongue, rich: bool) -> Choice:
    """A manner and a verb; only who has something can lose or give it."""
    options: list[tuple[str, float, str]] = []
    gap = "" if t.code == "zh" else " "
    for kind, odds in ACTS.items():
        if kind in ("loses", "gives") and not rich:
            continue
        verbs: tuple[str, ...] = getattr(t, kind)
        manners = t.manners if kind in ("moves", "gets", "loses", "gives") else ("",)
        weights = [PLAIN if not manner else 1.0 for manner in manners]
        for verb in verbs:
            for manner, weight in zip(manners, weights, strict=True):
                options.append((manner + verb + gap, odds * weight / sum(weights) / len(verbs), kind))
    return Choice(options)


@cache
def destinations(t: Tongue) -> Choice:
    """Where somebody goes."""
    return Choice.even([t.to_place.format(place=place) for place in t.places])


@cache
def new_jobs(t: Tongue) -> Choice:
    """What somebody becomes."""
    return Choice.even([t.a_job.format(job=job) for job in t.jobs])


@lru_cache(maxsize=8192)
def people(t: Tongue, who: tuple[int, ...], pattern: str) -> Choice:
    """One of these people."""
    return Choice.even([pattern.format(name=t.names[i]) for i in who], list(who))


@lru_cache(maxsize=8192)
def gains(t: Tongue, owned: tuple[tuple[int, int], ...]) -> Choice:
    """One or two of a thing, more often of a known one; nothing grows beyond ``MOST``."""
    have = dict(owned)
    options: list[tuple[str, float, tuple[int, int]]] = []
    for thing in range(len(t.one)):
        odds = (1 - KEPT) / len(t.one) + (KEPT / len(have) if thing in have else 0.0)
        for count in range(1, min(TAKEN, MOST - have.get(thing, 0)) + 1):
            options.append((t.some_things.format(things=t.things(count, thing)), odds, (count, thing)))
    return Choice(options)


@lru_cache(maxsize=8192)
def losses(t: Tongue, owned: tuple[tuple[int, int], ...]) -> Choice:
    """One or two of a thing that is there."""
    options: list[tuple[str, float, tuple[int, int]]] = []
    for thing, have in owned:
        for count in range(1, min(TAKEN, have) + 1):
            options.append((t.some_things.format(things=t.things(count, thing)), 1 / min(TAKEN, have), (count, thing)))
    return Choice(options)
