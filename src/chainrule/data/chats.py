"""Conversations to ids and masks: the assistant's words are learned, the rest is read."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.core.chat import Message
from chainrule.core.errors import DataError
from chainrule.data.documents import read_jsonl
from chainrule.tokenizers.chat import ChatTemplate

Conversation = Sequence[Message | Mapping[str, Any]]
Encoded = tuple[NDArray[np.int32], NDArray[np.uint8]]
"""The ids of a conversation, and 1 for each that is to be learned."""


def read_chats(path: str | Path) -> list[list[dict[str, Any]]]:
    """The conversations of a ``.jsonl`` file, each row ``{"messages": [{"role", "content"}, ...]}``."""
    path = Path(path)
    chats: list[list[dict[str, Any]]] = []
    for number, row in read_jsonl(path):
        if not isinstance(row.get("messages"), list) or not row["messages"]:
            raise DataError(f"{path}:{number} has keys {sorted(row)}; a chat row needs messages, a list of turns")
        chats.append([Message.of(message).as_dict() for message in row["messages"]])
    if not chats:
        raise DataError(f"{path} holds no chats; each line should be an object with messages")
    return chats


def encode_chats(chats: Iterable[Conversation], template: ChatTemplate) -> list[Encoded]:
    """(ids, mask) of each chat, BOS in front where the tokenizer has one and the template writes none.

    Raises ``DataError`` for a chat in which the assistant says nothing: it would teach nothing.
    """
    bos = template.tokenizer.bos
    encoded: list[Encoded] = []
    for number, chat in enumerate(chats):
        both = template.encode(chat)
        if not any(both.mask):
            raise DataError(f"chat {number} has no word of the assistant to learn; it begins {str(chat[0])[:80]!r}")
        lead = [bos] if bos is not None and both.ids[:1] != [bos] else []
        ids = np.array(lead + both.ids, np.int32)
        encoded.append((ids, np.array([0] * len(lead) + both.mask, np.uint8)))
    return encoded
