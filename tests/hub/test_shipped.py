"""Shipped configs build models of exactly the published size."""

import pytest
import torch

from chainrule.core.errors import CheckpointError
from chainrule.hub.build import build
from chainrule.hub.shipped import FOLDER, SHIPPED, is_shipped, shipped_config, shipped_names

PUBLISHED = {
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Meta-Llama-3.1-8B-Instruct": 8_030_261_248,
    "meta-llama/Llama-3.1-70B-Instruct": 70_553_706_496,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
}
"""The number of parameters on each model's page (a tied head is counted once)."""


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_shipped_config_builds_a_model_of_the_published_size(name):
    with torch.device("meta"):
        model = build(shipped_config(name))
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED[name]


def test_every_file_has_names_and_a_published_size():
    assert {path.stem for path in FOLDER.glob("*.json")} == set(SHIPPED)
    counted = {file for file, names in SHIPPED.items() if set(names) & set(PUBLISHED)}
    assert counted == set(SHIPPED)


def test_llama_8b_is_the_published_one_in_tensors_and_bytes():
    with torch.device("meta"):
        state = build(shipped_config("llama-3.1-8b-instruct")).state_dict()
    assert len(state) == 291
    assert round(sum(2 * tensor.numel() for tensor in state.values()) / 1e9, 2) == 16.06


def test_names_match_whatever_their_case_and_a_misspelt_one_is_told_the_nearest():
    assert is_shipped("META-LLAMA/llama-3.2-1b")
    assert is_shipped("Llama-3.1-8B-Instruct")
    assert not is_shipped("runs/quickstart")
    assert len(shipped_names()) == len({name.lower() for name in shipped_names()})
    with pytest.raises(CheckpointError, match=r"did you mean 'meta-llama/Llama-3\.2-1B'"):
        shipped_config("meta-llama/Lama-3.2-1B")
