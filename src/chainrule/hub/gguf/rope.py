"""How positions are turned, as GGUF's keys say it and as ``config.json`` does (``rope_parameters``, as in transformers 5).

Two scalings have no keys but tensors of how much slower each frequency turns: LLaMA 3's ``rope_freqs``, from which the four
numbers of the config are found again, and the two of Phi-3's LongRoPE, one for short rows and one for long ones.
"""

from collections.abc import Mapping
from typing import Any

import torch

from chainrule.core.errors import CheckpointError
from chainrule.core.shapes import Tensor
from chainrule.hub.build import parts
from chainrule.hub.gguf.keys import Keys
from chainrule.layers.rope import Rope
from chainrule.layers.scaling import Llama3, LongRope

Config = dict[str, Any]
Tables = Mapping[str, Tensor]
FREQS, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
HALF_TURNED = ("chatglm", "glm4", "glm4moe")
"""Architectures whose configs mean half of each head where they do not say how much of it turns."""
YARN = {"yarn_beta_fast": "beta_fast", "yarn_beta_slow": "beta_slow"}


def rope_of(arch: str, keys: Keys, width: int, tables: Tables) -> Config:
    """``rope_parameters`` of a file that holds these ``tables``, for heads of which ``width`` channels could turn."""
    if width < 1:
        raise CheckpointError(f"{keys.where} has more heads than channels, which leaves none to turn; export the file again")
    theta = keys.number("rope.freq_base") or 10000.0
    turned = keys.number("rope.dimension_count") or width
    rope: Config = {"rope_type": "default", "rope_theta": theta} | _scaling_of(arch, keys, theta, turned, tables)
    if turned != width or arch in HALF_TURNED:
        rope["partial_rotary_factor"] = turned / width
    near = keys.number("rope.freq_base_swa")
    if arch == "gemma3":
        windows = {"rope_type": "default", "rope_theta": near or 10000.0}
        return {"rope_parameters": {"full_attention": rope, "sliding_attention": windows}}
    if near not in (None, theta):
        raise CheckpointError(
            f"{keys.where} turns layers with a window by another base ({near:g}) than the others ({theta:g}), "
            f"which is not supported for {arch}"
        )
    return {"rope_parameters": rope}


def tables_read(arch: str) -> tuple[str, ...]:
    """The tensors of an architecture's files that belong to rope's settings and are no weights."""
    return {"phi3": (LONG, SHORT), "gpt2": ()}.get(arch, (FREQS,))


