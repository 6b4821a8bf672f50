"""LLaMA 1, 2, 3.x: RMSNorm, rope with its scalings, grouped-query attention, a SiLU-gated mlp.

Touvron et al. 2023, arXiv:2302.13971 and 2307.09288; Grattafiori et al. 2024, arXiv:2407.21783. Configs are read in the
style of transformers 4 (``rope_theta`` beside ``rope_scaling``) and 5 (``rope_parameters``), and written in that of 5.
"""

from collections.abc import Mapping
from typing import Any

from chainrule.core.errors import CheckpointError, nearest
from chainrule.layers.attention import GroupedQuery
from chainrule.layers.mlp import Activation, Gated
from chainrule.layers.norm import RMSNorm
from chainrule.layers.rope import Rope
from chainrule.layers.scaling import Dynamic, Linear, Llama3, Scaling
from chainrule.models.blocks import Block
from chainrule.models.decoder import DecoderConfig
from chainrule.models.moves import Move, Rename

ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
READ = {
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "head_dim", "hidden_act", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "rope_theta",
    "rope_scaling", "rope_parameters", "attention_bias", "mlp_bias", "pretraining_tp", "model_type",
}  # fmt: skip
HARMLESS = {
    "architectures", "dtype", "torch_dtype", "transformers_version", "use_cache", "initializer_range", "bos_token_id",
    "eos_token_id", "pad_token_id", "attention_dropout", "_name_or_path", "name_or_path", "return_dict", "output_attentions",
    "output_hidden_states", "auto_map", "id2label", "label2id", "problem_type", "is_encoder_decoder", "chunk_size_feed_forward",
    "is_decoder", "add_cross_attention", "chainrule",
}  # fmt: skip
"""Keys that change nothing in the forward pass."""


def to_parts(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    for key in config:
        if key not in READ | HARMLESS:
            raise CheckpointError(f"config.json has a key that LLaMA does not: {key!r} = {config[key]!r}{nearest(key, READ)}")
    if config.get("pretraining_tp", 1) != 1:
        raise CheckpointError(
            f"pretraining_tp={config['pretraining_tp']} is not supported; set it to 1 (the result is the same)"
        )
    act = config.get("hidden_act", "silu")
    if act not in ACTIVATIONS:
        raise CheckpointError(f"hidden_act={act!r} is not supported{nearest(act, ACTIVATIONS)}")
    n_heads, width = config["num_attention_heads"], config["hidden_size"]
    attention = GroupedQuery(
        n_heads=n_heads,
        n_kv_heads=config.get("num_key_value_heads") or n_heads,
        d_head=config.get("head_dim") or width // n_heads,
        qkv_bias=config.get("attention_bias", False),
        o_bias=config.get("attention_bias", False),
    )
    mlp = Gated(d_ff=config["intermediate_size"], activation=ACTIVATIONS[act], bias=config.get("mlp_bias", False))
    norm = RMSNorm(eps=config.get("rms_norm_eps", 1e-6))
    context = config.get("max_position_embeddings", 2048)
    return DecoderConfig(
        vocab_size=config["vocab_size"],
        d_model=width,
        context=context,
        blocks=(Block(attention=attention, mlp=mlp, norm=norm),) * config["num_hidden_layers"],
        norm=norm,
        position=_rope(config, context),
        tied=config.get("tie_word_embeddings", False),
    )


def _rope(config: Mapping[str, Any], context: int) -> Rope:
    new = config.get("rope_parameters") or {}
    scaling = new or config.get("rope_scaling") or {}
    theta = new.get("rope_theta", config.get("rope_theta", 10000.0))
    return Rope(theta=float(theta), scaling=_scaling(scaling, context))


def _scaling(scaling: Mapping[str, Any], context: int) -> Scaling | None:
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    original = scaling.get("original_max_position_embeddings") or context
    if kind == "default":
        return None
    if kind == "linear":
        return Linear(factor=float(scaling["factor"]))
    if kind == "dynamic":
        return Dynamic(factor=float(scaling["factor"]), original=original)
    if kind == "llama3":
        low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
        return Llama3(factor=float(scaling["factor"]), low=low, high=high, original=original)
    raise CheckpointError(f"rope scaling {kind!r} is not supported{nearest(kind, ['default', 'linear', 'dynamic', 'llama3'])}")


def moves(config: Mapping[str, Any]) -> tuple[Move, ...]:
    """Where each weight lives: published names begin with ``model.``, all but the head's."""
    return (Rename("model.", "", but=("lm_head.",)),)


def to_published(config: DecoderConfig) -> dict[str, Any]:
    """The published config of a decoder of LLaMA's shape; raises ``CheckpointError`` where it has another."""
    block = config.blocks[0]
    attention, mlp = block.attention, block.mlp
    same = all(other == block for other in config.blocks) and block.norm == config.norm and block.position is None
    plain = attention.window is None and attention.qk_norm is None and attention.soft_cap is None
    if not (same and plain and isinstance(mlp, Gated) and mlp.activation in ACTIVATIONS.values()):
        raise CheckpointError("this decoder is not of LLaMA's shape: equal blocks of plain attention and gated mlp")
    if not (isinstance(block.norm, RMSNorm) and isinstance(config.position, Rope)):
        raise CheckpointError("this decoder is not of LLaMA's shape: RMSNorm and rope")
    if attention.qkv_bias != attention.o_bias:
        raise CheckpointError("LLaMA's attention has a bias everywhere or nowhere; here q, k, v and o differ")
    names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": mlp.d_ff,
        "num_hidden_layers": len(config.blocks),
        "num_attention_heads": attention.n_heads,
        "num_key_value_heads": attention.n_kv_heads,
        "head_dim": attention.d_head,
        "hidden_act": names[mlp.activation],
        "max_position_embeddings": config.context,
        "rms_norm_eps": block.norm.eps,
        "tie_word_embeddings": config.tied,
        "attention_bias": attention.qkv_bias,
        "mlp_bias": mlp.bias,
        "rope_parameters": _rope_parameters(config.position),
    }


def _rope_parameters(rope: Rope) -> dict[str, Any]:
    parameters: dict[str, Any] = {"rope_theta": rope.theta, "rope_type": "default"}
    scaling = rope.scaling
    if scaling is not None:
        parameters |= {"rope_type": scaling.kind, "factor": scaling.factor}
    if isinstance(scaling, Dynamic | Llama3):
        parameters["original_max_position_embeddings"] = scaling.original
    if isinstance(scaling, Llama3):
        parameters |= {"low_freq_factor": scaling.low, "high_freq_factor": scaling.high}
    return parameters
