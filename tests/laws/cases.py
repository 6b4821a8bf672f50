"""Every model in the project, small and made on the spot: what the laws are tested on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from chainrule.core.model import LanguageModel
from chainrule.layers.attention import GroupedQuery, QKNorm
from chainrule.layers.init import Mimetic, Normal
from chainrule.layers.mlp import Gated, Plain
from chainrule.layers.norm import LayerNorm, RMSNorm
from chainrule.layers.position import NoPosition
from chainrule.layers.rope import Rope
from chainrule.layers.scaling import Dynamic, Linear, Llama3
from chainrule.models.blocks import Block
from chainrule.models.decoder import Decoder, DecoderConfig
from chainrule.models.ngram import NGram
from chainrule.models.oracle import Oracle

VOCAB = 23


@dataclass(frozen=True)
class Case:
    """A model to test, and rows that it may be given."""

    name: str
    build: Callable[[], LanguageModel]
    rows: Callable[[int, int], torch.Tensor]
    trainable: bool = False


def random_rows(b: int, t: int) -> torch.Tensor:
    """Rows of random tokens."""
    return torch.randint(VOCAB, (b, t), generator=torch.Generator().manual_seed(b * 100 + t))


def world_rows(b: int, t: int) -> torch.Tensor:
    """Beginnings of texts of the world; the oracle knows nothing of others."""
    from itertools import islice

    from chainrule.world import documents

    texts = [one.text.encode() for one in islice(documents(3), 200) if len(one.text.encode()) >= t][:b]
    return torch.tensor([[256, *text][:t] for text in texts])


def ngram(order: int, smoothing: str) -> Callable[[], NGram]:
    """An n-gram of random documents."""

    def build() -> NGram:
        generator = torch.Generator().manual_seed(order)
        documents = [torch.randint(VOCAB - 2, (40,), generator=generator).tolist() for _ in range(12)]
        return NGram.fit(documents, order=order, vocab_size=VOCAB, smoothing=smoothing)  # type: ignore[arg-type]

    return build


def decoder(block: Block, **rest) -> Callable[[], Decoder]:
    """A decoder of two such blocks, its weights large enough that nothing is nearly linear."""

    def build() -> Decoder:
        config = DecoderConfig(**({"vocab_size": VOCAB, "context": 64, "d_model": 16, "blocks": (block, block)} | rest))
        model = Decoder(config)
        model.init(torch.Generator().manual_seed(1), Normal(std=0.3))
        return model.eval()

    return build


def attention(**rest) -> GroupedQuery:
    """Two heads of width 8."""
    return GroupedQuery(**({"n_heads": 2, "n_kv_heads": 2, "d_head": 8} | rest))


GATED = Gated(d_ff=24)
CASES = {
    case.name: case
    for case in (
        Case("unigram", ngram(1, "kneser-ney"), random_rows),
        Case("bigram-mle", ngram(2, "mle"), random_rows),
        Case("trigram-laplace", ngram(3, "laplace"), random_rows),
        Case("4-gram-kneser-ney", ngram(4, "kneser-ney"), random_rows),
        Case("oracle", Oracle, world_rows),
        Case("llama", decoder(Block(attention=attention(), mlp=GATED)), random_rows, True),
        Case("llama-gqa-untied", decoder(Block(attention=attention(n_kv_heads=1), mlp=GATED), tied=False), random_rows, True),
        Case(
            "llama-biases",
            decoder(Block(attention=attention(qkv_bias=True, o_bias=True), mlp=Gated(d_ff=24, bias=True))),
            random_rows,
            True,
        ),
        Case("linear-rope", decoder(Block(attention=attention(), mlp=GATED), position=Rope(scaling=Linear(factor=2.0))), random_rows),
        Case(
            "llama3-rope",
            decoder(Block(attention=attention(), mlp=GATED), position=Rope(scaling=Llama3(factor=4.0, original=16))),
            random_rows,
        ),
        Case("window", decoder(Block(attention=attention(window=3), mlp=GATED)), random_rows),
        Case("q-k-norm", decoder(Block(attention=attention(qk_norm=QKNorm(norm=RMSNorm())), mlp=GATED)), random_rows, True),
        Case("soft-cap", decoder(Block(attention=attention(soft_cap=2.0), mlp=GATED)), random_rows),
        Case(
            "layer-norm-plain",
            decoder(Block(attention=attention(), mlp=Plain(d_ff=24), norm=LayerNorm()), norm=LayerNorm()),
            random_rows,
            True,
        ),
        Case("no-position", decoder(Block(attention=attention(), mlp=GATED), position=NoPosition()), random_rows),
    )
}  # fmt: skip
TRAINABLE = [name for name, case in CASES.items() if case.trainable]


@cache
def model(name: str) -> LanguageModel:
    """The model of a case, built once."""
    return CASES[name].build()


SCHEMES = (Normal(std=0.3), Mimetic())
DYNAMIC = decoder(Block(attention=attention(), mlp=GATED), position=Rope(scaling=Dynamic(factor=2.0, original=8)))
