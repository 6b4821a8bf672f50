"""What a recipe trains on: its model, tokenizer, template, and streams of training and held-out batches."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from chainrule.core.errors import ConfigError, DataError
from chainrule.core.masked import MaskedModel, Model
from chainrule.core.tokenizer import Tokenizer
from chainrule.data.chats import Encoded, Talk, encode_chats, read_chats
from chainrule.data.documents import beginning, hold_out, read_documents
from chainrule.data.masking import MaskedStream
from chainrule.data.packing import Rows, advice, pack
from chainrule.data.pairs import EncodedPair, Pair, PairStream, encode_pairs, read_pairs
from chainrule.data.parts import parts
from chainrule.data.streams import PackedStream, Stream
from chainrule.hub.encoder import MASKS, MaskedLM
from chainrule.hub.fresh import fresh, fresh_encoder, fresh_of_config, fresh_seq2seq, neural_ngram, recurrent
from chainrule.hub.lm import LM
from chainrule.hub.load import load
from chainrule.tokenizers import load as load_tokenizer
from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.byte import END_OF_TEXT, ByteTokenizer
from chainrule.tokenizers.chat import IM_END, IM_START, ChatTemplate, chatml
from chainrule.train.recipe import (
    Bpe,
    Bytes,
    Chats,
    Fresh,
    FreshConfig,
    FreshEncoder,
    FreshNeuralNGram,
    FreshRecurrent,
    FreshSeq2Seq,
    Pairs,
    Recipe,
    Start,
    Text,
    World,
    WorldChats,
    WorldPairs,
)

T = TypeVar("T")
SPECIALS = (END_OF_TEXT, IM_START, IM_END)
BEGINNING = 12
"""So many tokens of a document are its beginning."""
AT_ONCE = 4096
"""So many texts are encoded together."""
HELD_OUT_ROWS = 32
"""So many held-out rows are looked at during training."""


@dataclass(frozen=True)
class Material:
    """Everything a run needs besides settings."""

    model: Model
    tokenizer: Tokenizer
    template: ChatTemplate | None
    stream: Stream
    held_out: Stream | None
    generation: Mapping[str, Any] = field(default_factory=dict)
    """The publisher's advice how to generate, of a model that was there before."""
    making_s: float = 0.0
    """How long a new model took to make: a neural n-gram learns its word vectors then."""


def prepare(recipe: Recipe, begun: Path | None = None) -> Material:
    """Read the data, make or load tokenizer and model, pack; nothing is written.

    ``begun`` is the folder of a run that is gone on with: its tokenizer is kept, and its checkpoint will bring the weights.
    """
    if isinstance(recipe.data, Chats | WorldChats):
        return _for_chats(recipe)
    if isinstance(recipe.data, Pairs | WorldPairs) or isinstance(recipe.model, FreshSeq2Seq):
        return _for_pairs(recipe, begun)
    start = _start(recipe) if isinstance(recipe.model, Start) else None
    if isinstance(start, LM) and start.model.needs:
        return _for_pairs(recipe, begun, start)
    train, held = _documents(recipe)
    tokenizer = start.need_tokenizer() if start else _tokenizer(recipe, train, begun)
    encoded = encode_texts(train, tokenizer)
    if isinstance(recipe.data, World) and recipe.data.chats:
        encoded = [*encoded, *_read_as_text(recipe.data.chats, recipe.seed, tokenizer)]
        np.random.default_rng(recipe.seed).shuffle(encoded)  # type: ignore[arg-type]
    rows = pack(encoded, recipe.context, split=True)
    if len(rows) == 1 and rows.fill < 1:
        raise _too_short(round(rows.fill * recipe.context), recipe.context)
    learned = None if begun else [ids for ids, _ in encoded]  # a checkpoint holds all weights: nothing is learned twice
    began = time.monotonic()
    model = start.model if start else fresh_model(recipe, tokenizer.vocab_size, learned)
    making_s = time.monotonic() - began
    template = start.template if isinstance(start, LM) else None
    held_rows = pack_texts(held, tokenizer, recipe.context)
    stream, held_out = _stream(recipe, rows), _held_out(recipe, held_rows)
    material = Material(model, tokenizer, template, stream, held_out, _generation(start), making_s)
    return _masked(material, model, recipe) if isinstance(model, MaskedModel) else material


