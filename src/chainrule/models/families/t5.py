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
from chainrule.layers.mlp import Activation, Gated, Plain
from chainrule.layers.multi_head import MultiHead
from chainrule.layers.norm import RMSNorm
from chainrule.layers.relative_bias import RelativeBias
from chainrule.models.moves import Move, Tensors
from chainrule.models.seq2seq import Seq2SeqConfig
from chainrule.models.stack import PreNormBlock

ACTIVATIONS: dict[str, Activation] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
}
READ = {
    "vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads", "relative_attention_num_buckets",
    "relative_attention_max_distance", "layer_norm_epsilon", "feed_forward_proj", "tie_word_embeddings",
    "scale_decoder_outputs", "decoder_start_token_id", "model_type",
}  # fmt: skip
HARMLESS = {
    "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache", "initializer_factor", "bos_token_id",
    "eos_token_id", "pad_token_id", "dropout_rate", "classifier_dropout", "_name_or_path", "name_or_path", "return_dict",
    "output_attentions", "output_hidden_states", "output_past", "id2label", "label2id", "problem_type", "is_encoder_decoder",
    "chunk_size_feed_forward", "is_decoder", "dense_act_fn", "is_gated_act", "task_specific_params", "n_positions", "chainrule",
}  # fmt: skip
"""Keys that change nothing in the forward pass; the distance of two tokens alone matters, so ``n_positions`` is no limit."""


def to_parts(config: Mapping[str, Any]) -> Seq2SeqConfig:
    """The encoder–decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    for key in config:
        if key not in READ | HARMLESS:
            raise CheckpointError(f"config.json has a key that T5 does not: {key!r} = {config[key]!r}{nearest(key, READ)}")
    d_model, layers = config["d_model"], config["num_layers"]
    block = PreNormBlock(
        attention=MultiHead(n_heads=config["num_heads"], d_head=config["d_kv"], scale=1.0),
        mlp=_mlp(config),
        norm=RMSNorm(eps=config.get("layer_norm_epsilon", 1e-6)),
    )
    deeper = config.get("num_decoder_layers")
    return Seq2SeqConfig(
        vocab_size=config["vocab_size"],
        context=None,
        d_model=d_model,
        encoder=(block,) * layers,
        decoder=(block,) * (layers if deeper is None else deeper),
        position=RelativeBias(
            n_buckets=config.get("relative_attention_num_buckets", 32),
            max_distance=config.get("relative_attention_max_distance", 128),
        ),
        norm=block.norm,
        tied=_scaled(config),
        head_scale=d_model**-0.5 if _scaled(config) else 1.0,
        start=_start(config),
    )


def _mlp(config: Mapping[str, Any]) -> Gated | Plain:
    """``relu`` or the like is plain, ``gated-gelu`` or the like gated; the latter's gelu is the approximate one."""
    said = config.get("feed_forward_proj", "relu")
    name = said.removeprefix("gated-")
    if name not in ACTIVATIONS:
        raise CheckpointError(f"feed_forward_proj={said!r} is not supported{nearest(name, ACTIVATIONS)}")
    act = "gelu_tanh" if said == "gated-gelu" else ACTIVATIONS[name]
    if said.startswith("gated-"):
        return Gated(d_ff=config["d_ff"], activation=act)
    return Plain(d_ff=config["d_ff"], activation=act, bias=False)


def _scaled(config: Mapping[str, Any]) -> bool:
    """Whether the output is scaled, and read off the embedding table."""
    return bool(config.get("scale_decoder_outputs", config.get("tie_word_embeddings", True)))


def _start(config: Mapping[str, Any]) -> int:
    start = config.get("decoder_start_token_id")
    return start if start is not None else config.get("pad_token_id") or 0


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
    names = {"shared.weight": "embed_tokens.weight"}
    mlp = [("wi_0", "gate_proj"), ("wi_1", "up_proj")] if isinstance(_mlp(config), Gated) else [("wi", "up_proj")]
    deeper = config.get("num_decoder_layers")
    for stack, layers in (("encoder", config["num_layers"]), ("decoder", deeper or config["num_layers"])):
        names[f"{stack}.final_layer_norm.weight"] = f"{stack}.norm.weight"
        names[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = f"{stack}.position.table.weight"
        sublayers = [("SelfAttention", "self_attn"), ("EncDecAttention", "cross_attn"), ("DenseReluDense", "mlp")]
        for i in range(layers):
            for j, (theirs, ours) in enumerate(sublayers if stack == "decoder" else sublayers[::2]):
                there, here = f"{stack}.block.{i}.layer.{j}", f"{stack}.layers.{i}.{ours}"
                inner = [*mlp, ("wo", "down_proj")] if ours == "mlp" else [(x, f"{x}_proj") for x in "qkvo"]
                names |= {f"{there}.{theirs}.{a}.weight": f"{here}.{b}.weight" for a, b in inner}
                names[f"{there}.layer_norm.weight"] = f"{here}_norm.weight"
    return Table() if _scaled(config) else Head(), Names(names)
