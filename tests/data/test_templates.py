"""Published chat templates, unedited, through the real fine-tuning: learned is what the assistant said, and nothing else."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from chainrule.core.datum import PADDING
from chainrule.hub.fresh import fresh
from chainrule.hub.save import save
from chainrule.tokenizers.bpe import BPE
from chainrule.train.material import Material, prepare
from chainrule.train.recipe import Recipe, read_recipe
from chainrule.train.run import run_recipe

SPECIALS = (
    "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>",
    "[INST]", "[/INST]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]",
)  # fmt: skip
QWEN_CALL = '<tool_call>\n{"name": "calculator", "arguments": {"expression": "37 * 48"}}\n</tool_call>'
PUBLISHED = {
    "meta-llama-Llama-3.1-8B-Instruct": (
        "<|begin_of_text|>", "<|eot_id|>", '{"name": "calculator", "parameters": {"expression": "37 * 48"}}',
    ),
    "Qwen-Qwen2.5-7B-Instruct": (None, "<|im_end|>", QWEN_CALL),
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": ("<|begin_of_text|>", "<|im_end|>", QWEN_CALL),
    "mistralai-Mistral-Nemo-Instruct-2407": (
        "<s>", "</s>",
        '[TOOL_CALLS][{"name": "calculator", "arguments": {"expression": "37 * 48"}, "id": "abcdefghi"}]',
    ),
}  # fmt: skip
"""Of each template: the tokens that begin a text and end a turn, and the call of a tool as it writes it."""
TURNS = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "Hello there."},
    {"role": "user", "content": "And 今天?"},
    {"role": "assistant", "content": "今天天气很好."},
]
FUNCTION = {"name": "calculator", "arguments": {"expression": "37 * 48"}}
CALLED = [
    {"role": "system", "content": "Use the tools."},
    {"role": "user", "content": "37 * 48?"},
    {"role": "assistant", "content": "", "tool_calls": [{"id": "abcdefghi", "type": "function", "function": FUNCTION}]},
    {"role": "tool", "name": "calculator", "content": "1776", "tool_call_id": "abcdefghi"},
    {"role": "assistant", "content": "It is 1776."},
]
EXPRESSION = {"type": "string", "description": "what to work out"}
PARAMETERS = {"type": "object", "properties": {"expression": EXPRESSION}, "required": ["expression"]}
TOOL = {"type": "function", "function": {"name": "calculator", "description": "Work it out.", "parameters": PARAMETERS}}


@pytest.fixture(params=PUBLISHED)
def name(request) -> str:
    return request.param


@pytest.fixture
def source(material, name) -> str:
    return (material / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


@pytest.fixture
def recipe(name, source, tmp_path) -> Recipe:
    """The shipped fine-tuning of a tiny model that was published with this template, on chats of several turns and of tools."""
    bos, eos, call = PUBLISHED[name]
    said = [message["content"] for message in (*TURNS, *CALLED)]
    trained = BPE.train([source, call, json.dumps(TOOL), *said], 900, pattern="cl100k", specials=SPECIALS)
    tokenizer = BPE(trained.vocab, trained.merges, pattern=trained.pattern, specials=trained.specials, bos=bos, eos=eos)
    model = fresh(vocab_size=tokenizer.vocab_size, context=1024, n_layers=1, d_model=16, n_heads=2, n_kv_heads=2, d_ff=16,
                  rope_theta=1e4, tied=True, init="normal", seed=0)  # fmt: skip
    save(tmp_path / "published", model, tokenizer, source)
    always = [TOOL] if "tool_use" in name else None  # that template is for conversations with tools alone
    rows = [{"messages": TURNS, "tools": always}, {"messages": CALLED, "tools": [TOOL]}] * 2
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    changes = {"model.path": tmp_path / "published", "data.path": tmp_path / "chats.jsonl", "context": 1024, "batch_rows": 4,
               "steps": 2, "eval_every": 2, "save_every": 2, "threads": 1, "precision": "fp32"}  # fmt: skip
    return read_recipe("sft", [f"{key}={value}" for key, value in changes.items()])


def learned(material: Material) -> set[str]:
    """What is judged of each chat of the first step."""
    (batch,) = material.stream.batches(0)
    assert batch.layout is not None
    rows = zip(batch.tokens, batch.mask, batch.layout.document, strict=True)
    chats = [(tokens[document == n], mask[document == n]) for tokens, mask, document in rows
             for n in set(document.tolist()) - {PADDING}]  # fmt: skip
    return {material.tokenizer.decode(tokens[mask == 1].tolist(), specials=True) for tokens, mask in chats}


def test_every_published_template_trains_unedited(name, source, recipe, tmp_path):
    _, end, call = PUBLISHED[name]
    assert learned(prepare(recipe)) == {f"Hello there.{end}今天天气很好.{end}", f"{call}{end}It is 1776.{end}"}
    run = run_recipe(recipe, "tuned", runs=tmp_path)
    rows = [json.loads(row) for row in (run.folder / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))
    before, after = (load_file(folder / "model.safetensors") for folder in (tmp_path / "published", run.folder / "model"))
    assert not any(torch.equal(before[key], after[key]) for key in before)
    assert (run.folder / "model" / "chat_template.jinja").read_text(encoding="utf-8") == source
