"""What GGUF calls a tensor and what its publisher calls it: one table an architecture, read in both directions.

    blk.3.attn_q.weight  <->  model.layers.3.self_attn.q_proj.weight

Where the numbers differ too, a move says how: llama.cpp pairs neighbouring channels in rope for some architectures, so that the
rows of q and k are permuted; Gemma's norms are stored with their one added; the experts of a layer are one tensor.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from chainrule.core.errors import CheckpointError, nearest
from chainrule.models.moves import Move, Permute, Tensors, Transpose

Config = Mapping[str, Any]

ENDS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
ATTENTION = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
QK_NORM = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
MLP = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
LLAMA = ATTENTION | MLP | {"ffn_norm": "post_attention_layernorm"}
GEMMA = ATTENTION | MLP | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}  # fmt: skip
MIXTRAL = ATTENTION | {
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate_inp": "block_sparse_moe.gate",
    "ffn_gate_exps": "block_sparse_moe.experts.w1",
    "ffn_down_exps": "block_sparse_moe.experts.w2",
    "ffn_up_exps": "block_sparse_moe.experts.w3",
}
QWEN3_MOE = (
    ATTENTION
    | QK_NORM
    | {
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate_inp": "mlp.gate",
        "ffn_gate_exps": "mlp.experts.gate_proj",
        "ffn_down_exps": "mlp.experts.down_proj",
        "ffn_up_exps": "mlp.experts.up_proj",
    }
)
PHI3 = {
    "attn_norm": "input_layernorm",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
}
GLM4 = ATTENTION | {
    "post_attention_norm": "post_self_attn_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
    "post_ffw_norm": "post_mlp_layernorm",
}
OLMO2 = QK_NORM | MLP | {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
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


@dataclass(frozen=True)
class Names:
    """The names themselves. ``blocks`` holds those of a layer, ``ends`` those before and after the layers."""

    blocks: Mapping[str, str]
    ends: Mapping[str, str] = field(default_factory=lambda: ENDS)
    prefix: str = "model.layers."

    def load(self, tensors: Tensors) -> Tensors:
        return {self.published(name): tensor for name, tensor in tensors.items()}

    def save(self, tensors: Tensors) -> Tensors:
        return {self.stored(name): tensor for name, tensor in tensors.items()}

    def published(self, name: str) -> str:
        """The publisher's name of a tensor of a GGUF file."""
        stem, _, kind = name.rpartition(".")
        if block := re.fullmatch(r"blk\.(\d+)\.(\w+)", stem):
            return f"{self.prefix}{block[1]}.{self._found(self.blocks, block[2], name)}.{kind}"
        return f"{self._found(self.ends, stem, name)}.{kind}"

    def stored(self, name: str) -> str:
        """GGUF's name of a published tensor."""
        stem, _, kind = name.rpartition(".")
        if layer := re.fullmatch(re.escape(self.prefix) + r"(\d+)\.(.+)", stem):
            return f"blk.{layer[1]}.{self._found(_inverse(self.blocks), layer[2], name)}.{kind}"
        return f"{self._found(_inverse(self.ends), stem, name)}.{kind}"

    def _found(self, table: Mapping[str, str], word: str, name: str) -> str:
        if word not in table:
            raise CheckpointError(f"the tensor {name!r} has no place in this architecture{nearest(word, table)}")
        return table[word]


def _inverse(table: Mapping[str, str]) -> dict[str, str]:
    return {published: stored for stored, published in table.items()}


@dataclass(frozen=True)
class Shift:
    """Numbers that are stored with ``by`` added."""

    pattern: str
    by: float

    def load(self, tensors: Tensors) -> Tensors:
        return {name: t - self.by if re.search(self.pattern, name) else t for name, t in tensors.items()}

    def save(self, tensors: Tensors) -> Tensors:
        return {name: t + self.by if re.search(self.pattern, name) else t for name, t in tensors.items()}


@dataclass(frozen=True)
class Experts:
    """Experts that are stored as one tensor ``e … …`` and published one by one: ``….experts.w1`` and ``….experts.0.w1``."""

    def load(self, tensors: Tensors) -> Tensors:
        out: Tensors = {}
        for name, tensor in tensors.items():
            if stack := re.fullmatch(r"(.+\.experts)\.(\w+\.\w+)", name):
                out |= {f"{stack[1]}.{e}.{stack[2]}": one for e, one in enumerate(tensor.unbind())}
            else:
                out[name] = tensor
        return out

    def save(self, tensors: Tensors) -> Tensors:
        out: Tensors = {}
        stacks: dict[str, dict[int, torch.Tensor]] = {}
        for name, tensor in tensors.items():
            if one := re.fullmatch(r"(.+\.experts)\.(\d+)\.(\w+\.\w+)", name):
                stacks.setdefault(f"{one[1]}.{one[3]}", {})[int(one[2])] = tensor
            else:
                out[name] = tensor
        return out | {name: torch.stack([stack[e] for e in range(len(stack))]) for name, stack in stacks.items()}


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


def _gemma(config: Config) -> tuple[Move, ...]:
    return (Shift(r"norm\.weight$", 1.0),)


def _gpt2(config: Config) -> tuple[Move, ...]:
    return (Transpose(r"\.(c_attn|c_proj|c_fc)\.weight$"),)


ARCHS = {
    "llama": Arch(Names(LLAMA), _neighbours),
    "mixtral": Arch(Names(MIXTRAL), lambda config: (*_neighbours(config), Experts())),
    "qwen2": Arch(Names(LLAMA)),
    "qwen3": Arch(Names(LLAMA | QK_NORM)),
    "qwen3moe": Arch(Names(QWEN3_MOE), lambda config: (Experts(),)),
    "gemma2": Arch(Names(GEMMA), _gemma),
    "gemma3": Arch(Names(GEMMA | QK_NORM), _gemma),
    "phi3": Arch(Names(PHI3)),
    "glm4": Arch(Names(GLM4)),
    "olmo2": Arch(Names(OLMO2)),
    "smollm3": Arch(Names(LLAMA), _neighbours),
    "gpt2": Arch(Names(GPT2, GPT2_ENDS, "transformer.h."), _gpt2),
}  # fmt: skip
"""llama.cpp's name of an architecture (``mixtral`` is its ``llama`` with experts) → names and moves."""