def _too_short(tokens: int, context: int) -> DataError:
    return DataError(
        f"the text is {tokens} tokens long, less than one context of {context}; give more text, or set context lower"
    )


def freeze_unused(model: MaskedModel) -> None:
    """Keep what masked words cannot teach, such as a pooler, as it is."""
    for parameter in model.aside():
        parameter.requires_grad_(False)


def _masked(material: Material, model: MaskedModel, recipe: Recipe) -> Material:
    """The same material as riddles for an encoder: words are hidden."""
    if not model.fills:
        raise ConfigError(f"{recipe.model} has no masked-word head to train; start from a checkpoint that has one")
    tokenizer = material.tokenizer
    mask = next((id for name, id in tokenizer.specials.items() if name in MASKS), None)
    if mask is None:
        raise ConfigError("an encoder hides words behind [MASK], which this tokenizer lacks; set tokenizer.kind to bpe")
    freeze_unused(model)
    words = set(range(tokenizer.vocab_size)) - set(tokenizer.specials.values())
    if isinstance(recipe.model, FreshEncoder) and recipe.model.guesses_end and tokenizer.end is not None:
        words.add(tokenizer.end)
    hide = partial(MaskedStream, mask=mask, words=sorted(words), seed=recipe.seed)
    held_out = None if material.held_out is None else hide(material.held_out)
    return replace(material, stream=hide(material.stream), held_out=held_out)


def _for_chats(recipe: Recipe) -> Material:
    if not isinstance(recipe.model, Start):
        raise ConfigError("chats fine-tune a model that exists; set model to {kind: start, path: runs/NAME}")
    start = _start(recipe)
    if not isinstance(start, LM):
        raise ConfigError(
            f"{recipe.model.path} is an encoder: it fills in words and cannot learn to chat; start from a decoder"
        )
    tokenizer = start.need_tokenizer()
    template = start.template or _chatml(tokenizer, recipe.model.path)
    assert isinstance(recipe.data, Chats | WorldChats)
    template = template.dated(recipe.data.day) if recipe.data.day else template
    train, held = _chats(recipe)
    chats, held_chats = encode_chats(train, template), encode_chats(held, template)
    limit = start.model.context
    if isinstance(recipe.data, WorldChats):
        chats = _that_fit(chats, recipe.context, limit)
        held_chats = _that_fit(held_chats, recipe.context, limit)
    else:
        _check_lengths(train, chats, recipe.context, limit)
        _check_lengths(held, held_chats, recipe.context, limit)
    whole, begun = _mixed_in(recipe)
    texts = [ids[: recipe.context] for ids, _ in encode_texts(whole, tokenizer)]
    texts += [ids[: min(BEGINNING, recipe.context)] for ids, _ in encode_texts(begun, tokenizer)]
    encoded = [*chats, *((ids, None) for ids in texts)]
    np.random.default_rng(recipe.seed).shuffle(encoded)  # type: ignore[arg-type]
    rows = pack(encoded, recipe.context, split=False)
    held_rows = pack(held_chats, recipe.context, split=False)
    stream, held_out = _stream(recipe, rows), _held_out(recipe, held_rows)
    return Material(start.model, tokenizer, template, stream, held_out, start.generation)


def _chatml(tokenizer: Tokenizer, path: str) -> ChatTemplate:
    """Our own template, for a model that brought none."""
    if IM_END not in tokenizer.specials:
        raise ConfigError(
            f"{path} has no chat template, and its tokenizer no {IM_END}, which ours writes; train it with BPE here, or put "
            "a chat_template.jinja beside its config.json"
        )
    return chatml(tokenizer)


