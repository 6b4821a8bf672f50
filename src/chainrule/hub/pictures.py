"""Checkpoints that hold a text model among parts for pictures: of these the text model alone is read.

Gemma 3 from 4B on and Llama 4 are published so: ``config.json`` holds a ``text_config``, and the text model's tensors are named
``language_model.model.…``, or ``model.language_model.…`` by newer programs. What is saved is the text model.
"""

from collections.abc import Mapping
from typing import Any

from chainrule.core.errors import CheckpointError
from chainrule.models.moves import Drop, Move, Older

TEXT_MODELS = {"gemma3": "gemma3_text", "llama4": "llama4_text"}
"""The ``model_type`` of such a checkpoint → that of its text model."""
ARCHITECTURES = {"gemma3": "Gemma3ForCausalLM", "llama4": "Llama4ForCausalLM"}
"""What the text model alone is called, by which vLLM and llama.cpp's converter know it."""
OF_THE_WHOLE = ("quantization_config", "tie_word_embeddings")
"""What a config may say beside its ``text_config`` and mean of the text model too; what that says itself comes first."""
USUAL: Mapping[str, Mapping[str, Any]] = {
    "gemma3": {"vocab_size": 262208, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
               "max_position_embeddings": 131072, "rms_norm_eps": 1e-6},
    "llama4": {},
}  # fmt: skip
"""What a published ``text_config`` does not say where it is the family's usual."""


def has_pictures(config: Mapping[str, Any]) -> bool:
    """Whether a config is that of a text model among parts for pictures."""
    kind = config.get("model_type")
    return isinstance(kind, str) and kind in TEXT_MODELS


def text_alone(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of the text model; any other config is itself."""
    if not has_pictures(config):
        return dict(config)
    kind, text = config["model_type"], config.get("text_config")
    if not isinstance(text, Mapping):
        raise CheckpointError(f"config.json (model_type {kind!r}) holds no text_config; copy it again from where it came")
    shared = {key: config[key] for key in OF_THE_WHOLE if key in config}
    return {**USUAL[kind], **shared, **text, "model_type": TEXT_MODELS[kind], "architectures": [ARCHITECTURES[kind]]}


def unwrapping(config: Mapping[str, Any]) -> tuple[Move, ...]:
    """The moves that leave the text model's tensors, under the names that they have alone."""
    if not has_pictures(config):
        return ()
    pictures = Drop(r"^(model\.)?(vision_tower|vision_model|multi_modal_projector)\.")
    return (pictures, Older("model.language_model.", "model."), Older("language_model.", ""))
