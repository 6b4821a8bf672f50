"""What GGUF's keys say about a model, as the ``config.json`` its publisher would write, and back.

The tables say what is plain; what is not (heads, experts, windows, a tied head) has a few lines of its own here. Whether GGUF
can say a model at all is found out by reading back what was written: a feature that would get lost is an error that names it.
"""

from collections.abc import Mapping
from typing import Any

from chainrule.core.errors import CheckpointError
from chainrule.core.schema import dump
from chainrule.hub.build import parts, understood
from chainrule.hub.difference import difference
from chainrule.hub.gguf.keys import FRACTIONS, Keys
from chainrule.hub.gguf.rope import Tables, rope_keys, rope_of, rope_parameters, rope_width
from chainrule.hub.gguf.tables import ALSO, OPTIONAL, SIGMOID, SOFTMAX, TABLES

Config = dict[str, Any]
Shapes = Mapping[str, tuple[int, ...]]
GEMMA2 = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "sliding_window": 4096}
"""What a file of Gemma 2 may leave out."""
NORM_EPS = ("attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon")


def architecture(metadata: Mapping[str, Any], where: object) -> str:
    """The name in the tables of the architecture a file holds; raises ``CheckpointError`` naming those that are known."""
    name = metadata.get("general.architecture")
    if name == "llama" and metadata.get("llama.expert_count"):
        return "mixtral"
    if name not in TABLES or name == "mixtral":
        known = ", ".join(sorted(set(TABLES) - {"mixtral"}))
        raise CheckpointError(f"{where} holds a model of the architecture {name!r}, which is not known here; known are {known}")
    return str(name)


def stored_name(arch: str) -> str:
    """What the file calls an architecture of the tables."""
    return "llama" if arch == "mixtral" else arch


def mtp_layers(arch: str, metadata: Mapping[str, Any], where: object) -> int:
    """How many layers at the end predict further tokens: they take no part in p(next token)."""
    return Keys(metadata, stored_name(arch), where).number("nextn_predict_layers") or 0


def published(arch: str, metadata: Mapping[str, Any], shapes: Shapes, tables: Tables, where: object) -> Config:
    """The ``config.json`` that a file's metadata means. ``tables`` are the tensors that belong to rope's settings.

    Raises ``CheckpointError`` for a key of the architecture that was not read: it may say that this is another model.
    """
    with understood({"model_type": TABLES[arch].model_type}, str(where)):
        return _published(arch, metadata, shapes, tables, where)


def _published(arch: str, metadata: Mapping[str, Any], shapes: Shapes, tables: Tables, where: object) -> Config:
    table, keys = TABLES[arch], Keys(metadata, stored_name(arch), where)
    if "token_embd.weight" not in shapes:
        raise CheckpointError(f"{where} has no tensor token_embd.weight: it is a vocabulary or a part of a model, not a model")
    config: Config = {"model_type": table.model_type, **table.always}
    for key, name in table.keys.items():
        value = keys.number(key) if key in OPTIONAL else keys.needed(key)
        if value is not None:
            config[name] = value
    config[table.keys["block_count"]] = _layers(keys, shapes, mtp_layers(arch, metadata, where))
    keys.ignore("nextn_predict_layers")
    config["vocab_size"] = shapes["token_embd.weight"][0]
    config["tie_word_embeddings"] = "output.weight" not in shapes
    config |= {key: any(name in shapes for name in tensors) for key, tensors in table.seen.items()}
    config |= _own(arch, config, keys)
    for key, value in table.written.items():
        keys.only(key, config[value] if isinstance(value, str) else value)
    if "attention.key_length" in table.keys:
        keys.only("attention.value_length", rope_width(config))
    if table.rope:
        config |= rope_of(arch, keys, rope_width(config), tables)
    keys.done()
    return config


def _layers(keys: Keys, shapes: Shapes, mtp: int) -> int:
    """The layers of the model, of all of which the file must hold tensors."""
    n = keys.needed("block_count")
    found = {name.split(".")[1] for name in shapes if name.startswith("blk.")}
    if len(found) not in (n, n - mtp):
        raise CheckpointError(f"{keys.where} holds tensors of {len(found)} layers, but its block_count is {n}; export it again")
    return n - mtp


