"""What GGUF calls a tensor and what its publisher calls it: one table an architecture, read in both directions.

    blk.3.attn_q.weight  <->  model.layers.3.self_attn.q_proj.weight

Where the numbers differ too, a move says how: llama.cpp pairs neighbouring channels in rope for some architectures, so that the
rows of q and k are permuted; Gemma's norms are stored with their one added; the experts of a layer are one tensor.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chainrule.hub.gguf.moves import LatentHeads, Names, Shift
from chainrule.models.moves import Flatten, Interleave, Inverse, Move, Permute, Split, Stack, Transpose

Config = Mapping[str, Any]

ATTENTION = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
QK_NORM = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
NORM = {"ffn_norm": "post_attention_layernorm"}
MLP = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
LLAMA = ATTENTION | NORM | MLP
GEMMA = ATTENTION | MLP | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}  # fmt: skip
PHI3 = NORM | {
    "attn_norm": "input_layernorm",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
}
CHATGLM = ATTENTION | NORM | {
    "attn_qkv": "self_attn.qkv_proj",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip
GLM4 = ATTENTION | NORM | {
    "post_attention_norm": "post_self_attn_layernorm",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
    "post_ffw_norm": "post_mlp_layernorm",
}  # fmt: skip
OLMO2 = {name: published for name, published in ATTENTION.items() if name != "attn_norm"} | QK_NORM | MLP | {
    "post_attention_norm": "post_attention_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}  # fmt: skip
GPT2 = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
GPT2_ENDS = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
}

# mixtures of experts

EXPERTS = {
    "ffn_gate_inp": "mlp.gate",
    "ffn_gate_exps": "mlp.experts.gate_proj",
    "ffn_down_exps": "mlp.experts.down_proj",
    "ffn_up_exps": "mlp.experts.up_proj",
}
SHARED = {
    "ffn_gate_shexp": "mlp.shared_experts.gate_proj",
    "ffn_down_shexp": "mlp.shared_experts.down_proj",
    "ffn_up_shexp": "mlp.shared_experts.up_proj",
}
CORRECTED = EXPERTS | SHARED | {"exp_probs_b.bias": "mlp.gate.e_score_correction_bias"}
MIXTRAL = ATTENTION | NORM | {
    "ffn_gate_inp": "block_sparse_moe.gate",
    "ffn_gate_exps": "block_sparse_moe.experts.w1",
    "ffn_down_exps": "block_sparse_moe.experts.w2",
    "ffn_up_exps": "block_sparse_moe.experts.w3",
}  # fmt: skip
MINIMAX = MIXTRAL | QK_NORM | {"exp_probs_b.bias": "block_sparse_moe.e_score_correction_bias"}
GLM4_MOE = ATTENTION | QK_NORM | MLP | CORRECTED | {"post_attention_norm": "post_attention_layernorm"}
ERNIE_MOE = LLAMA | EXPERTS | SHARED | {"exp_probs_b.bias": "mlp.moe_statics.e_score_correction_bias"}
DEEPSEEK2 = NORM | MLP | CORRECTED | {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_q_a": "self_attn.q_a_proj",
    "attn_q_a_norm": "self_attn.q_a_layernorm",
    "attn_q_b": "self_attn.q_b_proj",
    "attn_kv_a_mqa": "self_attn.kv_a_proj_with_mqa",
    "attn_kv_a_norm": "self_attn.kv_a_layernorm",
    "attn_kv_b": "self_attn.kv_b_proj",
    "attn_k_b": "self_attn.k_b_proj",
    "attn_v_b": "self_attn.v_b_proj",
    "attn_output": "self_attn.o_proj",
}  # fmt: skip
LLAMA4 = ATTENTION | NORM | {
    "ffn_gate": "feed_forward.gate_proj",
    "ffn_up": "feed_forward.up_proj",
    "ffn_down": "feed_forward.down_proj",
    "ffn_gate_inp": "feed_forward.router",
    "ffn_gate_exps.weight": "feed_forward.experts.gate_proj",
    "ffn_up_exps.weight": "feed_forward.experts.up_proj",
    "ffn_down_exps.weight": "feed_forward.experts.down_proj",
    "ffn_gate_shexp": "feed_forward.shared_expert.gate_proj",
    "ffn_up_shexp": "feed_forward.shared_expert.up_proj",
    "ffn_down_shexp": "feed_forward.shared_expert.down_proj",
}  # fmt: skip
GPT_OSS = ATTENTION | {
    "attn_sinks.weight": "self_attn.sinks",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_gate_inp": "mlp.router",
    "ffn_gate_exps.weight": "mlp.experts.gate_proj",
    "ffn_up_exps.weight": "mlp.experts.up_proj",
    "ffn_down_exps.weight": "mlp.experts.down_proj",
    "ffn_gate_exps.bias": "mlp.experts.gate_proj_bias",
    "ffn_up_exps.bias": "mlp.experts.up_proj_bias",
    "ffn_down_exps.bias": "mlp.experts.down_proj_bias",
}  # fmt: skip


@dataclass(frozen=True)
class Arch:
    """An architecture of llama.cpp: the names, and the moves that the numbers need, given the published config."""

    names: Names
    moves: Callable[[Config], Sequence[Move]] = lambda config: ()

    def to_published(self, config: Config) -> tuple[Move, ...]:
        """The moves that lead from the file to the publisher's tensors."""
        return (self.names, *self.moves(config))