def _for_pairs(recipe: Recipe, begun: Path | None, known: LM | MaskedLM | None = None) -> Material:
    """Sources and targets for an encoder–decoder, texts in parts; one tokenizer, trained on all, serves the two sides."""
    if isinstance(recipe.model, Start):
        known = known or _start(recipe)
    if isinstance(recipe.data, World) and recipe.data.chats:
        raise ConfigError(f"an encoder–decoder reads no chats among its texts; set data.chats={recipe.data.chats} to 0")
    paired = isinstance(recipe.data, Pairs | WorldPairs)
    pairs, held_pairs = _pairs(recipe) if paired else ([], [])
    texts, held_texts = ([], []) if paired else _documents(recipe)
    tokenizer = known.need_tokenizer() if known else _tokenizer(recipe, [*texts, *chain.from_iterable(pairs)], begun)
    model = known.model if known else fresh_model(recipe, tokenizer.vocab_size)
    if isinstance(model, MaskedModel) or model.needs != ("source",):
        raise ConfigError(f"pairs train an encoder–decoder, but model is {recipe.model}; set it to {{kind: seq2seq}}")
    start, context = tokenizer.begin if model.start is None else model.start, recipe.context
    if start is None:
        raise ConfigError("this tokenizer has no token to begin a target with; set tokenizer.kind to bpe or bytes")
    limit = model.context if known else None  # a new model reads what the recipe says
    encoded = encode_pairs(pairs, tokenizer, start, context, limit=limit) + in_parts(texts, tokenizer, start, context)
    tokens = sum(len(pair.target) - 1 for pair in encoded)
    if not encoded or (not paired and tokens < recipe.context):
        if not paired:
            raise _too_short(tokens, recipe.context)
        raise DataError(f"{recipe.data} gives no pairs to learn from; give 2 or more, one is held out")
    held_out = encode_pairs(held_pairs, tokenizer, start, context, first=len(pairs) + 1, limit=limit)
    held_out += in_parts(held_texts, tokenizer, start, context)
    stream = PairStream(encoded, recipe.batch_rows, recipe.micro_rows or recipe.batch_rows, recipe.seed)
    apart = PairStream(held_out, *_looked_at(recipe, len(held_out))) if held_out else None
    return Material(model, tokenizer, None, stream, apart, _generation(known))


def in_parts(texts: list[str], tokenizer: Tokenizer, start: int, context: int) -> list[EncodedPair]:
    """Every text in parts, each with what stands before it as its source."""
    end, lead = tokenizer.end, int(tokenizer.begin is not None)
    if end is None:
        raise ConfigError("this tokenizer has no token to end a text with; set tokenizer.kind to bpe or bytes")
    encoded = encode_texts(texts, tokenizer)
    return [part for ids, _ in encoded for part in parts(ids[lead:].tolist(), start=start, end=end, context=context)]


def _pairs(recipe: Recipe) -> tuple[list[Pair], list[Pair]]:
    """(training pairs, held-out pairs); the world's go both ways, English to Chinese and back."""
    if isinstance(recipe.data, Pairs):
        pairs = read_pairs(recipe.data.path)
        return _apart(pairs, recipe.data)
    data = recipe.data
    assert isinstance(data, WorldPairs)
    from chainrule.world.translations import translations

    train = islice(translations(recipe.seed, people=data.people, events=data.events), data.stories)
    held = islice(translations(recipe.seed, split="heldout", people=data.people, events=data.events), 100)
    return [pair for one in train for pair in one.pairs], [pair for one in held for pair in one.pairs]


def _apart(rows: list[T], data: Chats | Pairs) -> tuple[list[T], list[T]]:
    """(rows to learn from, the last ones, held out): so many as the share says, but at least one on either side."""
    if len(rows) < 2:
        raise DataError(f"{data.path} holds {len(rows)} {data.kind}; give at least 2, one is held out")
    n = min(max(1, round(len(rows) * data.held_out)), len(rows) - 1)
    return rows[:-n], rows[-n:]


