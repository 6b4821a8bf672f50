"""A GGUF file's numbers under the name of its architecture, each checked to be of the kind that is wanted.

What was asked for is remembered: a key that nobody reads may say that this is another model, and is an error in the end.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from chainrule.core.errors import CheckpointError, nearest

FRACTIONS = ("epsilon", "softcapping", "freq_base", "freq_base_swa", "factor", "scale_linear", "beta_fast", "beta_slow",
             "weights_scale", "log_multiplier")  # fmt: skip
"""Endings of keys that hold fractions; all others hold whole numbers."""
FROM_ZERO = ("leading_dense_block_count", "expert_shared_count")
LARGEST = 1 << 24
HARMLESS = {
    "vocab_size", "expert_shared_feed_forward_length", "tensor_data_layout", "pooling_type", "rope.scaling.finetuned",
    "rope.scaling.original_context_length", "attention.layer_norm_epsilon",
}  # fmt: skip
"""Keys that say what the tensors say too, how the model was made, or what only goes with another key."""
NEUTRAL = {
    "attention.causal": True, "logit_scale": 1.0, "residual_scale": 1.0, "embedding_scale": 1.0, "expert_weights_scale": 1.0,
    "expert_group_count": 1, "expert_group_used_count": 1, "rope.scaling.attn_factor": 1.0,
}  # fmt: skip
"""Keys with the one value, beside 0, that asks for nothing where the architecture does not read them."""


class Keys:
    """What a file says; ``where`` names it in errors."""

    def __init__(self, metadata: Mapping[str, Any], arch: str, where: object) -> None:
        self.metadata, self.arch, self.where = metadata, arch, where
        self.known: set[str] = set()

    def number(self, key: str) -> Any:
        """A number, or None where there is none or it is zero, which many files write for none.

        Whole numbers lie between 1 and ``LARGEST``; fractions come in the short spelling of float32, 1e-05 and not 9.99…e-06.
        """
        value = self._one(key)
        if value is None or (value == 0 and not key.endswith(FROM_ZERO)):
            return None
        if key.endswith(FRACTIONS):
            if isinstance(value, int | float) and math.isfinite(value):
                return float(str(np.float32(value)))
        elif type(value) is int and 0 <= value <= LARGEST:
            return value
        raise CheckpointError(f"{self.where}: {self.arch}.{key} is {value!r}, which cannot be; export the file again")

    def needed(self, key: str) -> Any:
        """A number that the file must hold."""
        value = self.number(key)
        if value is None:
            raise CheckpointError(f"{self.where} lacks the key {self.arch}.{key}; export it again")
        return value

    def word(self, key: str, default: str) -> str:
        """A text."""
        return str(self._one(key) or default)

    def truth(self, key: str) -> bool:
        """Whether the file says so; what it does not say is not so."""
        return self._one(key) is True

    def raw(self, key: str, default: Any) -> Any:
        """The value as it stands."""
        self.known.add(key)
        return self.metadata.get(f"{self.arch}.{key}", default)

    def only(self, key: str, *values: Any) -> None:
        """Refuse what is not implemented: a file may leave the key out, or say one of these."""
        value = self._one(key)
        if value is not None and value not in values:
            right = " or ".join(map(repr, values)) or "none at all"
            raise CheckpointError(f"{self.where}: {self.arch}.{key} is {value!r}, which is not supported; {right} is")

    def ignore(self, *keys: str) -> None:
        """Keys that are known and change nothing here."""
        self.known |= set(keys)

    def done(self) -> None:
        """Refuse every key of the architecture that nobody read, unless its value asks for nothing."""
        for name, value in self.metadata.items():
            key = name.removeprefix(f"{self.arch}.")
            if key == name or key in self.known | HARMLESS or value == NEUTRAL.get(key) or _is_zero(value):
                continue
            raise CheckpointError(
                f"{self.where} has a key that changes the model and is not read here: {name} = {str(value)[:60]}"
                f"{nearest(key, self.known)}"
            )

    def _one(self, key: str) -> Any:
        value = self.raw(key, None)
        if not isinstance(value, list):
            return value
        if not value or any(one != value[0] for one in value):
            raise CheckpointError(f"{self.where}: {self.arch}.{key} differs from layer to layer, which is not supported")
        return value[0]


def _is_zero(value: Any) -> bool:
    return type(value) in (int, float) and value == 0
