"""Reading a published config key by key: what a family does not understand is an error, never ignored.

A family reads what it knows; ``done`` then refuses every key that is left, naming the nearest known one. Configs come in the
style of transformers 4 (``rope_theta`` beside ``rope_scaling``) and of 5 (``rope_parameters``); both are read here.
"""

import math
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from chainrule.core.errors import CheckpointError, nearest
from chainrule.layers.attention import GroupedQuery
from chainrule.layers.mlp import Activation, Gated
from chainrule.layers.norm import LayerNorm, OffsetRMSNorm, RMSNorm
from chainrule.layers.position import Learned, NoPosition
from chainrule.layers.rope import Pairs, Rope
from chainrule.layers.scaling import Dynamic, Linear, Llama3, LongRope, Scaling, Yarn
from chainrule.models.blocks import AnyBlock
from chainrule.models.decoder import DecoderConfig

ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
}
HARMLESS = frozenset(
    """
    architectures model_type dtype torch_dtype transformers_version use_cache initializer_range bos_token_id eos_token_id
    pad_token_id attention_dropout hidden_dropout resid_pdrop embd_pdrop attn_pdrop _name_or_path name_or_path return_dict
    output_attentions output_hidden_states output_router_logits auto_map id2label label2id problem_type is_encoder_decoder
    chunk_size_feed_forward is_decoder router_aux_loss_coef router_jitter_noise aux_loss_alpha seq_aux quantization_config
    chainrule hidden_dropout_prob attention_probs_dropout_prob classifier_dropout _attn_implementation task_specific_params
    _attn_implementation_autoset attn_implementation _flash_attn_2_enabled gradient_checkpointing
    cache_implementation ep_size _commit_hash unsloth_fixed unsloth_version torchscript tokenizer_class tie_encoder_decoder
    max_sequence_length model_max_length is_llama_config transformers.js_config output_past n_special predict_special_tokens
    num_labels _num_labels finetuning_task use_bfloat16 tf_legacy_loss cls_token_id sep_token_id unk_token_id prefix
    decoder_start_token_id forced_bos_token_id forced_eos_token_id max_length max_new_tokens min_length do_sample temperature
    top_k top_p typical_p num_beams num_beam_groups num_return_sequences early_stopping diversity_penalty length_penalty
    repetition_penalty no_repeat_ngram_size encoder_no_repeat_ngram_size exponential_decay_length_penalty bad_words_ids
    suppress_tokens begin_suppress_tokens remove_invalid_values output_scores return_dict_in_generate pretraining_tp
    """.split()
)
"""Keys that change nothing in the forward pass: of training, of bookkeeping, of generating, which older configs hold too."""
_REQUIRED = object()


