"""Preference pairs from the world's chats: a better and a worse reply to the same conversation.

By ``style`` both are right and one says it warmly, or plainly: SFT data holds the two equally often, so a preference for one
must come from the pairs (DPO). By ``truth`` both have the same style and one is false (reward models).
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from chainrule.core.errors import DataError, nearest
from chainrule.world.chats import chats
from chainrule.world.texts import Split

By = Literal["style", "truth"]
KINDS = ("style", "truth")


@dataclass(frozen=True)
class Preference:
    """A conversation that ends with a question, and two replies to it."""

    prompt: tuple[dict[str, Any], ...]
    chosen: str
    rejected: str
    language: str
    kind: str


def preferences(
    seed: int, *, by: By = "style", warm: bool = True, split: Split = "train", language: str | None = None
) -> Iterator[Preference]:
    """Pairs without end; by style, the ``warm`` (or the plain) reply is the chosen one."""
    if by not in KINDS:
        raise DataError(f"the world has no preferences by {by!r}{nearest(by, KINDS)}")
    for i, chat in enumerate(chats(seed, split=split, language=language)):
        if by == "style" and len(chat.accepts) == 2:
            plainly, warmly = chat.accepts
            chosen, rejected = (warmly, plainly) if warm else (plainly, warmly)
            yield Preference(chat.asked, chosen, rejected, chat.language, chat.kind)
        elif by == "truth" and chat.wrong:
            style = random.Random(f"preference {seed} {i}").randrange(len(chat.wrong))
            yield Preference(chat.asked, chat.accepts[style], chat.wrong[style], chat.language, chat.kind)
