"""PEFT's adapter folders, read and written: ``adapter_config.json`` and ``adapter_model.safetensors``.

    base_model.model.<module>.lora_A.weight   r × in          base_model.model.<module>.lora_B.weight   out × r
    base_model.model.<module>.lora_magnitude_vector   out     (DoRA)
    base_model.model.<module>.weight          a module of ``modules_to_save``, whole

Adapters of an embedding table become a part of it (``tables``), and are written as a module that is whole.

Modules carry their published names; the family's moves say where they are here. A matrix that is published whole and stands in
parts here (Phi-3's q, k and v) has its B cut like its rows, and A for each part.

https://huggingface.co/docs/peft/developer_guides/checkpoint
"""

from chainrule.hub.peft.read import read_adapter
from chainrule.hub.peft.write import write_adapter

__all__ = ["read_adapter", "write_adapter"]
