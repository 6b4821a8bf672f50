"""Chats of a saved model as transformers reads them: BOS in front, and another template where tools are offered."""

import json

import numpy as np
import pytest
import torch

import chainrule as cr
from chainrule.core.errors import CheckpointError
from chainrule.data.chats import Talk, encode_chats
from chainrule.hub.export import export
from chainrule.hub.load import load
from chainrule.hub.modelfile import is_chatml
from chainrule.models.decoder import Decoder, DecoderConfig
from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.chat import CHATML, IM_END, IM_START, ChatTemplate, chatml

NAMES = ("<|endoftext|>", IM_START, IM_END)
TURNS = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "sat"}]
TOOL = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Compute.",
        "parameters": {
            "type": "object", "properties": {"expression": {"type": "string", "description": "3 + 4"}},
            "required": ["expression"],
        },
    },
}  # fmt: skip


def made(template=chatml, bos=NAMES[0]):
    tokenizer = BPE.train(["the cat sat on the mat, user and assistant"], 290, pattern="qwen2", specials=NAMES).fast()
    tokenizer.bos = None if bos is None else tokenizer.specials[bos]
    config = DecoderConfig.uniform(
        n_layers=1, d_model=16, n_heads=2, n_kv_heads=2, d_ff=32, vocab_size=tokenizer.vocab_size, context=64, tied=False
    )
    model = Decoder(config)
    model.init(torch.Generator().manual_seed(0))
    return cr.LM(model, tokenizer, template(tokenizer))


def test_a_chat_begins_with_bos_here_and_in_transformers(tmp_path):
    transformers = pytest.importorskip("transformers")
    lm = made()
    lm.save(tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    ids = theirs.apply_chat_template(TURNS[:1], add_generation_prompt=True, return_dict=False)
    assert list(ids) == lm.chat_ids(TURNS[:1]) == load(tmp_path / "out").chat_ids(TURNS[:1])
    assert ids[0] == lm.tokenizer.bos
    without = ChatTemplate(CHATML, lm.tokenizer)
    for ours, before in zip(encode_chats([Talk(TURNS)], lm.template)[0], encode_chats([Talk(TURNS)], without)[0], strict=True):
        np.testing.assert_array_equal(ours, before)
    assert is_chatml(lm.template)


def test_our_template_writes_no_bos_for_a_model_that_was_trained_without():
    assert made(bos=None).template.source == CHATML


@pytest.fixture
def hermes(material, tmp_path):
    """A folder whose configuration names two templates."""
    folder = tmp_path / "published"
    made().save(folder)
    (folder / "chat_template.jinja").unlink()
    source = (material / "chat_templates" / "NousResearch-Hermes-3-Llama-3.1-8B-tool_use.jinja").read_text(encoding="utf-8")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    plain = CHATML.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    config["chat_template"] = [{"name": "default", "template": plain}, {"name": "tool_use", "template": source}]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("tools", [None, [TOOL]])
def test_the_template_for_tools_is_taken_where_tools_are_offered(hermes, tools, tmp_path):
    transformers = pytest.importorskip("transformers")
    lm = load(hermes, device="cpu")
    lm.save(tmp_path / "again")
    expected = transformers.AutoTokenizer.from_pretrained(hermes).apply_chat_template(TURNS, tools=tools, tokenize=False)
    assert ("calculator" in expected) == bool(tools)
    for folder in (hermes, tmp_path / "again"):
        ours, theirs = load(folder, device="cpu"), transformers.AutoTokenizer.from_pretrained(folder)
        assert ours.template.render(TURNS, tools=tools) == expected
        assert theirs.apply_chat_template(TURNS, tools=tools, tokenize=False) == expected
        ids = theirs(expected, add_special_tokens=False)["input_ids"]
        assert ours.template.encode(TURNS, tools=tools).ids == ids
        asked = ours.template.prompt(TURNS[:1], tools=tools)
        assert asked == ids[: len(asked)]


def test_both_templates_go_into_a_gguf_file(hermes, tmp_path):
    lm = load(hermes, device="cpu")
    export(lm, tmp_path / "x.gguf", to="gguf", kind="f32")
    template = load(tmp_path / "x.gguf", device="cpu").template
    assert (template.source, template.tool_use) == (lm.template.source, lm.template.tool_use)


def test_a_template_may_not_lie_outside_its_folder(hermes, tmp_path):
    (tmp_path / "tool_use.jinja").write_text("{{ messages }}")
    (hermes / "additional_chat_templates").mkdir()
    (hermes / "additional_chat_templates" / "tool_use.jinja").symlink_to(tmp_path / "tool_use.jinja")
    with pytest.raises(CheckpointError, match="leads out of its folder"):
        load(hermes, device="cpu")
