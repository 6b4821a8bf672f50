"""BERT and the sentence models of its shape (MiniLM, BGE, ...): learned places, two token types, norms after the sums.

Devlin et al. 2018, arXiv:1810.04805. A config.json does not say which heads its weights hold (a masked-word head, a
pooler): their names do, and ``with_heads`` writes that down. The next-sentence head is left out, as transformers'
BertForMaskedLM leaves it out.
"""

from collections.abc import Collection, Mapping
from typing import Any

from chainrule.core.errors import CheckpointError
from chainrule.layers.attention import GroupedQuery
from chainrule.layers.mlp import Plain
from chainrule.layers.norm import LayerNorm
from chainrule.models.encoder import EncoderBlock, EncoderConfig, WordHead
from chainrule.models.families.reading import ACTIVATIONS, Reading
from chainrule.models.moves import Drop, Move, Older, RenamePrefix, Replace

FILLS = {"BertForMaskedLM": True, "BertForPreTraining": True, "BertModel": False}
"""The architectures known here, and whether they have the masked-word head."""
HEAD, POOLER = "cls.predictions.", "pooler.dense.weight"


def with_heads(config: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    """The config with what only the names of its weights say: which heads there are."""
    if not set(config.get("architectures") or ()) <= set(FILLS):
        return dict(config)
    fills = any(name.startswith(HEAD) for name in names)
    architecture = "BertForMaskedLM" if fills else "BertModel"
    return dict(config) | {"architectures": [architecture], "add_pooling_layer": any(name.endswith(POOLER) for name in names)}


def to_parts(config: Mapping[str, Any]) -> EncoderConfig:
    """The encoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    c = Reading(config, "BERT")
    c.only("position_embedding_type", "absolute")
    c.only("is_decoder", False)
    c.only("add_cross_attention", False)
    c.ignore("directionality", "language")
    c.ignore(*(key for key in config if key.startswith("pooler_")))  # of the first release; nothing reads them
    width, n_heads = c("hidden_size", 768), c("num_attention_heads", 12)
    if n_heads < 1 or width % n_heads:
        raise CheckpointError(f"hidden_size={width} is not a multiple of num_attention_heads={n_heads}")
    norm = LayerNorm(eps=c("layer_norm_eps", 1e-12))
    attention = GroupedQuery(n_heads=n_heads, n_kv_heads=n_heads, d_head=width // n_heads, qkv_bias=True, o_bias=True)
    activation, fills = c.activation("hidden_act", "gelu"), _fills(config)
    block = EncoderBlock(attention=attention, mlp=Plain(d_ff=c("intermediate_size", 3072), activation=activation), norm=norm)
    tied = c("tie_word_embeddings", True)
    encoder = EncoderConfig(
        vocab_size=c("vocab_size", 30522),
        context=c("max_position_embeddings", 512),
        d_model=width,
        types=c("type_vocab_size", 2),
        blocks=(block,) * c("num_hidden_layers", 12),
        norm=norm,
        head=WordHead(activation=activation, norm=norm, tied=tied) if fills else None,
        pooler=c("add_pooling_layer", not fills),
    )
    c.done()
    return encoder


def _fills(config: Mapping[str, Any]) -> bool:
    names = config.get("architectures") or ["BertForMaskedLM"]
    unknown = [name for name in names if name not in FILLS]
    if unknown:
        raise CheckpointError(f"architectures names {unknown[0]!r}, whose head is not supported; known are {', '.join(FILLS)}")
    return any(FILLS[name] for name in names)


SPELLINGS = (
    ("embeddings.word_embeddings.", "embed_tokens."),
    ("embeddings.position_embeddings.", "embed_positions."),
    ("embeddings.token_type_embeddings.", "embed_types."),
    ("embeddings.LayerNorm.", "embed_norm."),
    ("encoder.layer.", "layers."),
    (".attention.self.query.", ".self_attn.q_proj."),
    (".attention.self.key.", ".self_attn.k_proj."),
    (".attention.self.value.", ".self_attn.v_proj."),
    (".attention.output.dense.", ".self_attn.o_proj."),
    (".attention.output.LayerNorm.", ".self_attn_norm."),
    (".intermediate.dense.", ".mlp.up_proj."),
    (".output.dense.", ".mlp.down_proj."),
    (".output.LayerNorm.", ".mlp_norm."),
    ("pooler.dense.", "pooler."),
    ("cls.predictions.transform.dense.", "head.dense."),
    ("cls.predictions.transform.LayerNorm.", "head.norm."),
    ("cls.predictions.decoder.", "head.words."),
)
"""Published, ours; read from above on loading (the attention's output before the mlp's), from below on saving."""


def moves(config: Mapping[str, Any]) -> tuple[Move, ...]:
    """Where each weight lives: below ``bert.`` where there is a head, at the top where there is none."""
    bias, decoder = "cls.predictions.bias", "cls.predictions.decoder.bias"
    tied = config.get("tie_word_embeddings", True)
    return (
        Older("LayerNorm.gamma", "LayerNorm.weight"),
        Older("LayerNorm.beta", "LayerNorm.bias"),
        Drop(r"^(bert\.)?embeddings\.position_ids$|^cls\.seq_relationship\."),
        # a tied head has one bias under both names; of an untied one transformers 5 reads the decoder's alone
        *((Replace(bias, "head.bias"),) if tied else (Drop(rf"^{bias}$"), Replace(decoder, "head.bias"))),
        RenamePrefix("bert.", "", but=("cls.", "head.")) if _fills(config) else Older("bert.", ""),
        *(Replace(published, ours) for published, ours in SPELLINGS),
    )


def to_published(config: EncoderConfig) -> dict[str, Any]:
    """The published config of an encoder of BERT's shape; raises ``CheckpointError`` where it has another."""
    block, head = config.blocks[0], config.head
    attention, mlp = block.attention, block.mlp
    plain = GroupedQuery(
        n_heads=attention.n_heads,
        n_kv_heads=attention.n_heads,
        d_head=config.d_model // attention.n_heads,
        qkv_bias=True,
        o_bias=True,
    )
    same = all(other == block for other in config.blocks) and attention == plain and block.norm == config.norm
    if not (same and isinstance(mlp, Plain) and mlp.bias and isinstance(config.norm, LayerNorm) and config.norm.bias):
        raise CheckpointError("this encoder is not of BERT's shape: equal blocks of plain attention and mlp, LayerNorm, biases")
    if mlp.activation not in ACTIVATIONS.values() or (head and (head.activation, head.norm) != (mlp.activation, block.norm)):
        raise CheckpointError("this encoder is not of BERT's shape: its head has the activation and norm of its blocks")
    names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    return {
        "architectures": ["BertModel" if head is None else "BertForMaskedLM"],
        "model_type": "bert",
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "num_hidden_layers": len(config.blocks),
        "num_attention_heads": attention.n_heads,
        "intermediate_size": mlp.d_ff,
        "hidden_act": names[mlp.activation],
        "max_position_embeddings": config.context,
        "type_vocab_size": config.types,
        "layer_norm_eps": config.norm.eps,
        "tie_word_embeddings": head is None or head.tied,
        "add_pooling_layer": config.pooler,
        "pad_token_id": None,
    }
