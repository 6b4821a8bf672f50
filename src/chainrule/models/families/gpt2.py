"""GPT-2: learned places, LayerNorm, a plain mlp, a tied head; matrices stored the other way round, q, k and v in one.

Radford et al. 2019, "Language Models are Unsupervised Multitask Learners". Those of stanford-crfm divide the scores of each
layer by its number.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from chainrule.layers.attention import GroupedQuery
from chainrule.layers.mlp import Plain
from chainrule.layers.norm import LayerNorm
from chainrule.layers.position import Learned
from chainrule.models.blocks import Block
from chainrule.models.decoder import DecoderConfig
from chainrule.models.families.reading import Reading
from chainrule.models.moves import Drop, Move, RenamePrefix, Replace, Split, Transpose

WORDS = {
    "n_embd": ("hidden_size", 768),
    "n_layer": ("num_hidden_layers", 12),
    "n_head": ("num_attention_heads", 12),
    "n_positions": ("max_position_embeddings", 1024),
    "vocab_size": ("vocab_size", 50257),
}
"""GPT-2's words for its sizes → the word of other families, which its configs may use too, and the size if neither is said."""


def spelled(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with every size in GPT-2's own words."""
    sizes = {}
    for word, (other, size) in WORDS.items():
        values = [config[name] for name in (word, other) if config.get(name) is not None]
        sizes[word] = values[0] if values else size
    others = {other for other, _ in WORDS.values()}
    return {key: value for key, value in config.items() if key not in others} | sizes


def to_parts(config: Mapping[str, Any]) -> DecoderConfig:
    """The decoder that a published config means; raises ``CheckpointError`` for what it does not implement."""
    c = Reading(spelled(config), "GPT-2")
    c.only("scale_attn_weights", True)
    c.only("add_cross_attention", False)
    c.only("is_causal", True)
    c.ignore("reorder_and_upcast_attn", "n_ctx", *(key for key in config if key.startswith("summary_")))
    d, n_heads = c("n_embd"), c("n_head")
    norm = LayerNorm(eps=c("layer_norm_epsilon", 1e-5))
    mlp = Plain(d_ff=c("n_inner", 4 * d), activation=c.activation("activation_function", "gelu_new"))
    attention = GroupedQuery(n_heads=n_heads, n_kv_heads=n_heads, d_head=d // n_heads, qkv_bias=True, o_bias=True)
    attentions = [attention] * c("n_layer")
    if c("scale_attn_by_inverse_layer_idx", False):
        attentions = [replace(one, scale=one.d_head**-0.5 / number) for number, one in enumerate(attentions, 1)]
    decoder = DecoderConfig(
        vocab_size=c("vocab_size"),
        d_model=d,
        context=c("n_positions"),
        blocks=tuple(Block(attention=one, mlp=mlp, norm=norm) for one in attentions),
        norm=norm,
        position=Learned(),
        tied=c("tie_word_embeddings", True),
    )
    c.done()
    return decoder


def moves(config: Mapping[str, Any]) -> tuple[Move, ...]:
    """Where each weight lives; the files of the first release have no ``transformer.`` before their names."""
    d = spelled(config)["n_embd"]
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
