"""Conversations to ids and masks: the assistant's words are learned, the rest is read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from chainrule.core.chat import Message
from chainrule.core.errors import DataError, TokenizerError
from chainrule.data.documents import read_jsonl
from chainrule.tokenizers.chat import ChatTemplate

Conversation = Sequence[Message | Mapping[str, Any]]
Encoded = tuple[NDArray[np.int32], NDArray[np.uint8]]
"""The ids of a conversation, and 1 for each that is to be learned."""


@dataclass(frozen=True)
class Talk:
    """A conversation, the tools that its assistant was offered, and the line of a file that it was read from."""

    messages: Conversation
    tools: Sequence[Mapping[str, Any]] | None = None
    where: str = "a chat"
    """What it is called in errors."""


def read_chats(path: str | Path) -> list[Talk]:
    """The conversations of a ``.jsonl`` file, each row ``{"messages": [{"role", "content"}, ...]}``, ``tools`` beside."""
    path = Path(path)
    talks = [_talk(row, f"{path}:{number}") for number, row in read_jsonl(path)]
    if not talks:
        raise DataError(f"{path} holds no chats; each line should be an object with messages")
    return talks


def _talk(row: Mapping[str, Any], where: str) -> Talk:
    messages, tools = row.get("messages"), row.get("tools")
    if not isinstance(messages, list) or not messages or not all(isinstance(message, dict) for message in messages):
        raise DataError(f"{where} has keys {sorted(row)}; a chat row needs messages, a list of turns")
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise DataError(f"{where} has tools {str(tools)[:60]!r}; they must be a list of objects, each a JSON schema")
    try:
        return Talk([Message.of(message).as_dict() for message in messages], tools or None, where)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error


def encode_chats(talks: Iterable[Talk], template: ChatTemplate) -> list[Encoded]:
    """(ids, mask) of each chat, BOS in front where the tokenizer has one and the template writes none.

    Raises ``DataError`` for a chat in which the assistant says nothing: it would teach nothing. One that the template refuses
    is named in its ``TokenizerError``.
    """
    bos = template.tokenizer.bos
    encoded: list[Encoded] = []
    for talk in talks:
        try:
            both = template.encode(talk.messages, tools=talk.tools)
        except TokenizerError as error:
            raise TokenizerError(f"{talk.where}: {error}") from error
        if not any(both.mask):
            raise DataError(f"{talk.where} has no word of the assistant to learn; it begins {str(talk.messages[0])[:80]!r}")
        lead = [bos] if bos is not None and both.ids[:1] != [bos] else []
        ids = np.array(lead + both.ids, np.int32)
        encoded.append((ids, np.array([0] * len(lead) + both.mask, np.uint8)))
    return encoded
