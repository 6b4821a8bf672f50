"""GPT-2: learned places, LayerNorm, a plain mlp, a tied head; matrices stored the other way round, q, k and v in one.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners". Left out: attention scaled by layer, which no
published GPT-2 uses.
"""

from collections.abc import Mapping
from typing import Any

from chainrule.layers.attention import GroupedQuery
from chainrule.layers.mlp import Plain
from chainrule.layers.norm import LayerNorm
from chainrule.layers.position import Learned
from chainrule.models.blocks import Block
from chainrule.models.decoder import DecoderConfig
from chainrule.models.families.reading import Reading
from chainrule.models.moves import Drop, Move, RenamePrefix, Replace, Split, Transpose


def to_parts(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    c = Reading(config, "GPT-2")
    c.only("scale_attn_weights", True)
    c.only("scale_attn_by_inverse_layer_idx", False)
    c.only("add_cross_attention", False)
    c.ignore("reorder_and_upcast_attn", "n_ctx", *(key for key in config if key.startswith("summary_")))
    d, n_heads = c("n_embd", 768, "hidden_size"), c("n_head", 12, "num_attention_heads")
    norm = LayerNorm(eps=c("layer_norm_epsilon", 1e-5))
    mlp = Plain(d_ff=c("n_inner", 4 * d), activation=c.activation("activation_function", "gelu_new"))
    attention = GroupedQuery(n_heads=n_heads, n_kv_heads=n_heads, d_head=d // n_heads, qkv_bias=True, o_bias=True)
    blocks = (Block(attention=attention, mlp=mlp, norm=norm),) * c("n_layer", 12, "num_hidden_layers")
    decoder = DecoderConfig(
        vocab_size=c("vocab_size", 50257),
        d_model=d,
        context=c("n_positions", 1024, "max_position_embeddings"),
        blocks=blocks,
        norm=norm,
        position=Learned(),
        tied=c("tie_word_embeddings", True),
    )
    c.done()
    return decoder


def moves(config: Mapping[str, Any]) -> tuple[Move, ...]:
    """Where each weight lives; the files of the first release have no ``transformer.`` before their names."""
    d = config.get("n_embd", 768)
    q, k, v = ("self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj.")
    return (
        Drop(r"\.attn\.(masked_)?bias$"),
        RenamePrefix("transformer.", "", but=("lm_head.",)),
        RenamePrefix("wte.", "embed_tokens."),
        RenamePrefix("wpe.", "embed_positions."),
        RenamePrefix("ln_f.", "norm."),
        RenamePrefix("h.", "layers."),
        Replace(".ln_1.", ".input_layernorm."),
        Replace(".ln_2.", ".post_attention_layernorm."),
        Replace(".attn.c_proj.", ".self_attn.o_proj."),
        Replace(".mlp.c_fc.", ".mlp.up_proj."),
        Replace(".mlp.c_proj.", ".mlp.down_proj."),
        Transpose(r"(c_attn|o_proj|up_proj|down_proj)\.weight$"),
        *(Split("attn.c_attn." + end, (q + end, k + end, v + end), (d, d, d)) for end in ("weight", "bias")),
    )