def metadata_of(arch: str, config: Config) -> Config:
    """The keys of the architecture that say a published config."""
    name, table = stored_name(arch), TABLES[arch]
    decoder = parts(config)
    usual = {"context_length": decoder.context, **dict.fromkeys(NORM_EPS, decoder.norm.eps)}  # where the config is silent
    values = {key: usual.get(key) if (value := _value(config, word)) is None else value for key, word in table.keys.items()}
    values |= {key: config[value] if isinstance(value, str) else value for key, value in table.written.items()}
    if "attention.key_length" in table.keys:
        values |= dict.fromkeys(("attention.key_length", "attention.value_length"), rope_width(config))
        values["attention.head_count_kv"] = values["attention.head_count_kv"] or config["num_attention_heads"]
    if table.rope:
        values |= rope_keys(arch, config, rope_width(config))
    values |= _own_keys(arch, config)
    values["vocab_size"] = config["vocab_size"]
    return {f"{name}.{key}": _typed(key, value) for key, value in values.items() if value is not None}


def _value(config: Config, word: str) -> Any:
    return next((config[name] for name in (word, *ALSO.get(word, ())) if config.get(name) is not None), None)


def _typed(key: str, value: Any) -> Any:
    """A number as llama.cpp reads it: where it wants a fraction, a config may hold a whole number."""
    return float(value) if key.endswith(FRACTIONS) and isinstance(value, int) else value


def check_round_trip(config: Mapping[str, Any], again: Mapping[str, Any]) -> None:
    """Raise ``CheckpointError`` where what is read back from a file is not the model that was written into it."""
    if found := difference(dump(parts(config)), dump(parts(again))):
        place, was, would_be = found
        raise CheckpointError(
            f"GGUF cannot say this model: {place} is {was!r}, but whoever reads the file would take it for {would_be!r}; "
            "export it with to='hf' (--to hf)"
        )


def deviations(arch: str, config: Config) -> list[str]:
    """Where llama.cpp computes something else than the model's publisher, for the user to know."""
    notes: list[str] = []
    if arch == "deepseek2" and config.get("topk_method") == "group_limited_greedy" and config.get("n_group", 1) > 1:
        notes.append(
            "llama.cpp chooses groups of experts by their best two, DeepSeek-V2 by their best one: it routes otherwise"
        )
    if arch == "deepseek2" and not config.get("q_lora_rank") and config["num_hidden_layers"] not in (26, 27):
        notes.append("llama.cpp loads DeepSeek-V2 without q_lora_rank only if it has 26 or 27 layers")
    window = config.get("sliding_window")
    if arch == "phi3" and window and window < config["max_position_embeddings"]:
        notes.append(f"llama.cpp gives Phi-3 no window: beyond {window} tokens it scores otherwise")
    if arch == "phi3" and rope_parameters(config).get("rope_type") == "longrope":
        notes.append("llama.cpp chooses LongRoPE's factors by the context it is started with, not by the length of the row")
    if arch == "gpt-oss" and rope_parameters(config).get("truncate") is False:
        notes.append("llama.cpp rounds the borders of YaRN's ramp, gpt-oss does not: its angles differ a little")
    return notes


# what single architectures have


def _own(arch: str, config: Config, keys: Keys) -> Config:
    if arch in ("gemma2", "gemma3"):
        return _gemma(arch, config, keys)
    if arch == "deepseek2":
        return _deepseek2(config, keys)
    if arch == "chatglm":
        return {"head_dim": config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]}
    if arch == "glm4moe":
        keys.ignore("rope.dimension_sections")  # of pictures: the positions of a text token are all the same
        return {
            "norm_topk_prob": keys.truth("expert_weights_norm"),
            "first_k_dense_replace": config.get("first_k_dense_replace", 0),
            "routed_scaling_factor": config.get("routed_scaling_factor", 1.0),
        }
    if arch == "llama4":
        keys.only("attention.sliding_window")  # 0 says that no layer attends in chunks
        return {"use_qk_norm": config["num_local_experts"] != 128}  # as llama.cpp knows Maverick
    return {}


