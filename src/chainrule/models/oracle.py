"""The truth as a model: the exact distribution of the next byte of a text of the world.

Its state after a byte is log p of every byte that may follow, which a reader of the world's grammar knows exactly; the readout
is the identity. Ids are those of the byte tokenizer: 256 begins and ends a text. Outside the language, and in a document
that does not begin with 256, nothing is known: the distribution is uniform.
"""

import math

import torch

from chainrule.core.cache import Cache
from chainrule.core.datum import Given, Layout
from chainrule.core.model import LanguageModel, replay
from chainrule.core.shapes import Float, Int, Tensor
from chainrule.core.tap import Tap
from chainrule.world.drivers import END
from chainrule.world.texts import reader

VOCAB = 257


class Oracle(LanguageModel):
    """log p(next byte | text so far), exactly."""

    vocab_size = VOCAB
    context = None

    def hidden(
        self,
        tokens: Int[Tensor, "b t"],
        cache: Cache | None = None,
        *,
        layout: Layout | None = None,
        given: Given | None = None,
        tap: Tap | None = None,
    ) -> Float[Tensor, "b t d"]:
        self.check_given(given)
        if cache is not None:
            return replay(self, cache, tokens, layout=layout, given=given, tap=tap)
        layout = Layout.plain(tokens) if layout is None else layout
        states = torch.full((*tokens.shape, VOCAB), -math.log(VOCAB))
        for row in range(len(tokens)):
            columns, values, uniform = _read(tokens[row].tolist(), layout.document[row].tolist())
            states[row, ~uniform] = -torch.inf
            states[row].view(-1)[columns] = values
        return states.to(tokens.device)

    def readout(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b v"]:
        return hidden


def _read(tokens: list[int], documents: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """For one row: flat indices and log p of everything possible, and which columns are uniform."""
    columns: list[int] = []
    values: list[float] = []
    uniform = torch.zeros(len(tokens), dtype=torch.bool)
    readers = {}
    for t, (token, document) in enumerate(zip(tokens, documents, strict=True)):
        if document not in readers:
            readers[document] = reader() if token == END else None
        elif readers[document] is not None:
            readers[document].feed(token)
        now = readers[document]
        possible = {} if now is None or document < 0 else now.distribution()
        if not possible:
            uniform[t] = True
        for byte, p in possible.items():
            columns.append(t * VOCAB + byte)
            values.append(math.log(p))
    return torch.tensor(columns, dtype=torch.long), torch.tensor(values), uniform
