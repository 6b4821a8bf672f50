"""A small bilingual language whose every probability is known: the one truth to measure against."""

from importlib import import_module
from typing import Any

from chainrule.world.chats import Chat, chats, grade
from chainrule.world.preferences import Preference, preferences
from chainrule.world.texts import LANGUAGES, VERSION, Document, documents, logp, reader
from chainrule.world.translations import Translation, translations

__all__ = [
    "LANGUAGES", "VERSION", "Chat", "Document", "Picture", "Preference", "Translation", "chats", "documents", "grade", "logp",
    "pictures", "preferences", "reader", "translations",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in ("Picture", "pictures"):  # they need NumPy, which texts do not
        return getattr(import_module("chainrule.world.drawings"), name)
    raise AttributeError(f"chainrule.world has no {name!r}")