def _scaling_of(arch: str, keys: Keys, theta: float, turned: int, tables: Tables) -> Config:
    for name, table in tables.items():
        if table.shape != (turned // 2,) or not torch.all((table > 0) & table.isfinite()):
            raise CheckpointError(
                f"{keys.where}: {name} of shape {tuple(table.shape)} is no positive number for each of the {turned // 2} "
                "pairs of channels that turn; export the file again"
            )
    if not tables:
        return _scaled(arch, keys)
    keys.only("rope.scaling.factor", 0.0, 1.0)
    return _longrope(keys, tables) if arch == "phi3" else _llama3(keys, theta, tables[FREQS])


def _longrope(keys: Keys, tables: Tables) -> Config:
    """Phi-3's two lists, as they stand in the file."""
    if len(tables) != 2:
        raise CheckpointError(f"{keys.where} holds {min(tables)} alone; {LONG} and {SHORT} belong together, export it again")
    keys.only("rope.scaling.type", "none", "linear", "longrope")
    return {
        "rope_type": "longrope",
        "short_factor": tables[SHORT].tolist(),
        "long_factor": tables[LONG].tolist(),
        "original_max_position_embeddings": keys.needed("rope.scaling.original_context_length"),
        "attention_factor": keys.number("rope.scaling.attn_factor") or 1.0,
    }


def _scaled(arch: str, keys: Keys) -> Config:
    kind = keys.word("rope.scaling.type", "linear")
    factors = (keys.number("rope.scaling.factor"), keys.number("rope.scale_linear"))
    factor = next((one for one in factors if one), 1.0)
    keys.ignore(*(f"rope.scaling.{key}" for key in (*YARN, "yarn_log_multiplier")))  # which go with yarn alone
    if kind == "yarn":
        return _yarn(arch, keys, factor)
    if kind not in ("none", "linear"):
        raise CheckpointError(
            f"{keys.where} scales rope by {kind!r}; only linear, yarn, the factors of LLaMA 3 and those of Phi-3 can be read"
        )
    return {} if factor == 1 or kind == "none" else {"rope_type": "linear", "factor": factor}


def _yarn(arch: str, keys: Keys, factor: float) -> Config:
    original = keys.needed("rope.scaling.original_context_length")
    rope: Config = {"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}
    rope |= {name: value for key, name in YARN.items() if (value := keys.number(f"rope.scaling.{key}"))}
    keys.only("rope.scaling.yarn_ext_factor", -1.0, 1.0)
    if arch == "gpt-oss":
        rope["truncate"] = False
    if (attention_factor := keys.number("rope.scaling.yarn_attn_factor")) is not None:
        rope["attention_factor"] = attention_factor
    if (multiplier := keys.number("rope.scaling.yarn_log_multiplier")) is not None:
        rope |= dict.fromkeys(("mscale", "mscale_all_dim"), round(10 * multiplier, 6))  # the file holds a tenth of it
    return rope


def rope_keys(arch: str, config: Config, width: int) -> Config:
    """The keys that say a config's rope."""
    rope = rope_parameters(config)
    near = rope.get("sliding_attention")
    rope = rope.get("full_attention", rope)
    kind = rope.get("rope_type", rope.get("type", "default"))
    keys: Config = {"rope.freq_base": float(rope["rope_theta"]), "rope.dimension_count": _turned(arch, config, rope, width)}
    if arch == "gemma3":
        keys["rope.freq_base_swa"] = float(near["rope_theta"] if near else config.get("rope_local_base_freq", 10000.0))
    if (long := long_rope(arch, config)) is not None:
        return keys | {"rope.scaling.original_context_length": long.original, "rope.scaling.attn_factor": long.attention_factor}
    if kind in ("linear", "yarn"):
        keys |= {"rope.scaling.type": kind, "rope.scaling.factor": float(rope["factor"])}
    if kind in ("yarn", "llama3"):
        original = rope.get("original_max_position_embeddings") or config["max_position_embeddings"]
        keys["rope.scaling.original_context_length"] = original
    if kind == "yarn":
        keys |= {f"rope.scaling.{key}": float(rope[name]) for key, name in YARN.items() if rope.get(name)}
        if arch == "deepseek2" and rope.get("mscale_all_dim"):
            keys["rope.scaling.yarn_log_multiplier"] = 0.1 * rope["mscale_all_dim"]
    return keys


def long_rope(arch: str, config: Mapping[str, Any]) -> LongRope | None:
    """Phi-3's scaling, which published configs call by several names; None where there is another one or none."""
    position = parts(config).position if arch == "phi3" else None
    return position.scaling if isinstance(position, Rope) and isinstance(position.scaling, LongRope) else None


def rope_tables(arch: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors that say a config's rope where keys cannot."""
    if (long := long_rope(arch, config)) is not None:
        return {LONG: torch.tensor(long.long), SHORT: torch.tensor(long.short)}
    rope = parts(config).position
    if FREQS in tables_read(arch) and isinstance(rope, Rope) and isinstance(rope.scaling, Llama3):
        return {FREQS: _factors(rope.scaling, rope.theta, rope.d_rotary or rope_width(config))}
    return {}


def rope_width(config: Mapping[str, Any]) -> int:
    """The channels of a head that rope could turn."""
    channels = config.get("qk_rope_head_dim") or config.get("head_dim")
    return channels or config["hidden_size"] // config["num_attention_heads"]


def _turned(arch: str, config: Config, rope: Config, width: int) -> int:
    """How many channels of a head turn."""
    if config.get("rotary_dim"):
        return config["rotary_dim"]
    share = rope.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    return int(width * (share if share is not None else 0.5 if arch in HALF_TURNED else 1.0))


def rope_parameters(config: Mapping[str, Any]) -> Config:
    """Rope in the style of transformers 5, from a config of either style."""
    new = config.get("rope_parameters")
    theta = config.get("rope_theta", 1e6 if str(config.get("model_type")).startswith("gemma3") else 10000.0)
    return dict(new) if new else {"rope_theta": theta, **(config.get("rope_scaling") or {})}


# the factors of LLaMA 3


def _factors(scaling: Llama3, theta: float, turned: int) -> Tensor:
    """How much slower each pair of the ``turned`` channels turns; reckoned in float64, so that 3 stays 3."""
    plain = Rope(theta=theta).frequencies(turned, 1).double()
    return (plain / scaling.apply(plain, theta, 1)).float()


def _llama3(keys: Keys, theta: float, factors: Tensor) -> Config:
    """LLaMA 3's four numbers, of which the file holds the factors that they lead to: found, then checked."""
    keys.only("rope.scaling.type", "none", "linear")
    if torch.all(factors == 1):
        return {}
    original = int(keys.number("rope.scaling.original_context_length") or 8192)
    factor = max(1.0, float(factors.max()))
    for high in (4.0, 1.0):  # LLaMA 3, and Llama 4 Scout
        scaling = Llama3(factor=factor, high=high, original=original)
        if torch.allclose(factors, _factors(scaling, theta, 2 * len(factors)), rtol=1e-4):
            break
    else:
        raise CheckpointError(
            f"{keys.where}: rope_freqs holds factors that are not LLaMA 3's for {original} tokens; not supported"
        )
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low,
        "high_freq_factor": scaling.high,
        "original_max_position_embeddings": original,
    }
