"""Loading what was published, and using it: llama2.c's stories, runs, counts, the truth."""

import json
import math

import pytest
import torch

import chainrule as cr
import chainrule.hub.load as hub_load
from chainrule.core.errors import CheckpointError, RequestError
from chainrule.hub.export import export
from chainrule.hub.load import load
from chainrule.hub.trace import TensorStep


@pytest.fixture(scope="module")
def stories(material):
    return load(material / "stories260K" / "stories260K.bin")


def test_stories260k_decodes_greedily_to_the_golden_ids(stories, material):
    golden = json.loads((material / "stories260K" / "golden.json").read_text())
    from chainrule.generate.engine import Engine, Request

    engine = Engine(stories.model)
    wanted = golden["greedy_ids"]
    prompt = golden["prompt_ids"]
    engine.submit(Request(tokens=prompt, max_tokens=len(wanted) - len(prompt), temperature=0.0))
    found = list(prompt)
    while engine.busy:
        found += [event.token for event in engine.step()]
    assert found == wanted


def test_stories260k_survives_the_way_to_transformers_and_back(stories, tmp_path):
    transformers = pytest.importorskip("transformers")
    cr.LM(stories.model).save(tmp_path / "hf")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    tokens = torch.tensor([[1, 403, 407, 261, 378]])
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, stories.model(tokens), atol=1e-4, rtol=1e-4)


def test_a_folder_without_a_tokenizer_loads_as_a_model_alone(stories, tmp_path):
    cr.LM(stories.model).save(tmp_path / "bare")
    bare = load(tmp_path / "bare")
    assert bare.tokenizer is None
    assert bare.model(torch.tensor([[1, 2]])).shape == (1, 2, 512)
    with pytest.raises(RequestError, match="without a tokenizer"):
        bare.score("hello")


@pytest.mark.parametrize("kind", ["llama2c", "llmc"])
def test_a_file_of_bare_numbers_is_told_step_by_step(kind, stories, material, tmp_path):
    path = material / "stories260K" / "stories260K.bin"
    if kind == "llmc":
        transformers = pytest.importorskip("transformers")
        path = tmp_path / "gpt2.bin"
        transformers.GPT2LMHeadModel(transformers.GPT2Config(n_embd=8, n_layer=1, n_head=2)).save_pretrained(tmp_path / "hf")
        export(load(tmp_path / "hf", device="cpu"), path, to="llmc")
    steps = []
    lm = load(path, device="cpu", trace=steps.append)
    told = ["resolve", "open", "config", "build", "match", "tensor", "tie", "tokenizer", "device"]
    assert list(dict.fromkeys(step.stage for step in steps)) == told
    tensors = {step.ours: step for step in steps if isinstance(step, TensorStep) and step.ours}
    assert {name: step.shape for name, step in tensors.items()} == {
        name: tuple(t.shape) for name, t in lm.model.state_dict().items()
    }
    turned = {name for name in tensors if kind == "llama2c" and ("q_proj" in name or "k_proj" in name)}
    assert {name for name, step in tensors.items() if step.way != "mapped"} == turned
    assert {step.published for step in steps if isinstance(step, TensorStep) and not step.ours} == (
        {("freq_cis",)} if kind == "llama2c" else set()
    )
    in_bf16 = load(path, device="cpu", dtype="bf16").model
    assert torch.equal(in_bf16.embed_tokens.weight, lm.model.embed_tokens.weight.bfloat16())


def test_a_table_of_counts_stays_where_there_is_float64(tmp_path, monkeypatch):
    """On a machine whose device has none, as MPS: here one that holds no numbers at all, so that whatever goes there is lost."""
    monkeypatch.setattr(hub_load, "pick_device", lambda name: torch.device("meta"))
    (tmp_path / "text.txt").write_text("the cat sat on the mat. " * 9)
    counted = load(f"ngram2:{tmp_path / 'text.txt'}")
    counted.save(tmp_path / "saved")
    for lm in (counted, load(tmp_path / "saved")):
        assert lm.model.device == torch.device("cpu")
        assert lm.score("the cat").total == pytest.approx(counted.score("the cat").total)
    assert load("world").score("Tom").total < 0


def test_a_cut_off_llama2c_file_is_refused(material, tmp_path):
    data = (material / "stories260K" / "stories260K.bin").read_bytes()
    (tmp_path / "cut.bin").write_bytes(data[:-4])
    with pytest.raises(CheckpointError, match="its header asks for"):
        load(tmp_path / "cut.bin")
    (tmp_path / "noise.bin").write_bytes(b"\x7f" * 400)
    with pytest.raises(CheckpointError, match=r"no llama2\.c file"):
        load(tmp_path / "noise.bin")


def test_pickled_weights_are_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8,
                                                      "num_hidden_layers": 1, "num_attention_heads": 1}))  # fmt: skip
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="is a pickle"):
        load(tmp_path)


def test_the_truth_is_a_model_like_any_other():
    truth = load("world")
    text = next(iter(cr.world.documents(1))).text
    score = truth.score(text, end=True)
    assert math.isclose(score.total, cr.world.logp(text), rel_tol=1e-5)
    assert dict(truth.next("今天我来到了", k=5))["仙II-212"] == pytest.approx(0.3, abs=1e-4)


def test_an_existing_folder_is_not_overwritten(stories, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="exists already"):
        cr.LM(stories.model).save(tmp_path / "full")
    assert (tmp_path / "full" / "precious.txt").read_text() == "mine"


def test_the_face_is_lazy_and_complete():
    assert set(cr.__all__) <= set(dir(cr))
    with pytest.raises(AttributeError, match="chainrule has no"):
        cr.nonsense  # noqa: B018


def test_a_chat_that_calls_the_calculator_gets_its_answer():
    """A model of counts that has read one chat says it again, tool call and all."""
    from chainrule.models.ngram import NGram
    from chainrule.tokenizers.bpe import BPE
    from chainrule.tokenizers.chat import CHATML, IM_END, IM_START, ChatTemplate

    chat = next(cr.world.chats(0, language="en", kind="calculator"))
    tokenizer = BPE.train([str(chat.messages)], 300, pattern="cl100k", specials=("<|endoftext|>", IM_START, IM_END))
    template = ChatTemplate(CHATML, tokenizer)
    ids = template.encode(chat.messages).ids
    lm = cr.LM(NGram.fit([ids], order=8, vocab_size=tokenizer.vocab_size), tokenizer, template)
    added = list(lm.converse(chat.messages[:1], max_tokens=100))
    assert [message["role"] for message in added] == ["assistant", "tool", "assistant"]
    assert added[1]["content"] == chat.messages[2]["content"]
    assert added[2]["content"] == chat.messages[3]["content"]
    assert lm.chat(chat.messages[:1], max_tokens=100) == chat.messages[3]["content"]