def _check_lengths(talks: list[Talk], chats: list[Encoded], context: int, limit: int | None) -> None:
    """Raises ``DataError`` that names the line of a user's chat that the context does not hold; ``limit`` is the model's."""
    for talk, (ids, _) in zip(talks, chats, strict=True):  # before they are shuffled, when each is still known by its line
        if len(ids) > context:
            raise DataError(
                f"{talk.where} is {len(ids)} tokens long and the context is {context}; "
                f"{advice('chats', len(ids), limit)}: cutting them would teach broken answers"
            )


def _that_fit(chats: list[Encoded], context: int, limit: int | None) -> list[Encoded]:
    """The world's chats that the context holds; it says how many are longer, and stops where those are many."""
    fit = [chat for chat in chats if len(chat[0]) <= context]
    if len(fit) < 0.5 * len(chats):
        mend = "raise the context" if limit is None or context < limit else "start from a model that reads more"
        raise ConfigError(f"{len(chats) - len(fit)} of {len(chats)} chats are longer than context={context}; {mend}")
    if len(fit) < len(chats):
        print(f"{len(chats) - len(fit)} of {len(chats)} chats are longer than {context} tokens and left out", file=sys.stderr)
    return fit


def _read_as_text(n: int, seed: int, tokenizer: Tokenizer) -> list[Encoded]:
    """Chats of the world in our template, every token to be learned but the first, so that texts still begin as they do."""
    from chainrule.world.chats import chats as world_chats

    template = _chatml(tokenizer, "the tokenizer of this recipe")
    drawn = encode_chats((Talk(chat.messages) for chat in islice(world_chats(seed), n)), template)
    lead = 1 + (tokenizer.bos is not None)
    return [(ids, (np.arange(len(ids)) >= lead).astype(np.uint8)) for ids, _ in drawn]


def _mixed_in(recipe: Recipe) -> tuple[list[str], list[str]]:
    """(documents of the world among its chats, so that what was learned before is not forgotten, those read at the start)."""
    if not isinstance(recipe.data, WorldChats):
        return [], []
    from chainrule.world import documents

    n = recipe.data.documents
    drawn = [document.text for document in islice(documents(recipe.seed + 1), n + recipe.data.beginnings)]
    return drawn[:n], drawn[n:]


def _documents(recipe: Recipe) -> tuple[list[str], list[str]]:
    if isinstance(recipe.data, Text):
        return hold_out(read_documents(recipe.data.path), recipe.data.held_out)
    assert isinstance(recipe.data, World)
    return world_texts(recipe.seed, recipe.data.documents), world_texts(recipe.seed, 200, "heldout")


def world_texts(seed: int, n: int, split: Literal["train", "heldout"] = "train") -> list[str]:
    """The first documents of the world; those drawn before are kept, since a run reads them again and drawing takes seconds."""
    kept, more = _world(seed, split)
    kept += islice(more, max(0, n - len(kept)))
    return kept[:n]


@lru_cache(maxsize=4)
def _world(seed: int, split: Literal["train", "heldout"]) -> tuple[list[str], Iterator[str]]:
    """The documents drawn so far, and those that follow."""
    from chainrule.world import documents

    return [], (document.text for document in documents(seed, split=split))


def _chats(recipe: Recipe) -> tuple[list[Talk], list[Talk]]:
    if isinstance(recipe.data, Chats):
        return _apart(read_chats(recipe.data.path), recipe.data)
    assert isinstance(recipe.data, WorldChats)
    from chainrule.world.chats import chats as world_chats

    train = [Talk(chat.messages) for chat in islice(world_chats(recipe.seed), recipe.data.chats)]
    return train, [Talk(chat.messages) for chat in islice(world_chats(recipe.seed, split="heldout"), 200)]


def _tokenizer(recipe: Recipe, train: list[str], begun: Path | None) -> Tokenizer:
    if begun is not None and (begun / "tokenizer").exists():
        return load_tokenizer(begun / "tokenizer")
    wanted = recipe.tokenizer
    if isinstance(wanted, Bytes):
        return ByteTokenizer()
    if not isinstance(wanted, Bpe):
        return load_tokenizer(wanted.path)
    texts = _vocabulary_texts(recipe, beginning(train, wanted.sample_bytes))
    specials = (*SPECIALS, MASKS[0]) if isinstance(recipe.model, FreshEncoder) else SPECIALS
    return BPE.train(texts, wanted.vocab_size, pattern=wanted.pattern, specials=specials).fast()


