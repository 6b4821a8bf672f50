"""What one can ask of an ``LM`` in Python, as people write it."""

import pytest
import torch

import chainrule as cr
from chainrule.core.errors import ConfigError, RequestError
from chainrule.models.ngram import NGram
from chainrule.tokenizers.byte import ByteTokenizer


@pytest.fixture(scope="module")
def lm() -> cr.LM:
    tokenizer = ByteTokenizer()
    return cr.LM(NGram.fit([[256, *b"Tom sat. Tom ran. ", 256]], order=4, vocab_size=257), tokenizer)


@pytest.mark.parametrize("name", [torch.float32, "torch.float32", "float32", "fp32"])
def test_a_format_may_be_called_by_any_of_its_names(material, name):
    stories = material / "stories260K" / "stories260K.bin"
    lm = cr.load(stories, dtype=name, device=torch.device("cpu"))
    assert next(lm.model.parameters()).dtype == torch.float32
    model = cr.LanguageModel.from_pretrained(stories, dtype="bfloat16", device="cpu")
    assert next(model.parameters()).dtype == torch.bfloat16


def test_an_unknown_format_is_still_refused():
    with pytest.raises(ConfigError, match="unknown number format 'float8'"):
        cr.load("world", dtype="float8")


def test_stop_ids_of_ones_own_join_those_of_the_model(lm):
    said = lm.generate("Tom ", temperature=0.0, stop_ids=frozenset({ord("t"), ord("n")}))
    assert said in ("sa", "ra")


@pytest.mark.parametrize(
    ("settings", "because"), [({"tokens": [1]}, "unknown setting 'tokens'"), ({"given": {}}, "unknown setting 'given'")]
)
def test_what_a_prompt_cannot_have_beside_it_is_refused(lm, settings, because):
    with pytest.raises(RequestError, match=because):
        lm.generate("Tom", **settings)


def test_an_empty_prompt_begins_as_texts_do():
    """Where no BOS is put in front of a prompt, the token between texts begins one."""

    class Unbegun(ByteTokenizer):
        bos = None

    tokenizer = Unbegun()
    assert tokenizer.begin == 256
    lm = cr.LM(NGram.fit([[256, *b"Yes.", 256]] * 3, order=4, vocab_size=257, smoothing="mle"), tokenizer)
    assert lm.generate("", temperature=0.0) == "Yes."
