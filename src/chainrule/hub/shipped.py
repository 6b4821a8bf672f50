"""Configs that ship: the ``config.json`` of well-known models, so that their cost and their parts are known with no network.

Each file in ``configs/`` says what was published under the first of its names, weights not included: all that its parts and
their cost follow from. Imports no torch.
"""

import json
from pathlib import Path
from typing import Any

from chainrule.core.errors import CheckpointError, closest, perhaps

FOLDER = Path(__file__).parent / "configs"

SHIPPED = {
    "llama-3.1-8b": ("meta-llama/Llama-3.1-8B", "meta-llama/Meta-Llama-3.1-8B"),
    "llama-3.1-8b-instruct": ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3.1-8B-Instruct"),
    "llama-3.1-70b-instruct": ("meta-llama/Llama-3.1-70B-Instruct", "meta-llama/Meta-Llama-3.1-70B-Instruct"),
    "llama-3.2-1b": ("meta-llama/Llama-3.2-1B",),
    "gpt2": ("openai-community/gpt2",),
    "gpt-oss-20b": ("openai/gpt-oss-20b",),
    "mistral-7b-v0.1": ("mistralai/Mistral-7B-v0.1",),
    "mixtral-8x7b-v0.1": ("mistralai/Mixtral-8x7B-v0.1",),
    "qwen2.5-7b-instruct": ("Qwen/Qwen2.5-7B-Instruct",),
    "qwen3-0.6b": ("Qwen/Qwen3-0.6B",),
    "qwen3-8b": ("Qwen/Qwen3-8B",),
    "qwen3-30b-a3b": ("Qwen/Qwen3-30B-A3B",),
    "gemma-2-2b": ("google/gemma-2-2b",),
    "gemma-3-1b-it": ("google/gemma-3-1b-it",),
    "phi-3-mini-4k-instruct": ("microsoft/Phi-3-mini-4k-instruct",),
    "deepseek-v3": ("deepseek-ai/DeepSeek-V3",),
    "kimi-k2-instruct": ("moonshotai/Kimi-K2-Instruct",),
    "glm-4-9b-0414": ("zai-org/GLM-4-9B-0414", "THUDM/GLM-4-9B-0414"),
    "glm-4.5-air": ("zai-org/GLM-4.5-Air",),
    "ernie-4.5-0.3b-pt": ("baidu/ERNIE-4.5-0.3B-PT",),
    "ernie-4.5-21b-a3b-pt": ("baidu/ERNIE-4.5-21B-A3B-PT",),
    "minimax-m2": ("MiniMaxAI/MiniMax-M2",),
    "llama-4-scout-17b-16e": ("meta-llama/Llama-4-Scout-17B-16E",),
    "olmo-2-1124-7b": ("allenai/OLMo-2-1124-7B",),
    "smollm3-3b": ("HuggingFaceTB/SmolLM3-3B",),
}
"""File in ``configs/`` → the ids it is published under."""


def shipped_names() -> list[str]:
    """The ids of all configs that ship, as they are published."""
    return sorted(name for names in SHIPPED.values() for name in names)


def is_shipped(name: str) -> bool:
    """Whether the config of this id ships; case and the organisation do not matter."""
    return _file(name) is not None


def shipped_config(name: str) -> dict[str, Any]:
    """The published ``config.json`` of an id; raises ``CheckpointError`` naming the nearest that ships.

    >>> shipped_config("meta-llama/Meta-Llama-3.1-8B-Instruct")["hidden_size"]
    4096
    """
    file = _file(name)
    if file is None:
        raise CheckpointError(f"the config of {name!r} does not ship{nearest_shipped(name)}")
    return json.loads((FOLDER / f"{file}.json").read_text(encoding="utf-8"))


def published_name(name: str) -> str | None:
    """The whole id of a name that ships, with its organisation.

    >>> published_name("qwen3-8b")
    'Qwen/Qwen3-8B'
    """
    file = _file(name)
    return None if file is None else SHIPPED[file][0]


def nearest_shipped(name: str) -> str:
    """A hint that names the nearest id that ships, with its organisation where ``name`` has one, or an example."""
    names = shipped_names() if "/" in name else [known.rpartition("/")[2] for known in shipped_names()]
    return perhaps(closest(name, names)) or ", such as meta-llama/Llama-3.1-8B-Instruct"


def _file(name: str) -> str | None:
    """The file of an id, or of the part of it after the organisation."""
    wanted = name.lower()
    for file, names in SHIPPED.items():
        for known in names:
            if wanted in (known.lower(), known.lower().rpartition("/")[2]):
                return file
    return None
