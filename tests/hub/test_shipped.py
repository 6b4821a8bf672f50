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
    "openai-community/gpt2": 124_439_808,
    "openai/gpt-oss-20b": 20_914_757_184,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "mistralai/Mixtral-8x7B-v0.1": 46_702_792_704,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-30B-A3B": 30_532_122_624,
    "google/gemma-2-2b": 2_614_341_888,
    "google/gemma-3-1b-it": 999_885_952,
    "microsoft/Phi-3-mini-4k-instruct": 3_821_079_552,
    "deepseek-ai/DeepSeek-V3": 671_026_419_200,
    "moonshotai/Kimi-K2-Instruct": 1_026_408_232_448,
    "zai-org/GLM-4-9B-0414": 9_400_279_040,
    "zai-org/GLM-4.5-Air": 106_852_251_264,
    "baidu/ERNIE-4.5-0.3B-PT": 360_748_032,
    "baidu/ERNIE-4.5-21B-A3B-PT": 21_825_437_888,
    "MiniMaxAI/MiniMax-M2": 228_703_644_928 - 13_880_064,
    "meta-llama/Llama-4-Scout-17B-16E": 108_641_793_536 - 871_932_416,
    "allenai/OLMo-2-1124-7B": 7_298_617_344,
    "HuggingFaceTB/SmolLM3-3B": 3_075_098_624,
}
"""The published sizes: a tied head counted once, routers' corrections too, the layers that guess several tokens ahead not.

MiniMax-M2's file holds a scale for each 128 × 128 weights in eight bits besides, and Llama 4's what reads pictures.
"""


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_shipped_config_builds_a_model_of_the_published_size(name):
    with torch.device("meta"):
        model = build(shipped_config(name))
    assert sum(tensor.numel() for tensor in model.state_dict().values()) == PUBLISHED[name]


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
