"""T5 and T5 1.1 (Flan-T5): an encoder–decoder with relative biases, RMSNorm before each sublayer, and no other bias.

Raffel et al. 2020, arXiv:1910.10683; Shazeer 2020, arXiv:2002.05202 (the gated mlp of 1.1). Scores are not divided by √c. T5
reads its output off the embedding table, after a multiplication by 1/√d_model; T5 1.1 has a table of its own for that. In
configs of transformers 4 ``tie_word_embeddings`` tells the two apart, in those of 5 ``scale_decoder_outputs``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from chainrule.core.errors import CheckpointError, nearest
from chainrule.core.shapes import Tensor
from chainrule.layers.mlp import Gated, Plain
from chainrule.layers.multi_head import MultiHead
from chainrule.layers.norm import RMSNorm
from chainrule.layers.relative_bias import RelativeBias
from chainrule.models.families.reading import ACTIVATIONS, Reading
from chainrule.models.moves import Move, Tensors
from chainrule.models.seq2seq import Seq2SeqConfig
from chainrule.models.stack import PreNormBlock


def to_parts(config: Mapping[str, Any]) -> Seq2SeqConfig:
    """The encoder–decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    c = Reading(config, "T5")
    c.only("tie_encoder_decoder", False)
    # n_positions limits nothing, since the distance of two tokens alone counts; the last two repeat feed_forward_proj
    c.ignore("initializer_factor", "dropout_rate", "n_positions", "dense_act_fn", "is_gated_act")
    d_model = c("d_model")
    block = PreNormBlock(
        attention=MultiHead(n_heads=c("num_heads"), d_head=c("d_kv"), scale=1.0),
        mlp=_mlp(c),
        norm=RMSNorm(eps=c("layer_norm_epsilon", 1e-6)),
    )
    parts = Seq2SeqConfig(
        vocab_size=c("vocab_size"),
        context=None,
        d_model=d_model,
        encoder=(block,) * c("num_layers"),
        decoder=(block,) * _decoder_layers(c),
        position=RelativeBias(
            n_buckets=c("relative_attention_num_buckets", 32), max_distance=c("relative_attention_max_distance", 128)
        ),
        norm=block.norm,
        tied=_scaled(c),
        head_scale=d_model**-0.5 if _scaled(c) else 1.0,
        start=c("decoder_start_token_id", c("pad_token_id", 0)),
    )
    c.done()
    return parts


def _mlp(c: Reading) -> Gated | Plain:
    """``relu`` or the like is plain, ``gated-gelu`` or the like gated; the latter's gelu is the approximate one."""
    projection = c("feed_forward_proj", "relu")
    name = projection.removeprefix("gated-")
    if name not in ACTIVATIONS:
        raise CheckpointError(f"feed_forward_proj={projection!r} is not supported{nearest(name, ACTIVATIONS)}")
    if projection == name:
        return Plain(d_ff=c("d_ff"), activation=ACTIVATIONS[name], bias=False)
    return Gated(d_ff=c("d_ff"), activation="gelu_tanh" if name == "gelu" else ACTIVATIONS[name])


def _decoder_layers(c: Reading) -> int:
    """As many as the encoder has, unless the config says otherwise."""
    return c("num_decoder_layers", c("num_layers"))


def _scaled(c: Reading) -> bool:
    """Whether the output is scaled, and read off the embedding table."""
    return bool(c("scale_decoder_outputs", c("tie_word_embeddings", True)))


UNUSED = {
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
}
"""What the first T5 files hold beside the weights: copies of the table, and a bias that nothing ever read."""


@dataclass(frozen=True)
class Head:
    """A readout of its own that a file may lack: then it is the table. transformers 5 leaves it out where the two are one."""

    def load(self, tensors: Tensors) -> Tensors:
        kept = {name: tensor for name, tensor in tensors.items() if name not in UNUSED}
        if "shared.weight" in kept:
            kept["lm_head.weight"] = self._beside(kept.get("lm_head.weight"), kept["shared.weight"])
        return kept

    def save(self, tensors: Tensors) -> Tensors:
        return tensors

    @staticmethod
    def _beside(head: Tensor | None, table: Tensor) -> Tensor:
        if head is None:
            return table.clone()
        if head.shape != table.shape:
            raise CheckpointError(f"lm_head.weight is {tuple(head.shape)}, but shared.weight is {tuple(table.shape)}")
        return head.view_as(table)  # made from both, so that whoever reads tensors one at a time reads these two together


@dataclass(frozen=True)
class Table:
    """The readout is the table: nothing stands beside it."""

    def load(self, tensors: Tensors) -> Tensors:
        return {name: tensor for name, tensor in tensors.items() if name not in UNUSED}

    def save(self, tensors: Tensors) -> Tensors:
        return tensors


@dataclass(frozen=True)
class Names:
    """What each tensor is called there, and here; a name that is not in the table stays as it is."""

    ours: Mapping[str, str]

    def load(self, tensors: Tensors) -> Tensors:
        return {self.ours.get(name, name): tensor for name, tensor in tensors.items()}

    def save(self, tensors: Tensors) -> Tensors:
        published = {ours: name for name, ours in self.ours.items()}
        return {published.get(name, name): tensor for name, tensor in tensors.items()}


def moves(config: Mapping[str, Any]) -> tuple[Move, ...]:
    """Where each weight lives: a block holds layers (attention, in a decoder also to the source, mlp), each with its norm."""
    c = Reading(config, "T5")
    names = {"shared.weight": "embed_tokens.weight"}
    mlp = [("wi_0", "gate_proj"), ("wi_1", "up_proj")] if isinstance(_mlp(c), Gated) else [("wi", "up_proj")]
    for stack, layers in (("encoder", c("num_layers")), ("decoder", _decoder_layers(c))):
        names[f"{stack}.final_layer_norm.weight"] = f"{stack}.norm.weight"
        names[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = f"{stack}.position.table.weight"
        sublayers = [("SelfAttention", "self_attn"), ("EncDecAttention", "cross_attn"), ("DenseReluDense", "mlp")]
        for i in range(layers):
            for j, (theirs, ours) in enumerate(sublayers if stack == "decoder" else sublayers[::2]):
                there, here = f"{stack}.block.{i}.layer.{j}", f"{stack}.layers.{i}.{ours}"
                inner = [*mlp, ("wo", "down_proj")] if ours == "mlp" else [(x, f"{x}_proj") for x in "qkvo"]
                names |= {f"{there}.{theirs}.{a}.weight": f"{here}.{b}.weight" for a, b in inner}
                names[f"{there}.layer_norm.weight"] = f"{here}_norm.weight"
    return Table() if _scaled(c) else Head(), Names(names)
