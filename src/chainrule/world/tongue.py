"""A language of the world: its words, and how each event is said.

Both languages make the same draws in the same order, so one grammar (``world.story``) tells the stories of both; only
the words differ. A field with ``{name}`` or the like in it is a pattern to fill; where there are several, they say the same,
and the first is the plain one, in which questions are answered.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, eq=False)
class Tongue:
    """Words and patterns of one language. Lists that stand side by side (``one``, ``many``) share their indices."""

    code: str
    names: tuple[str, ...]
    places: tuple[str, ...]
    one: tuple[str, ...]
    many: tuple[str, ...]
    jobs: tuple[str, ...]
    natures: tuple[str, ...]
    weathers: tuple[str, ...]
    manners: tuple[str, ...]
    openings: tuple[str, ...]
    endings: tuple[str, ...]
    # today: the lecture's own sentences
    today: str
    came: str
    fronted: str
    weather: tuple[str, ...]
    course: tuple[str, ...]
    # somebody enters the story
    arrivals: tuple[str, ...]
    described: str
    called: str
    is_at: tuple[str, ...]
    has_job: tuple[str, ...]
    holds: tuple[str, ...]
    # what animals do meanwhile, of which nothing follows
    scenes: tuple[str, ...]
    sizes: tuple[str, ...]
    colours: tuple[str, ...]
    animals: tuple[str, ...]
    near: str
    how: tuple[str, ...]
    cries: tuple[str, ...]
    # what people do
    subject: str
    moves: tuple[str, ...]
    gets: tuple[str, ...]
    loses: tuple[str, ...]
    gives: tuple[str, ...]
    becomes: tuple[str, ...]
    likes: tuple[str, ...]
    counts: tuple[str, ...]
    to_place: str
    some_things: str
    to_whom: str
    a_job: str
    whom: str
    now: tuple[str, ...]
    # questions
    ask: str
    where: tuple[str, ...]
    how_many: tuple[str, ...]
    what_job: tuple[str, ...]
    # counting
    none: str
    some: str
    plus: str
    minus: str
    result: str
    sums: str
    programs: str
    prints: str

    def things(self, count: int, thing: int) -> str:
        """So many of a thing: "3 apples", "1 apple", "0 apples"."""
        if count == 0:
            return self.none.format(things=self.many[thing])
        return self.some.format(n=count, things=self.one[thing] if count == 1 else self.many[thing])

    def sum(self, a: int, sign: str, b: int) -> str:
        """A sum as it is written before its result."""
        return (self.plus if sign == "+" else self.minus).format(a=a, b=b)
