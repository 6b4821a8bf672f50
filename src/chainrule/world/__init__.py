"""A small bilingual language whose every probability is known: the one truth to measure against."""

from chainrule.world.chats import Chat, chats, grade
from chainrule.world.texts import LANGUAGES, VERSION, Document, documents, logp, reader

__all__ = ["LANGUAGES", "VERSION", "Chat", "Document", "chats", "documents", "grade", "logp", "reader"]
