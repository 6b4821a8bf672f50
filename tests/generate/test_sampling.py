"""What the engine draws, over many seeds, has the shares that the filters say; greedy text with a penalty is transformers'."""

import pytest
import torch

from chainrule.generate.engine import Engine, Request, run
from chainrule.hub.load import load
from chainrule.logprobs.filters import MinP, Temperature, TopK, TopP
from tests.logprobs.toys import Bigram
from tests.models.parity import checkpoint

SHARES = torch.tensor([0.04, 0.4, 0.1, 0.25, 0.06, 0.15])
SETTINGS = {
    "as it is": ({}, []),
    "temperature": ({"temperature": 0.5}, [Temperature(0.5)]),
    "top_k": ({"top_k": 4}, [TopK(4)]),
    "top_p": ({"top_p": 0.7}, [TopP(0.7)]),
    "min_p": ({"min_p": 0.5}, [MinP(0.5)]),
    # of these four words are left; with top_p before top_k it would be five
    "all": (
        {"temperature": 2.0, "top_k": 5, "top_p": 0.85, "min_p": 0.3},
        [Temperature(2.0), TopK(5), TopP(0.85), MinP(0.3)],
    ),
}
SEEDS = 350


@pytest.fixture(scope="module")
def drawn():
    """Two words for each seed and setting, of a model that says the same after every word; all rows run together."""
    model = Bigram(SHARES.log().expand(6, 6).clone())
    requests = [Request(tokens=[0], max_tokens=2, seed=s, **asked) for asked, _ in SETTINGS.values() for s in range(SEEDS)]
    said = torch.tensor([[event.token for event in events] for events in run(Engine(model, rows=len(requests)), requests)])
    return dict(zip(SETTINGS, said.split(SEEDS), strict=True))


def expected(name):
    logp = SHARES.log()[None]
    for filter in SETTINGS[name][1]:
        logp = filter(logp)
    return logp[0].exp()


@pytest.mark.parametrize("name", SETTINGS)
def test_words_are_drawn_as_often_as_the_filters_say(name, drawn):
    p = expected(name)
    found = drawn[name].flatten().bincount(minlength=6) / (2 * SEEDS)
    assert not found[p == 0].any()
    assert ((found - p).abs() <= 3.5 * (p * (1 - p) / (2 * SEEDS)).sqrt()).all(), (found, p)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_seed_draws_each_word_anew(name, drawn):
    same = float((drawn[name][:, 0] == drawn[name][:, 1]).float().mean())
    p = float(expected(name).square().sum())
    assert abs(same - p) <= 3.5 * (p * (1 - p) / SEEDS) ** 0.5


def test_a_seed_says_the_same_again_and_another_something_else():
    model = Bigram(torch.randn(6, 6, generator=torch.Generator().manual_seed(0)))
    first, again, other = run(Engine(model), [Request(tokens=[0], max_tokens=20, seed=seed) for seed in (1, 1, 2)])
    assert [event.token for event in first] == [event.token for event in again] != [event.token for event in other]


def greedy(model, prompt, penalty=1.0):
    request = Request(tokens=prompt, max_tokens=12, temperature=0.0, repetition_penalty=penalty)
    return [event.token for event in run(Engine(model), [request])[0]]


@torch.no_grad()
def test_a_greedy_text_with_a_penalty_is_that_of_transformers_and_the_prompt_counts(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(vocab_size=61, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                      num_attention_heads=4, max_position_embeddings=64)  # fmt: skip
    theirs, ours = checkpoint(tmp_path, config), load(tmp_path).model
    prompt = [7, 3, 9]
    prompt = [*greedy(ours, prompt)[:6], *prompt]  # what the model likes to say has been said
    settings = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0, "attention_mask": torch.ones(1, len(prompt))}
    told = theirs.generate(torch.tensor([prompt]), max_new_tokens=12, repetition_penalty=1.3, **settings)
    assert greedy(ours, prompt, 1.3) == told[0, len(prompt) :].tolist() != greedy(ours, prompt)