def _own_keys(arch: str, config: Config) -> Config:
    if arch == "gpt2":
        return {"feed_forward_length": config.get("n_inner") or 4 * config["n_embd"]}
    if arch == "gemma3":
        return {"attention.sliding_window_pattern": _near_layers(config)}
    if arch == "deepseek2":
        return _deepseek2_keys(config)
    if arch == "glm4moe":
        return {"expert_weights_norm": bool(config.get("norm_topk_prob", True))}
    if arch == "ernie4_5-moe":
        width = config["moe_intermediate_size"] * (config.get("moe_num_shared_experts") or 0)
        return {"expert_shared_feed_forward_length": width or None}
    return {}


def _gemma(arch: str, config: Config, keys: Keys) -> Config:
    width = config["hidden_size"] // config["num_attention_heads"]
    wide = config["num_hidden_layers"] == {"gemma2": 46, "gemma3": 62}[arch]  # llama.cpp knows the 27B models by their layers
    own = {"query_pre_attn_scalar": width if wide else config.get("head_dim") or width}
    if arch == "gemma2":
        return own | {key: config.get(key, value) for key, value in GEMMA2.items()}
    n, pattern = config["num_hidden_layers"], keys.raw("attention.sliding_window_pattern", 6)
    if not isinstance(pattern, list | int):
        raise CheckpointError(f"{keys.where}: {arch}.attention.sliding_window_pattern is {pattern!r}; export the file again")
    near = pattern if isinstance(pattern, list) else [(i + 1) % max(pattern, 1) != 0 for i in range(n)]
    if "sliding_window" not in config:
        near = [False] * n
    return own | {"layer_types": ["sliding_attention" if one else "full_attention" for one in near]}


def _near_layers(config: Config) -> list[bool]:
    """Which layers see through a window."""
    kinds, every = config.get("layer_types"), config.get("sliding_window_pattern", 6)
    if kinds is None:
        return [(i + 1) % every != 0 for i in range(config["num_hidden_layers"])]
    return [kind == "sliding_attention" for kind in kinds]


def _deepseek2(config: Config, keys: Keys) -> Config:
    """Latent attention's widths, and which of the two routers: files before 2025 name the heads' widths without ``_mla``."""
    keys.only("expert_gating_func", 0, SOFTMAX, SIGMOID)
    keys.ignore("attention.head_count_kv", "attention.key_length", "attention.value_length")  # of the latent, where new
    rope = keys.needed("rope.dimension_count")
    wide = keys.number("attention.key_length_mla") or keys.needed("attention.key_length")
    v3 = keys.number("expert_gating_func") == SIGMOID
    own: Config = {
        "model_type": "deepseek_v3" if v3 else "deepseek_v2",
        "qk_rope_head_dim": rope,
        "qk_nope_head_dim": wide - rope,
        "v_head_dim": keys.number("attention.value_length_mla") or keys.needed("attention.value_length"),
        "q_lora_rank": config.get("q_lora_rank"),
        "norm_topk_prob": keys.truth("expert_weights_norm"),
        "n_shared_experts": config.get("n_shared_experts", 0),
        "first_k_dense_replace": config.get("first_k_dense_replace", 0),
        "routed_scaling_factor": config.get("routed_scaling_factor", 1.0),
        "n_group": config.get("n_group", 1),
        "topk_group": config.get("topk_group", 1),
    }
    if not v3:
        own["topk_method"] = "group_limited_greedy" if own["n_group"] > 1 else "greedy"
    return own


def _deepseek2_keys(config: Config) -> Config:
    rope, rank = config["qk_rope_head_dim"], config["kv_lora_rank"]
    v3 = config["model_type"] != "deepseek_v2"
    limited = v3 or config.get("topk_method") == "group_limited_greedy"
    return {
        "attention.head_count_kv": 1,
        "attention.key_length": rank + rope,
        "attention.value_length": rank,
        "attention.key_length_mla": config["qk_nope_head_dim"] + rope,
        "attention.value_length_mla": config["v_head_dim"],
        "expert_gating_func": SIGMOID if v3 else SOFTMAX,
        "expert_weights_norm": v3 and bool(config.get("norm_topk_prob", True)),
        "expert_shared_count": config.get("n_shared_experts") or 0,
        **({} if limited else {"expert_group_count": None, "expert_group_used_count": None}),
    }
