"""tokenizer.json: what other programs read in what we save, and files of other kinds than byte-level BPE."""

import json

import pytest

from chainrule.generate.text import TextStream
from chainrule.tokenizers import load
from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.fast import LibraryTokenizer

TEXT = "Once upon a time, the cat sat on the mat. "
END, BEGIN = "<|endoftext|>", "<|begin|>"


def trained(bos: str | None) -> BPE:
    tokenizer = BPE.train([TEXT], 280, pattern="gpt2", specials=(END, BEGIN))
    tokenizer.bos = None if bos is None else tokenizer.specials[bos]
    return tokenizer


@pytest.mark.parametrize("bos", [END, BEGIN, None])
def test_a_saved_tokenizer_begins_a_text_in_transformers_as_a_model_here_reads_it(tmp_path, bos):
    transformers = pytest.importorskip("transformers")
    ours = trained(bos)
    ours.save(tmp_path / "ours")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    first = [] if ours.bos is None else [ours.bos]
    assert theirs(TEXT)["input_ids"] == first + ours.encode(TEXT)
    assert theirs(TEXT, add_special_tokens=False)["input_ids"] == ours.encode(TEXT)
    assert theirs(TEXT, TEXT)["input_ids"] == first + 2 * ours.encode(TEXT)
    theirs.save_pretrained(tmp_path / "theirs")
    again = load(tmp_path / "theirs")
    assert (again.bos, again.eos) == (ours.bos, ours.eos)
    again.save(tmp_path / "again")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "again")(TEXT)["input_ids"] == first + ours.encode(TEXT)


@pytest.mark.parametrize("with_offsets", [False, True])
def test_a_begin_that_only_the_configuration_asks_for_is_put_into_the_saved_file(tmp_path, with_offsets):
    """As transformers 4 wrote LLaMA's: the file puts nothing in front, add_bos_token does."""
    transformers = pytest.importorskip("transformers")
    source = json.loads(trained(None).fast().source)
    if with_offsets:
        source["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    (tmp_path / "tokenizer.json").write_text(json.dumps(source))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True, "bos_token": BEGIN, "eos_token": END}))
    ours = load(tmp_path)
    assert ours.bos == 1
    ours.save(tmp_path / "saved")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")(TEXT)["input_ids"] == [1, *ours.encode(TEXT)]
    assert load(tmp_path / "saved").bos == 1


def test_robertas_frame_begins_a_text(tmp_path):
    source = json.loads(trained(None).fast().source)
    source["post_processor"] = {
        "type": "RobertaProcessing", "sep": [END, 0], "cls": [BEGIN, 1], "trim_offsets": True, "add_prefix_space": False
    }  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(source))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"cls_token": BEGIN, "sep_token": END}))
    ours = load(tmp_path)
    assert (ours.bos, ours.eos) == (1, (0,))


@pytest.mark.parametrize("listed", [False, True])
def test_the_map_of_special_tokens_counts_where_the_configuration_lists_no_added_tokens(tmp_path, listed):
    transformers = pytest.importorskip("transformers")
    tokenizer = trained(END)
    tokenizer.save(tmp_path)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": END}
    if listed:
        rest = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
        config["added_tokens_decoder"] = {id: {"content": name} | rest for name, id in tokenizer.specials.items()}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"eos_token": {"content": BEGIN}}))
    ours, theirs = load(tmp_path), transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(ours, LibraryTokenizer)
    assert ours.eos == (theirs.eos_token_id,) == (tokenizer.specials[END if listed else BEGIN],)
    assert ours.published_names["eos_token"] == theirs.eos_token


def test_bytes_with_a_space_in_front_are_not_lossless():
    library = pytest.importorskip("tokenizers")
    engine = library.Tokenizer(library.models.BPE())
    engine.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=True)
    engine.decoder = library.decoders.ByteLevel()
    alphabet = library.pre_tokenizers.ByteLevel.alphabet()
    engine.train_from_iterator([TEXT], library.trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False))
    ours = LibraryTokenizer(engine.to_str())
    assert not ours.lossless
    assert ours.normalize("cat") == ours.decode(ours.encode("cat")) == " cat"


def test_no_text_spells_the_unknown_piece_of_a_unigram():
    library = pytest.importorskip("tokenizers")
    pieces = [("<unk>", 0.0), *((letter, -1.0) for letter in "<unk>")]
    engine = library.Tokenizer(library.models.Unigram(pieces, unk_id=0, byte_fallback=False))
    engine.add_special_tokens(["<unk>"])
    assert LibraryTokenizer(engine.to_str()).encode("<unk>☃") == [1, 2, 3, 4, 5, 0]


def test_what_is_shown_of_a_token_is_what_decoding_shows():
    """A piece that begins with ## outside WordPiece, and runs of spaces that were added to the vocabulary."""
    library = pytest.importorskip("tokenizers")
    vocab = {"<unk>": 0, "#": 1, "##": 2, "▁": 3, "▁▁": 4, "a": 5}
    engine = library.Tokenizer(library.models.BPE(vocab, [("#", "#")], unk_token="<unk>"))
    engine.decoder = library.decoders.Sequence([library.decoders.Replace("▁", " "), library.decoders.Fuse()])
    engine.add_tokens([library.AddedToken("▁▁", normalized=False)])
    ours = LibraryTokenizer(engine.to_str())
    assert [ours.token_bytes(id) for id in (2, 3, 4)] == [b"##", b" ", b"  "]
    assert TextStream(ours).feed(2) == ours.decode([2]) == "##"
    assert b"".join(map(ours.token_bytes, [5, 4, 2])).decode() == ours.decode([5, 4, 2]) == "a  ##"


def test_what_cannot_be_spelt_is_unknown_and_no_text_spells_that():
    library = pytest.importorskip("tokenizers")
    engine = library.Tokenizer(library.models.WordPiece({"[UNK]": 0, "[SEP]": 1, "cat": 2, "[": 3}, unk_token="[UNK]"))
    engine.pre_tokenizer = library.pre_tokenizers.BertPreTokenizer()
    engine.decoder = library.decoders.WordPiece(cleanup=False)
    engine.add_special_tokens(["[UNK]", "[SEP]"])
    ours = LibraryTokenizer(engine.to_str())
    assert ours.specials == {"[SEP]": 1}
    assert ours.encode("cat ☃") == [2, 0]
    assert ours.decode([2, 0, 1]) == ours.normalize("cat ☃") == "cat [UNK]"
    assert ours.decode([2, 0, 1], specials=True) == "cat [UNK] [SEP]"
    assert ours.piece(0) == "[UNK]"
    assert ours.encode("[UNK]") == [3, 0, 0]
    assert ours.encode_rendered("[UNK][SEP]")[0] == [3, 0, 0, 1]
