"""A small bilingual language whose every probability is known: the one truth to measure against."""

from chainrule.world.documents import LANGUAGES, VERSION, Document, documents, logp, reader

__all__ = ["LANGUAGES", "VERSION", "Document", "documents", "logp", "reader"]
