"""What every published family is held to: the logits and the greedy text of transformers, there and back."""

import json

import pytest
import torch
from torch.testing import assert_close

from chainrule.core.datum import Layout
from chainrule.generate.engine import Engine, Request
from chainrule.hub.load import load
from chainrule.hub.save import save

T = 17


def close(ours, theirs):
    assert_close(ours, theirs, atol=1e-4, rtol=0)


def checkpoint(folder, config, seed=0, std=0.2, **save_as):
    """A random checkpoint written by transformers, every tensor larger than at birth, so that nothing hides."""
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval().float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "inv_freq" in name or name.endswith("embed_scale") or not tensor.is_floating_point():
                continue
            mean = 1.0 if name.endswith("weight") and tensor.ndim == 1 and "gemma" not in config.model_type else 0.0
            tensor.copy_(mean + std * torch.randn(tensor.shape, generator=generator))
    model.save_pretrained(folder, **save_as)
    return model


@torch.no_grad()
def the_same_model(ours, theirs, vocab=61, t=T, left=True):
    """Logits whole, of one token, with left padding, packed, through a cache in pieces; and greedy text."""
    tokens = torch.randint(vocab, (3, t), generator=torch.Generator().manual_seed(3))
    expected = theirs(tokens).logits
    close(ours(tokens), expected)
    close(ours(tokens[:, :1]), theirs(tokens[:, :1]).logits)

    cache = ours.cache(3, t)
    close(torch.cat([ours(part, cache) for part in tokens.split([9, 1, t - 10], dim=1)], 1), expected)

    lengths = torch.tensor([t, 9, 1])  # left padding
    mask = torch.arange(t) >= t - lengths[:, None]
    if left:
        padded = theirs(tokens, attention_mask=mask.long(), position_ids=(mask.cumsum(1) - 1).clamp(min=0)).logits
        close(ours(tokens, layout=Layout.lengths(lengths, t, left=True))[mask], padded[mask])

    row = torch.cat([tokens[0, :9], tokens[1, :5], tokens[2, :3]])[None]  # packing
    layout = Layout(torch.tensor([[*range(9), *range(5), *range(3)]]), torch.tensor([[0] * 9 + [1] * 5 + [2] * 3]))
    for i, document in enumerate(ours(row, layout=layout)[0].split([9, 5, 3])):
        close(document, theirs(tokens[i : i + 1, : len(document)]).logits[0])
    the_same_text(ours, theirs, tokens[:1, :5])


def the_same_text(ours, theirs, prompt, n=8):
    """The same greedy continuation."""
    settings = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    greedy = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=n, **settings)
    engine = Engine(ours)
    engine.submit(Request(tokens=prompt[0].tolist(), max_tokens=n, temperature=0.0))
    assert [event.token for _ in range(n) for event in engine.step()] == greedy[0, prompt.shape[1] :].tolist()


@torch.no_grad()
def there_and_back(ours, folder, vocab=61):
    """What chainrule saves transformers loads, with equal logits, under the same config; and chainrule again."""
    transformers = pytest.importorskip("transformers")
    save(folder, ours)
    tokens = torch.randint(vocab, (2, 11), generator=torch.Generator().manual_seed(4))
    again, info = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", output_loading_info=True
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    close(again.eval()(tokens).logits, ours(tokens))
    assert torch.equal(load(folder).model(tokens), ours(tokens))


def rewrite(folder, **changes):
    """Change config.json; a value of None removes the key."""
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
