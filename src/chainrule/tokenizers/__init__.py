"""Text to ids and back: bytes, characters, BPE, and every tokenizer file the world publishes. Imports no torch."""

from importlib import import_module
from typing import Any

_NAMES = {
    "load": "chainrule.tokenizers.published",
    "ByteTokenizer": "chainrule.tokenizers.byte",
    "CharTokenizer": "chainrule.tokenizers.char",
    "BPE": "chainrule.tokenizers.bpe",
    "LibraryTokenizer": "chainrule.tokenizers.fast",
    "ChatTemplate": "chainrule.tokenizers.chat",
}
__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"chainrule.tokenizers has no {name!r}; it has {', '.join(_NAMES)}")
    return getattr(import_module(_NAMES[name]), name)
