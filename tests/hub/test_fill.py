"""Filling in words with a published BERT folder: vocab.txt, [CLS] text [SEP], probabilities as transformers finds them."""

import json
import shutil

import pytest
import torch

import chainrule as cr
from chainrule.cli import main
from chainrule.hub.encoder import around_masks
from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.byte import ByteTokenizer


@pytest.fixture(scope="module")
def folder(material, tmp_path_factory):
    """A random BERT over the vocabulary as published, in the layout of bert-base-uncased."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bert") / "tiny-bert"
    torch.manual_seed(0)
    config = transformers.BertConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
                                     max_position_embeddings=32)  # fmt: skip
    model = transformers.BertForMaskedLM(config)
    for tensor in model.parameters():
        torch.nn.init.normal_(tensor, std=0.5)
    model.save_pretrained(folder)
    shutil.copy(material / "tokenizers" / "bert-base-uncased" / "vocab.txt", folder / "vocab.txt")
    return folder


@pytest.mark.parametrize("text", ["今天[MASK]天气很好", "The [MASK] is [MASK] blue.", "[MASK]", "Un[MASK]able"])
def test_candidates_and_probabilities_are_those_of_transformers(folder, text):
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.BertTokenizer.from_pretrained(folder)
    ids = tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        p = transformers.BertForMaskedLM.from_pretrained(folder)(ids).logits[0].softmax(-1)
    wanted = [row.topk(4) for row in p[ids[0] == tokenizer.mask_token_id]]
    found = cr.load(folder, device="cpu").fill(text, k=4)
    assert len(found) == len(wanted) == text.count("[MASK]")
    for mask, best in zip(found, wanted, strict=True):
        assert [word for word, _ in mask] == tokenizer.convert_ids_to_tokens(best.indices.tolist())
        assert [value for _, value in mask] == pytest.approx(best.values.tolist(), abs=1e-5)


def test_a_tokenizer_json_frames_a_text_as_its_vocab_txt_does(folder, tmp_path):
    transformers = pytest.importorskip("transformers")
    shutil.copytree(folder, tmp_path / "fast")
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(tmp_path / "fast")
    (tmp_path / "fast" / "vocab.txt").unlink()
    slow, fast = cr.load(folder, device="cpu"), cr.load(tmp_path / "fast", device="cpu")
    assert slow.tokenizer.framed([7592]) == fast.tokenizer.framed([7592]) == [101, 7592, 102]
    assert slow.fill("The [MASK] is unaffable.", k=40) == fast.fill("The [MASK] is unaffable.", k=40)


def test_saved_it_is_a_folder_like_the_published(folder, tmp_path):
    lm = cr.load(folder, device="cpu")
    lm.save(tmp_path / "again")
    assert not (tmp_path / "again" / "modules.json").exists()
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("bert", ["BertForMaskedLM"])
    assert cr.load(tmp_path / "again", device="cpu").fill("a [MASK]") == lm.fill("a [MASK]")


def test_what_cannot_be_filled_is_one_clear_message(folder, capsys):
    for text, message in (
        ("no mask", "write [MASK] where a word is missing"),
        ("[MASK] " * 31, "33 tokens long, but tiny-bert reads 32"),
    ):
        assert main(["fill", str(folder), text, "--device", "cpu"]) == 2
        assert message in capsys.readouterr().err
    assert main(["fill", "ngram:" + str(folder / "vocab.txt"), "[MASK]"]) == 2
    assert "cannot look behind a mask" in capsys.readouterr().err


def test_where_a_words_token_holds_its_space_the_mask_stands_for_both():
    bpe = BPE.train(["the cat sat on a mat, a hat and a cap. " * 5], 330, pattern="gpt2", specials=("[MASK]",))
    mask, the, sat = bpe.specials["[MASK]"], bpe.encode("the"), bpe.encode(" sat")
    assert around_masks(bpe, ["the ", " sat"], mask) == [*the, mask, *sat]
    assert around_masks(bpe, ["the", ""], mask) == [*the, mask]
    letters = ByteTokenizer()  # here a space is a token of its own, before whatever word
    assert around_masks(letters, ["the ", " sat"], mask) == [*letters.encode("the "), mask, *letters.encode(" sat")]


@pytest.mark.parametrize("verb", ["score", "next", "generate", "chat"])
def test_an_encoder_that_is_asked_for_what_comes_next_says_what_it_can_do(folder, verb):
    lm = cr.load(folder, device="cpu")
    with pytest.raises(AttributeError, match=r"is an encoder: it reads both ways.* ask it for hidden words \(chainrule fill\)"):
        getattr(lm, verb)("The")
    with pytest.raises(AttributeError, match="an encoder has no 'socre'"):
        lm.socre("The")


def test_the_verbs_refuse_an_encoder_by_its_name(folder, capsys):
    assert main(["next", str(folder), "The", "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert f"chainrule: {folder.name} is an encoder: it reads both ways" in said
    assert "chainrule fill" in said