def _vocabulary_texts(recipe: Recipe, sample: list[str]) -> Iterable[str]:
    """The sample; the world's is cut into its words and nouns."""
    if not isinstance(recipe.data, World | WorldPairs):
        return sample
    from chainrule.world.words import cut_nouns

    return (noun for text in sample for noun in cut_nouns(text))


def _start(recipe: Recipe) -> LM | MaskedLM:
    assert isinstance(recipe.model, Start)
    lm = load(recipe.model.path, device="cpu", dtype="fp32")
    limit = lm.model.context
    if limit is not None and recipe.context > limit:
        raise ConfigError(f"context={recipe.context} is more than the {limit} tokens that {recipe.model.path} reads; lower it")
    return lm


MAKERS: dict[type, tuple[Callable[..., Model], tuple[str, ...]]] = {
    Fresh: (fresh, ("context",)),
    FreshConfig: (fresh_of_config, ("context",)),
    FreshEncoder: (fresh_encoder, ("context",)),
    FreshNeuralNGram: (neural_ngram, ("documents",)),
    FreshRecurrent: (recurrent, ()),
    FreshSeq2Seq: (fresh_seq2seq, ("context",)),
}
"""Who makes each kind of new model, and what of the run it is told besides the recipe's table, the vocabulary and the seed."""
NO_SHAPE = ("kind", "guesses_end")
"""The keys of these tables that say nothing of the model itself."""


def fresh_model(recipe: Recipe, vocab_size: int, documents: list[NDArray[np.int32]] | None = None) -> Model:
    """The new model that a recipe describes; word vectors are learned from the ``documents`` of ids, where there are any."""
    make, more = MAKERS[type(recipe.model)]
    known = {"context": recipe.context, "documents": documents}
    shape = {name: value for name, value in vars(recipe.model).items() if name not in NO_SHAPE}
    return make(vocab_size=vocab_size, seed=recipe.seed, **shape, **{name: known[name] for name in more})


def encode_texts(texts: list[str], tokenizer: Tokenizer) -> list[tuple[NDArray[np.int32], None]]:
    """begin, text, end of each; every token is judged."""
    return [(ids, None) for ids in framed_texts(texts, tokenizer)]


def framed_texts(texts: Sequence[str], tokenizer: Tokenizer) -> Iterator[NDArray[np.int32]]:
    """begin, text, end of each, as they are asked for."""
    some = (texts[i : i + AT_ONCE] for i in range(0, len(texts), AT_ONCE))  # ids in lists take ten times the room of arrays
    return (np.array(tokenizer.framed(ids), np.int32) for batch in some for ids in tokenizer.encode_many(batch))


def pack_texts(texts: list[str], tokenizer: Tokenizer, context: int) -> Rows:
    """Packed rows; a text longer than the context goes on in pieces that stand alone."""
    return pack(encode_texts(texts, tokenizer), context, split=True)


def _stream(recipe: Recipe, rows: Rows) -> PackedStream:
    return PackedStream(rows, recipe.batch_rows, recipe.micro_rows or recipe.batch_rows, recipe.seed)


def _held_out(recipe: Recipe, rows: Rows) -> PackedStream | None:
    return PackedStream(rows, *_looked_at(recipe, len(rows))) if len(rows) else None


def _looked_at(recipe: Recipe, rows: int) -> tuple[int, int]:
    """(held-out rows looked at, how many of them at once): no more at once than in training, and evenly many."""
    n = min(HELD_OUT_ROWS, rows)
    most = min(n, recipe.micro_rows or recipe.batch_rows)
    return n, next(some for some in range(most, 0, -1) if n % some == 0)


def _generation(start: LM | MaskedLM | None) -> Mapping[str, Any]:
    return start.generation if isinstance(start, LM) else {}