def _neighbours(config: Config) -> tuple[Move, ...]:
    """Rope pairs neighbours in the file and halves in what is published."""
    h = config["num_attention_heads"]
    return (Permute([(r"q_proj\.\w+$", h), (r"k_proj\.\w+$", config.get("num_key_value_heads") or h)]),)


def _one_by_one(config: Config) -> tuple[Move, ...]:
    """Experts are one tensor in the file, and published one by one."""
    names = ("gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")
    return tuple(Inverse(Stack(f".experts.{{e}}.{name}.weight", f".experts.{name}.weight")) for name in names)


def _ernie_moe(config: Config) -> tuple[Move, ...]:
    return (*_one_by_one(config), Inverse(Flatten(r"e_score_correction_bias$")))


def _deepseek2(config: Config) -> tuple[Move, ...]:
    return (*_one_by_one(config), LatentHeads(config["num_attention_heads"], config["qk_nope_head_dim"]))


def _llama4(config: Config) -> tuple[Move, ...]:
    gate, up, f = "experts.gate_proj", "experts.up_proj", config["intermediate_size"]
    return (Inverse(Split("experts.gate_up_proj", (gate, up), (f, f), dim=1)), Transpose(r"experts\.(gate_up|down)_proj$"))


def _gpt_oss(config: Config) -> tuple[Move, ...]:
    fused = (("experts.gate_up_proj", ""), ("experts.gate_up_proj_bias", "_bias"))
    moves = (Interleave(name, (f"experts.gate_proj{end}", f"experts.up_proj{end}"), dim=1) for name, end in fused)
    return (*map(Inverse, moves), Transpose(r"experts\.(gate_up|down)_proj$"))


def _chatglm(config: Config) -> tuple[Move, ...]:
    """Queries, keys and values may be one tensor in the file."""
    d, h = config["head_dim"], config["num_attention_heads"]
    n = config.get("num_key_value_heads") or h
    ends = ("weight", "bias") if config.get("attention_bias", True) else ("weight",)
    parts = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    return tuple(
        Split(f"self_attn.qkv_proj.{end}", tuple(f"{part}.{end}" for part in parts), (h * d, n * d, n * d)) for end in ends
    )


def _gemma(config: Config) -> tuple[Move, ...]:
    return (Shift(r"norm\.weight$", 1.0),)


def _gpt2(config: Config) -> tuple[Move, ...]:
    return (Transpose(r"\.(c_attn|c_proj|c_fc)\.weight$"),)


ARCHS = {
    "llama": Arch(Names(LLAMA), _neighbours),
    "mixtral": Arch(Names(MIXTRAL), lambda config: (*_neighbours(config), *_one_by_one(config))),
    "qwen2": Arch(Names(LLAMA)),
    "qwen3": Arch(Names(LLAMA | QK_NORM)),
    "qwen3moe": Arch(Names(LLAMA | QK_NORM | EXPERTS), _one_by_one),
    "gemma2": Arch(Names(GEMMA), _gemma),
    "gemma3": Arch(Names(GEMMA | QK_NORM), _gemma),
    "deepseek2": Arch(Names(DEEPSEEK2), _deepseek2),
    "phi3": Arch(Names(PHI3)),
    "chatglm": Arch(Names(CHATGLM), _chatglm),
    "glm4": Arch(Names(GLM4)),
    "glm4moe": Arch(Names(GLM4_MOE), _one_by_one),
    "ernie4_5": Arch(Names(LLAMA)),
    "ernie4_5-moe": Arch(Names(ERNIE_MOE), _ernie_moe),
    "minimax-m2": Arch(Names(MINIMAX), _one_by_one),
    "llama4": Arch(Names(LLAMA4), _llama4),
    "olmo2": Arch(Names(OLMO2)),
    "smollm3": Arch(Names(LLAMA), _neighbours),
    "gpt-oss": Arch(Names(GPT_OSS), _gpt_oss),
    "gpt2": Arch(Names(GPT2, GPT2_ENDS, "transformer.h."), _gpt2),
}
"""llama.cpp's name of an architecture (``mixtral`` is its ``llama`` with experts) → names and moves."""