class Reading:
    """A published config that remembers what was read of it."""

    def __init__(self, config: Mapping[str, Any], family: str) -> None:
        self.config, self.family = config, family
        self.known: set[str] = set()
        self.reach = 0

    def __call__(self, key: str, default: Any = _REQUIRED, *others: str) -> Any:
        """The value of a key, or of another spelling of it; a default of its own counts for null too."""
        self.known |= {key, *others}
        for name in (key, *others):
            if (value := self.config.get(name)) is not None:
                if isinstance(value, str) and isinstance(default, int | float):
                    right = "true or false" if isinstance(default, bool) else f"a number such as {default}"
                    raise CheckpointError(f"config.json: {name!r} is the text {value!r}; it must be {right}")
                return value
        if default is _REQUIRED:
            raise CheckpointError(f"config.json lacks {key!r}, which {self.family} needs; copy it again from where it came")
        return default

    def stated(self, key: str, none: str = "null") -> Any:
        """The value of a key that must stand there, be it ``none``: left out, it means something else to other programs."""
        self.known.add(key)
        if key not in self.config:
            raise CheckpointError(
                f"config.json does not say {key!r}, without which {self.family} is another model; say {none} where it has none"
            )
        return self.config[key]

    def only(self, key: str, *values: Any, why: str = "") -> None:
        """Refuse a feature that is not implemented: any value but these, of which the first is the default."""
        value = self(key, values[0])
        if value not in values:
            right = " or ".join(map(repr, values))
            raise CheckpointError(f"{key}={value!r} is not supported for {self.family}: only {right} is{why and f' ({why})'}")

    def ignore(self, *keys: str) -> None:
        """Keys that are known and change nothing here."""
        self.known |= set(keys)

    def done(self) -> None:
        """Refuse every key that nobody read; null asks for nothing, nor do false, 0 and what is empty, unless misspelt.

        A family reads (``only``) the keys whose false would turn off what it takes for granted.
        """
        for key, value in self.config.items():
            if value is None or key in self.known | HARMLESS:
                continue
            if value or get_close_matches(key, self.known, n=1, cutoff=0.9):
                raise CheckpointError(
                    f"config.json has a key that {self.family} does not: {key!r} = {value!r}{nearest(key, self.known)}"
                )

    # parts

    def activation(self, key: str = "hidden_act", default: str = "silu", *others: str) -> Activation:
        """The activation of the mlps."""
        name = self(key, default, *others)
        if name not in ACTIVATIONS:
            raise CheckpointError(f"{key}={name!r} is not supported{nearest(name, ACTIVATIONS)}")
        return ACTIVATIONS[name]

    def rms_norm(self, default: float = 1e-6) -> RMSNorm:
        """The norm of the stream."""
        return RMSNorm(eps=self("rms_norm_eps", default))

    def gated(self, width: str = "intermediate_size", *, bias: bool = False, activation: Activation | None = None) -> Gated:
        """The gated mlp of that width."""
        return Gated(d_ff=self(width), activation=activation or self.activation(), bias=bias)

    def attention(self, *, d_head: int | None = None, **more: Any) -> GroupedQuery:
        """Grouped-query attention; ``d_head`` is the family's default where the config names none."""
        n_heads = self("num_attention_heads")
        width = self("head_dim", d_head or self("hidden_size") // n_heads)
        if more.get("window") is not None:
            self.only("use_sliding_window", True)
        groups = self("num_key_value_heads", n_heads)
        return GroupedQuery(n_heads=n_heads, n_kv_heads=groups, d_head=width, **more)

    def layer_types(self, default: Sequence[str], **windows: Any) -> list[Any]:
        """What each layer's attention sees: ``windows`` gives a value for each name that ``layer_types`` may hold."""
        names = self("layer_types", default)
        n = self("num_hidden_layers")
        if len(names) != n:
            raise CheckpointError(f"config.json has {len(names)} layer_types but num_hidden_layers={n}; as many of each")
        for name in names:
            if name not in windows:
                raise CheckpointError(f"layer_types holds {name!r}, which {self.family} does not{nearest(name, windows)}")
        return [windows[name] for name in names]

    def rope(
        self,
        d_head: int,
        *,
        theta: float = 10000.0,
        context: int = 2048,
        pairs: Pairs = "halves",
        share: float = 1.0,
        of: str | None = None,
    ) -> Rope:
        """Rotary positions of heads of width ``d_head``; ``of`` picks the parameters of one kind of layer."""
        new = self("rope_parameters", {})
        new = new.get(of, {}) if of is not None and of in new else new
        scaling = {**(self("rope_scaling", {}) if not new else {}), **new}
        theta = scaling.get("rope_theta", self("rope_theta", theta))
        share = scaling.get("partial_rotary_factor", self("partial_rotary_factor", share))
        context = self("max_position_embeddings", context)
        original = self("original_max_position_embeddings", context)
        original = scaling.get("original_max_position_embeddings") or original
        turned = int(d_head * share)
        for key in ("rope_interleave", "rope_interleaved"):
            self.only(key, pairs == "neighbours")
        scaled = _scaling(scaling, original, context)
        if isinstance(scaled, Yarn) and "original_max_position_embeddings" in scaling and context >= scaled.original:
            self.reach = round(scaled.factor * scaled.original)
        return Rope(
            theta=float(theta),
            scaling=scaled,
            d_rotary=None if turned == d_head else turned,
            pairs=pairs,
        )

    def decoder(
        self,
        blocks: Sequence[AnyBlock],
        *,
        norm: RMSNorm | OffsetRMSNorm | LayerNorm,
        position: Rope | NoPosition | Learned,
        context: int = 2048,
        tied: bool = False,
        **more: Any,
    ) -> DecoderConfig:
        """The whole decoder; afterwards no key may be left.

        YaRN that says how long the rows of the training were reads its factor times as many tokens, also where it was put into
        a config whose ``max_position_embeddings`` stayed what it was (as the cards of Qwen2.5 and Qwen3 tell their users to).
        """
        config = DecoderConfig(
            vocab_size=self("vocab_size"),
            d_model=self("hidden_size"),
            context=max(self("max_position_embeddings", context), self.reach),
            blocks=tuple(blocks),
            norm=norm,
            position=position,
            tied=self("tie_word_embeddings", tied),
            **more,
        )
        self.only("is_causal", True)
        self.done()
        return config


ROPE_KEYS: dict[str, set[str]] = {
    "default": set(),
    "linear": {"factor"},
    "dynamic": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor"},
    "yarn": {"factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor", "truncate"},
    "longrope": {"factor", "attention_factor", "short_factor", "long_factor"},
}
"""The kinds of rope, and what each reads beside what all do."""
ROPE_ALWAYS = {"rope_type", "type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings", "finetuned"}
ROPE_NEUTRAL = {"factor": 1, "attention_factor": 1}
"""Keys with the one value, beside null, that asks for nothing where the kind does not read them."""


def _scaling(scaling: Mapping[str, Any], original: int, context: int) -> Scaling | None:
    kind = _rope_kind(scaling)
    if kind == "default":
        return None
    if kind == "linear":
        return Linear(factor=float(scaling["factor"]))
    if kind == "dynamic":
        return Dynamic(factor=float(scaling["factor"]), original=context)
    if kind == "llama3":
        low, high = float(scaling["low_freq_factor"]), float(scaling["high_freq_factor"])
        return Llama3(factor=float(scaling["factor"]), low=low, high=high, original=original)
    if kind == "yarn":
        return _yarn(scaling, original, context)
    return _longrope(scaling, original, context)


def _rope_kind(scaling: Mapping[str, Any]) -> str:
    """The kind of rope; what another kind would read is refused, since without that kind it would be dropped."""
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    kind = {"None": "default", "su": "longrope"}.get(str(kind), str(kind))
    if kind not in ROPE_KEYS:
        raise CheckpointError(f"rope scaling {kind!r} is not supported{nearest(kind, ROPE_KEYS)} (all: {', '.join(ROPE_KEYS)})")
    known = ROPE_ALWAYS.union(*ROPE_KEYS.values())
    for key, value in scaling.items():
        if key not in known:
            raise CheckpointError(f"the rope parameters have an unknown key {key!r}{nearest(key, known)}")
        if key not in ROPE_ALWAYS | ROPE_KEYS[kind] and value not in (None, ROPE_NEUTRAL.get(key)):
            readers = " or ".join(other for other, keys in ROPE_KEYS.items() if key in keys)
            raise CheckpointError(
                f"the rope parameters say {key}={value!r}, which rope of type {kind!r} does not read; say the type that does "
                f"({readers}), or remove it"
            )
    return kind


def _yarn(scaling: Mapping[str, Any], original: int, context: int) -> Yarn:
    factor = float(scaling.get("factor") or context / original)
    mscale, over_all = scaling.get("mscale"), scaling.get("mscale_all_dim")
    usual = yarn_mscale(factor, mscale) / yarn_mscale(factor, over_all) if mscale and over_all else yarn_mscale(factor)
    return Yarn(
        factor=factor,
        original=original,
        fast=float(scaling.get("beta_fast") or 32),
        slow=float(scaling.get("beta_slow") or 1),
        whole=scaling.get("truncate", True),
        attention_factor=float(scaling.get("attention_factor") or usual),
    )


def _longrope(scaling: Mapping[str, Any], original: int, context: int) -> LongRope:
    factor = scaling.get("factor") or context / original
    attention_factor = scaling.get("attention_factor")
    if attention_factor is None:
        attention_factor = 1.0 if factor <= 1 else math.sqrt(1 + math.log(factor) / math.log(original))
    short, long = (tuple(map(float, scaling[name])) for name in ("short_factor", "long_factor"))
    return LongRope(short=short, long=long, original=original, attention_factor=float(attention_factor))


def yarn_mscale(factor: float, mscale: float = 1.0) -> float:
    """YaRN's 0.1 · mscale · ln(factor) + 1: how much larger q and k must be in rows longer by ``factor``."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0
