"""Every model in the project, small and made on the spot: what the laws are tested on."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch.nn.utils.rnn import pad_sequence

from chainrule.core.datum import PADDING, Given
from chainrule.core.model import LanguageModel
from chainrule.layers.attention import GroupedQuery, QKNorm
from chainrule.layers.init import Mimetic, Normal
from chainrule.layers.latent import MultiHeadLatent
from chainrule.layers.mlp import Gated, Plain
from chainrule.layers.moe import MixtureOfExperts
from chainrule.layers.norm import LayerNorm, NoNorm, OffsetRMSNorm, RMSNorm, UnitRMSNorm
from chainrule.layers.position import Learned, NoPosition, Temperature
from chainrule.layers.relative_bias import RelativeBias
from chainrule.layers.rope import Rope
from chainrule.layers.router import Router
from chainrule.layers.scaling import Dynamic, Linear, Llama3, LongRope, Yarn
from chainrule.models.blocks import BareBlock, Block, OutputNormBlock, SandwichBlock
from chainrule.models.decoder import Decoder, DecoderConfig
from chainrule.models.neural_ngram import NeuralNGram, NeuralNGramConfig
from chainrule.models.ngram import NGram
from chainrule.models.oracle import Oracle
from chainrule.models.rnn import Recurrent, RecurrentConfig
from chainrule.models.seq2seq import Seq2Seq, Seq2SeqConfig

VOCAB = 23


@dataclass(frozen=True)
class Case:
    """A model to test, and rows that it may be given."""

    name: str
    build: Callable[[], LanguageModel]
    rows: Callable[[int, int], torch.Tensor]
    sources: Callable[[int], torch.Tensor] | None = None
    untrained: str = ""
    """Why no gradient can teach it; empty for a model that learns."""
    declared: bool = False
    """Whether a row is read by its declared length, so that its beginning alone is another row."""

    def given(self, *rows: int) -> Given | None:
        """What these rows are conditioned on: a source each, of its own length; None for a model that needs nothing."""
        if self.sources is None:
            return None
        sources = [self.sources(row) for row in rows]
        return {"source": pad_sequence(sources, batch_first=True, padding_value=PADDING)}


def random_source(row: int) -> torch.Tensor:
    """A source of 3 to 9 random tokens."""
    return torch.randint(VOCAB, ((5, 9, 3)[row],), generator=torch.Generator().manual_seed(row))


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


def seq2seq(config: Seq2SeqConfig, **rest) -> Callable[[], Seq2Seq]:
    """An encoder–decoder, its weights large enough that nothing is nearly linear."""

    def build() -> Seq2Seq:
        model = Seq2Seq(replace(config, **rest))
        model.init(torch.Generator().manual_seed(1), Normal(std=0.3))
        return model.eval()

    return build


SMALL = {"vocab_size": VOCAB, "context": 64, "d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 24}


def recurrent(cell: str, **rest) -> Callable[[], Recurrent]:
    """Cells that read and remember, drawn from a seed."""

    def build() -> Recurrent:
        config = RecurrentConfig.uniform(**({"vocab_size": VOCAB, "cell": cell, "n_layers": 1, "d_model": 32} | rest))
        return Recurrent(config, torch.Generator().manual_seed(1)).eval()

    return build


def neural_ngram(**rest) -> Callable[[], NeuralNGram]:
    """A network over the last few tokens, drawn from a seed."""

    def build() -> NeuralNGram:
        config = NeuralNGramConfig(**({"vocab_size": VOCAB, "order": 4, "d_model": 8, "d_hidden": 32} | rest))
        return NeuralNGram(config, torch.Generator().manual_seed(1)).eval()

    return build


def attention(**rest) -> GroupedQuery:
    """Two heads of width 8."""
    return GroupedQuery(**({"n_heads": 2, "n_kv_heads": 2, "d_head": 8} | rest))


GATED = Gated(d_ff=24)
COUNTED = "its table is counted, not learned"
LATENT = MultiHeadLatent(n_heads=2, d_nope=6, d_rope=4, d_value=5, kv_rank=7, q_rank=9)
CASES = {
    case.name: case
    for case in (
        Case("unigram", ngram(1, "kneser-ney"), random_rows, untrained=COUNTED),
        Case("bigram-mle", ngram(2, "mle"), random_rows, untrained=COUNTED),
        Case("trigram-laplace", ngram(3, "laplace"), random_rows, untrained=COUNTED),
        Case("4-gram-kneser-ney", ngram(4, "kneser-ney"), random_rows, untrained=COUNTED),
        Case("oracle", Oracle, world_rows, untrained="it knows the truth and has no parameters"),
        Case("bengio", neural_ngram(), random_rows),
        Case("bengio-direct", neural_ngram(order=3, direct=True), random_rows),
        Case("rnn", recurrent("rnn"), random_rows),
        Case("lstm", recurrent("lstm"), random_rows),
        Case("lstm-stacked-untied", recurrent("lstm", n_layers=2, d_hidden=20, tied=False), random_rows),
        Case("gru-untied", recurrent("gru", d_hidden=40, tied=False), random_rows),
        Case("llama", decoder(Block(attention=attention(), mlp=GATED)), random_rows),
        Case("llama-gqa-untied", decoder(Block(attention=attention(n_kv_heads=1), mlp=GATED), tied=False), random_rows),
        Case(
            "llama-biases",
            decoder(Block(attention=attention(qkv_bias=True, o_bias=True), mlp=Gated(d_ff=24, bias=True))),
            random_rows,
        ),
        Case("linear-rope", decoder(Block(attention=attention(), mlp=GATED), position=Rope(scaling=Linear(factor=2.0))), random_rows),
        Case(
            "llama3-rope",
            decoder(Block(attention=attention(), mlp=GATED), position=Rope(scaling=Llama3(factor=4.0, original=16))),
            random_rows,
        ),
        Case("dynamic-rope", decoder(Block(attention=attention(), mlp=GATED),
            position=Rope(scaling=Dynamic(factor=2.0, original=5))), random_rows, declared=True),
        Case("longrope", decoder(Block(attention=attention(), mlp=GATED), position=Rope(scaling=LongRope(
            short=(1.0, 1.5, 2.0, 2.5), long=(1.0, 3.0, 5.0, 9.0), original=8))), random_rows, declared=True),
        Case("window", decoder(Block(attention=attention(window=3), mlp=GATED)), random_rows),
        Case("q-k-norm", decoder(Block(attention=attention(qk_norm=QKNorm(norm=RMSNorm())), mlp=GATED)), random_rows),
        Case("soft-cap", decoder(Block(attention=attention(soft_cap=2.0), mlp=GATED)), random_rows),
        Case(
            "layer-norm-plain",
            decoder(Block(attention=attention(), mlp=Plain(d_ff=24), norm=LayerNorm()), norm=LayerNorm()),
            random_rows,
        ),
        Case("sandwich-gemma", decoder(
            SandwichBlock(attention=attention(scale=0.3), mlp=GATED, norm=OffsetRMSNorm()), embedding_scale=4.0, logit_cap=5.0,
            norm=OffsetRMSNorm()), random_rows),
        Case("output-norm-olmo", decoder(OutputNormBlock(
            attention=attention(qk_norm=QKNorm(norm=RMSNorm(), over="row")), mlp=GATED)), random_rows),
        Case("no-residual", decoder(BareBlock(attention=attention(), mlp=GATED)), random_rows),
        Case("no-norm", decoder(Block(attention=attention(), mlp=GATED, norm=NoNorm())), random_rows),
        Case("learned-places", decoder(Block(attention=attention(), mlp=GATED), position=Learned()), random_rows),
        Case("chunks-temperature", decoder(Block(attention=attention(chunk=4, qk_norm=QKNorm(norm=UnitRMSNorm(), after_rope=True)),
            mlp=GATED), position=Temperature(floor=3.0, scale=0.5)), random_rows),
        Case("neighbours-partial-yarn", decoder(Block(attention=attention(), mlp=GATED),
            position=Rope(pairs="neighbours", d_rotary=4, scaling=Yarn(factor=4.0, original=16, attention_factor=1.1))), random_rows),
        Case("sinks", decoder(Block(attention=attention(sinks=True, window=4), mlp=GATED)), random_rows),
        Case("latent", decoder(Block(attention=LATENT, mlp=GATED)), random_rows),
        Case("experts", decoder(Block(attention=attention(), mlp=MixtureOfExperts(
            n_experts=4, d_ff=12, router=Router(k=2), d_shared=8))), random_rows),
        Case("experts-in-groups", decoder(Block(attention=attention(), mlp=MixtureOfExperts(
            n_experts=8, d_ff=12, router=Router(k=2, score="sigmoid", correction=True, groups=4, kept=2, scale=2.0), bias=True,
            clamp=1.0))), random_rows),
        Case("transformer-2017", seq2seq(Seq2SeqConfig.original(**SMALL)), random_rows, sources=random_source),
        Case("t5", seq2seq(Seq2SeqConfig.t5(**SMALL), head_scale=0.25), random_rows, sources=random_source),
        Case(
            "t5-untied-near",
            seq2seq(Seq2SeqConfig.t5(**SMALL), tied=False, position=RelativeBias(n_buckets=4, max_distance=6)),
            random_rows,
            sources=random_source,
        ),
        Case("no-position", decoder(Block(attention=attention(), mlp=GATED), position=NoPosition()), random_rows),
    )
}  # fmt: skip


@cache
def model(name: str) -> LanguageModel:
    """The model of a case, built once."""
    return CASES[name].build()


SCHEMES = (Normal(std=0.3), Mimetic())
