"""A GGUF file's numbers under the name of its architecture, each checked to be of the kind that is wanted."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from chainrule.core.errors import CheckpointError

FRACTIONS = ("epsilon", "softcapping", "freq_base", "freq_base_swa", "factor", "scale_linear", "beta_fast", "beta_slow",
             "weights_scale", "log_multiplier")  # fmt: skip
"""Endings of keys that hold fractions; all others hold whole numbers."""
FROM_ZERO = ("leading_dense_block_count", "expert_shared_count")
LARGEST = 1 << 24


class Said:
    """What a file says; ``where`` names it in errors."""

    def __init__(self, metadata: Mapping[str, Any], arch: str, where: object) -> None:
        self.metadata, self.arch, self.where = metadata, arch, where

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
        return self.metadata.get(f"{self.arch}.{key}", default)

    def _one(self, key: str) -> Any:
        value = self.metadata.get(f"{self.arch}.{key}")
        if not isinstance(value, list):
            return value
        if not value or any(one != value[0] for one in value):
            raise CheckpointError(f"{self.where}: {self.arch}.{key} differs from layer to layer, which is not supported")
        return value[0]
