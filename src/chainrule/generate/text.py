"""Ids to text that may be shown: whole characters only, and nothing of a stop string.

A Chinese character is three bytes and may be several tokens; it is shown when it is complete. A text that might be the
beginning of a stop string is held back until that is clear. What is shown is what the bytes of the tokens say. That is what
``decode`` says of all the ids, but for <unk>, for which SentencePiece's writes ⁇, and for the spaces that WordPiece's puts
between words.
"""

import codecs

from chainrule.core.tokenizer import Tokenizer


class TextStream:
    """Takes ids one at a time and gives the text that has become certain."""

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...] = (), *, begins: bool = False) -> None:
        """``begins``: nothing stands before this text, so the space that SentencePiece tokenizers put in front is dropped."""
        self._bytes, self._decode = tokenizer.token_bytes, tokenizer.decode
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._stop, self._held, self._begins = stop, "", begins
        self.stopped = False

    def feed(self, id: int) -> str:
        """The text that may be shown after this id; afterwards ``stopped`` tells whether a stop string was met."""
        data = self._bytes(id)
        if self._begins and data:
            self._begins = False
            trims = data.startswith(b" ") and len(self._decode([id])) < len(data.decode(errors="replace"))
            data = data[1:] if trims else data
        return self._release(self._utf8.decode(data))

    def flush(self) -> str:
        """What is still held back, when no more ids come; an unfinished character becomes U+FFFD."""
        text = self._release(self._utf8.decode(b"", final=True))
        if self.stopped:
            return text
        text, self._held = text + self._held, ""
        return text

    def _release(self, new: str) -> str:
        if self.stopped:
            return ""
        text = self._held + new
        met = [(at + len(stop), at) for stop in self._stop if (at := text.find(stop)) >= 0]
        if met:  # what is complete first counts, however the text was cut into tokens
            self.stopped, self._held = True, ""
            return text[: min(met)[1]]
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """How long an end of the text is a beginning of the stop string."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
