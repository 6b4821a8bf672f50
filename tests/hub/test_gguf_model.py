"""Models in GGUF: out and in again with equal logits, their tokenizers with equal ids, and clear words for what cannot be."""

import json

import numpy as np
import pytest
import torch

import chainrule as cr
from chainrule.core.errors import CheckpointError, ConfigError, TokenizerError
from chainrule.hub.export import export
from chainrule.hub.gguf.config import published as published_config
from chainrule.hub.gguf.names import ARCHS
from chainrule.hub.gguf.read import GGUF
from chainrule.hub.gguf.rope import rope_tables
from chainrule.hub.gguf.tables import TABLES
from chainrule.hub.gguf.vocab import PRES, read_vocabulary
from chainrule.hub.gguf.vocab_write import OTHER_CUTS, write_vocabulary
from chainrule.hub.gguf.write import write_gguf
from chainrule.hub.tokenizer import find_tokenizer
from chainrule.tokenizers import load as load_tokenizer
from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.byte import ByteTokenizer
from chainrule.tokenizers.char import CharTokenizer
from chainrule.tokenizers.chat import CHATML, IM_END, IM_START, ChatTemplate
from chainrule.tokenizers.fast import LibraryTokenizer
from chainrule.tokenizers.patterns import split_pattern, unspell
from tests.hub.gguf_cases import CASES, LLAMA3, LONGROPE, TINY, YARN, published

TEXT = "low lower lowest newer. 今天我来到了仙II-212！  x = 10_000;\n\n\tdef f(n): return n + 1 😀\r\nIt's <|im_end|> "


@pytest.fixture(scope="module")
def stories(material):
    return cr.load(material / "stories260K" / "stories260K.bin")


@torch.no_grad()
def logits(lm, t: int = 24) -> torch.Tensor:
    tokens = torch.randint(lm.model.vocab_size, (2, t), generator=torch.Generator().manual_seed(1))
    return lm.model(tokens)


def again(lm, path, kind="f32"):
    export(lm, path, to="gguf", kind=kind)
    return cr.load(path)


@pytest.mark.parametrize("name", CASES)
def test_a_model_out_to_gguf_and_in_again_is_the_same(name, tmp_path):
    published(name, tmp_path / "hf")
    lm = cr.load(tmp_path / "hf")
    back = again(lm, tmp_path / "x.gguf")
    # Gemma's norms are stored with one added, and a sum is rounded; all else is exact
    torch.testing.assert_close(logits(back), logits(lm), atol=1e-4 if name.startswith("gemma") else 0, rtol=0)
    assert back.model.config == lm.model.config or name in ("mistral", "gpt2")


def test_the_tokenizer_of_a_file_is_found_without_its_model(stories, tmp_path):
    export(stories, tmp_path / "x.gguf", to="gguf", kind="f32")
    assert find_tokenizer(str(tmp_path / "x.gguf")).encode(TEXT) == cr.load(tmp_path / "x.gguf").tokenizer.encode(TEXT)
    write_gguf(tmp_path / "bare.gguf", {"general.architecture": "llama"}, {}, {})
    with pytest.raises(TokenizerError, match=r"bare.gguf holds no tokenizer"):
        find_tokenizer(str(tmp_path / "bare.gguf"))


@pytest.mark.parametrize("name", ["olmo2", "minimax-m2"])
def test_where_llama_cpp_wants_a_head_of_its_own_a_tied_one_is_written_twice(name, tmp_path):
    published(name, tmp_path / "hf", tie_word_embeddings=True)
    lm = cr.load(tmp_path / "hf")
    notes = export(lm, tmp_path / "x.gguf", to="gguf", kind="f32")
    assert "the file holds the embedding twice" in " ".join(notes)
    file = GGUF(tmp_path / "x.gguf")
    assert torch.equal(file.tensor("output.weight"), file.tensor("token_embd.weight"))
    assert torch.equal(logits(cr.load(tmp_path / "x.gguf")), logits(lm))


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("gemma2", {"tie_word_embeddings": False}, "its head is not tied"),
        ("glm", {"head_dim": 32}, "they are 128 wide in a model of 64"),
        ("olmo2", {"rope_parameters": LLAMA3}, "reads no factors of rope"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "attention.scale is"),
        ("ernie-moe", {"moe_norm_min": 0.9}, "mlp.router.norm_min is 0.9"),
    ],
)
def test_what_llama_cpp_would_not_load_is_not_written(name, more, words, tmp_path):
    published(name, tmp_path / "hf", **more)
    with pytest.raises(CheckpointError, match=words):
        export(cr.load(tmp_path / "hf"), tmp_path / "x.gguf", to="gguf", kind="f32")
    assert not (tmp_path / "x.gguf").exists()


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("deepseek2", {"topk_method": "group_limited_greedy", "n_group": 2, "topk_group": 1}, "it routes otherwise"),
        ("deepseek2-no-query-rank", {"num_hidden_layers": 2}, "only if it has 26 or 27 layers"),
        ("gpt-oss", {"rope_parameters": YARN | {"truncate": False}}, "rounds the borders of YaRN's ramp"),
        ("phi3", {"sliding_window": 8}, "beyond 8 tokens it scores otherwise"),
        ("mistral", {"sliding_window": 16}, "the file's context is the window: 16 tokens"),
    ],
)
def test_where_llama_cpp_computes_otherwise_the_user_is_told(name, more, words, tmp_path):
    published(name, tmp_path / "hf", **more)
    lm = cr.load(tmp_path / "hf")
    assert words in " ".join(export(lm, tmp_path / "x.gguf", to="gguf", kind="f32"))
    t = 16 if name == "mistral" else 24
    assert torch.equal(logits(cr.load(tmp_path / "x.gguf"), t), logits(lm, t))


def test_the_factors_of_phi3_are_two_tensors_as_its_converter_writes_them(tmp_path):
    """llama.cpp's conversion/phi.py names no kind of scaling, only the size of cosines, √(1 + ln 64 / ln 4) here, and what
    was the longest row before."""
    published("phi3-longrope", tmp_path / "hf")
    lm = cr.load(tmp_path / "hf")
    export(lm, tmp_path / "x.gguf", to="gguf", kind="q8_0")
    file = GGUF(tmp_path / "x.gguf")
    rope = {key: value for key, value in file.metadata.items() if ".rope." in key}
    assert rope == {
        "phi3.rope.freq_base": 1e4, "phi3.rope.dimension_count": 16, "phi3.rope.scaling.attn_factor": 2.0,
        "phi3.rope.scaling.original_context_length": 4,
    }  # fmt: skip
    assert file.tensor("rope_factors_long.weight").tolist() == LONGROPE["long_factor"]
    assert file.tensor("rope_factors_short.weight").dtype == torch.float32
    assert cr.load(tmp_path / "x.gguf").model.config.position == lm.model.config.position
    with pytest.raises(CheckpointError, match=r"rope_factors_long.weight alone; .* belong together"):
        cr.load(rewritten(tmp_path / "x.gguf", tmp_path / "y.gguf", without="rope_factors_short.weight"))
    with pytest.raises(CheckpointError, match=r"rope_factors_long.weight of shape \(8,\) is no positive number"):
        cr.load(rewritten(tmp_path / "x.gguf", tmp_path / "y.gguf", **{"phi3.rope.dimension_count": 8}))


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("gemma2", {"final_logit_softcapping": "final_logit_softcapping", "attn_logit_softcapping": "attn_logit_softcapping"}),
        ("glm4-moe", {"routed_scaling_factor": "expert_weights_scale"}),
    ],
)
def test_a_whole_number_is_written_as_a_fraction_where_llama_cpp_reads_one(name, keys, tmp_path):
    published(name, tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config | dict.fromkeys(keys, 30)))
    export(cr.load(tmp_path / "hf"), tmp_path / "x.gguf", to="gguf", kind="f32")
    metadata = GGUF(tmp_path / "x.gguf").metadata
    found = [metadata[f"{metadata['general.architecture']}.{key}"] for key in keys.values()]
    assert [(value, type(value)) for value in found] == [(30, float)] * len(keys)


@pytest.mark.parametrize("factor", [7.0, 13.0, 32.0, 60.0])
def test_llama_3s_factor_is_written_to_the_bit(factor):
    config = TINY | {"model_type": "llama", "rope_parameters": LLAMA3 | {"factor": factor}}
    assert rope_tables("llama", config)["rope_freqs.weight"].max() == factor


def test_layers_that_predict_further_tokens_are_left_out(tmp_path):
    """As llama.cpp's converter writes GLM-4.5: the block count holds one more layer, which p(next token) does not need."""
    published("glm4-moe", tmp_path / "hf")
    lm = cr.load(tmp_path / "hf")
    export(lm, tmp_path / "x.gguf", to="gguf", kind="f32")
    file = GGUF(tmp_path / "x.gguf")
    tensors = {name: file.tensor(name) for name in file.slots} | {"blk.3.nextn.eh_proj.weight": torch.ones(64, 128)}
    more = {"glm4moe.block_count": 4, "glm4moe.nextn_predict_layers": 1}
    write_gguf(tmp_path / "y.gguf", file.metadata | more, tensors, dict.fromkeys(tensors, "F32"))
    assert torch.equal(logits(cr.load(tmp_path / "y.gguf")), logits(lm))


def test_an_old_file_of_deepseek_holds_keys_and_values_in_one(tmp_path):
    """Before 2025 the matrix from the latent was not split, and the heads' widths had no keys of their own."""
    published("deepseek2", tmp_path / "hf")
    lm = cr.load(tmp_path / "hf")
    export(lm, tmp_path / "x.gguf", to="gguf", kind="f32")
    file = GGUF(tmp_path / "x.gguf")
    tensors = {name: file.tensor(name) for name in file.slots if "attn_k_b" not in name and "attn_v_b" not in name}
    for i in range(3):
        k, v = (file.tensor(f"blk.{i}.attn_{one}_b.weight") for one in "kv")
        tensors[f"blk.{i}.attn_kv_b.weight"] = torch.cat([k.mT, v], dim=1).flatten(0, 1)
    old = {key: value for key, value in file.metadata.items() if not key.endswith("_mla")}
    old |= {
        "deepseek2.attention.key_length": 24,
        "deepseek2.attention.value_length": 12,
        "deepseek2.attention.head_count_kv": 4,
    }
    write_gguf(tmp_path / "y.gguf", old, tensors, dict.fromkeys(tensors, "F32"))
    assert torch.equal(logits(cr.load(tmp_path / "y.gguf")), logits(lm))


@pytest.mark.parametrize("name", ["glm", "glm-no-biases"])
def test_a_file_of_glm_may_hold_queries_keys_and_values_apart(name, tmp_path):
    """As it is converted from a folder that holds them apart, without a key for the width of a head."""
    published(name, tmp_path / "hf")
    lm = cr.load(tmp_path / "hf")
    export(lm, tmp_path / "x.gguf", to="gguf", kind="f32")
    file = GGUF(tmp_path / "x.gguf")
    tensors = {one: file.tensor(one) for one in file.slots}
    for fused in [one for one in tensors if "attn_qkv" in one]:
        for part, rows in zip("qkv", tensors.pop(fused).split((64, 32, 32)), strict=True):
            tensors[fused.replace("qkv", part)] = rows
    assert "blk.0.attn_k.weight" in tensors
    keys = {key: value for key, value in file.metadata.items() if not key.endswith(("key_length", "value_length"))}
    write_gguf(tmp_path / "y.gguf", keys, tensors, dict.fromkeys(tensors, "F32"))
    assert torch.equal(logits(cr.load(tmp_path / "y.gguf")), logits(lm))


def test_every_architecture_has_names_and_keys():
    assert set(ARCHS) == set(TABLES)


def test_q_and_k_are_stored_with_neighbours_paired(tmp_path):
    """Of a head of 16 channels, row 1 of the file is row 8 of what is published: rope turns the two together."""
    published("llama", tmp_path / "hf")
    lm = cr.load(tmp_path / "hf")
    export(lm, tmp_path / "x.gguf", to="gguf", kind="f32")
    stored = GGUF(tmp_path / "x.gguf").tensor("blk.0.attn_q.weight")
    ours = lm.model.state_dict()["layers.0.self_attn.q_proj.weight"]
    assert torch.equal(stored[:4], ours[[0, 8, 1, 9]])
    assert torch.equal(
        GGUF(tmp_path / "x.gguf").tensor("blk.0.attn_v.weight"), lm.model.state_dict()["layers.0.self_attn.v_proj.weight"]
    )


@pytest.mark.parametrize(
    ("kind", "most"), [("f16", 0.003), ("bf16", 0.02), ("q8_0", 0.03), ("q6_k", 0.1), ("q4_k_m", 0.35), ("q4_0", 0.45)]
)
def test_fewer_bits_move_the_logits_by_as_much_as_the_format_loses(kind, most, tmp_path):
    """In standard deviations, of which two unrelated logits are 1.13 apart."""
    published("qwen3", tmp_path / "hf", hidden_size=256, num_attention_heads=8)
    lm = cr.load(tmp_path / "hf")
    back = again(lm, tmp_path / "x.gguf", kind)
    wanted = logits(lm)
    error = (logits(back).float() - wanted).abs().mean() / wanted.std()
    assert most / 3 < error < most
    assert back.model.device.type == "cpu"
    assert next(back.model.parameters()).dtype == {"f16": torch.float16, "bf16": torch.bfloat16}.get(kind, torch.float32)
    assert next(cr.load(tmp_path / "x.gguf", dtype="bf16").model.parameters()).dtype == torch.bfloat16


def test_stories260k_as_gguf_says_the_same(stories, tmp_path):
    back = again(stories, tmp_path / "stories.gguf")
    assert torch.equal(logits(back), logits(stories))
    assert back.generate("Once upon a time", max_tokens=30, temperature=0.0) == stories.generate(
        "Once upon a time", max_tokens=30, temperature=0.0
    )
    for text in (TEXT, "Once upon a time", " two  spaces", "a"):
        assert back.tokenizer.encode(text) == stories.tokenizer.encode(text)


# tokenizers


def through(tokenizer, tmp_path, rows=None):
    keys, note = write_vocabulary(tokenizer, rows or tokenizer.vocab_size)
    return read_vocabulary(keys, tmp_path), note, keys


@pytest.mark.parametrize(
    ("pattern", "pre"),
    [("gpt2", "gpt-2"), ("qwen2", "qwen2"), ("cl100k", "smaug-bpe"), ("o200k", "gpt-4o"), ("kimi", "kimi-k2")],
)
def test_a_trained_bpe_comes_back_from_gguf(pattern, pre, tmp_path):
    ours = BPE.train([TEXT * 3], 330, pattern=pattern, specials=("<|endoftext|>", IM_START, IM_END))
    back, note, keys = through(ours, tmp_path, rows=352)
    assert keys["tokenizer.ggml.pre"] == pre
    assert note == OTHER_CUTS.get(pre)
    assert len(keys["tokenizer.ggml.tokens"]) == 352
    assert (back.vocab_size, back.bos, back.eos, dict(back.specials)) == (ours.vocab_size, ours.bos, ours.eos, ours.specials)
    assert back.encode(TEXT) == ours.encode(TEXT)
    assert back.decode(back.encode(TEXT)) == TEXT


def test_kimis_tokenizer_goes_by_its_name_and_nothing_else(tmp_path):
    learned = BPE.train([TEXT * 3], 330, pattern="kimi")
    ours = BPE(learned.vocab, None, pattern=split_pattern("kimi"), specials={"[EOS]": 330})
    back, note, keys = through(ours, tmp_path)
    assert (keys["tokenizer.ggml.pre"], note) == ("kimi-k2", OTHER_CUTS["kimi-k2"])
    assert "tokenizer.huggingface.json" not in keys
    assert back.encode(TEXT) == ours.encode(TEXT)


def test_deepseeks_tokenizer_is_known_as_it_is_published(tmp_path):
    """Its file says no normalizer as a sequence of none, line ends as the characters themselves, and digits by a part."""
    ours = json.loads(BPE.train([TEXT * 3], 330, pattern="qwen2").fast().source)
    parts = [
        {"type": "Split", "pattern": {"Regex": pattern.replace(r"\r\n", "\r\n")}, "behavior": "Isolated", "invert": False}
        for pattern in PRES["deepseek-llm"].patterns[:-1]
    ]
    parts += [{"type": "Digits", "individual_digits": True}, ours["pre_tokenizer"]["pretokenizers"][-1]]
    ours |= {
        "normalizer": {"type": "Sequence", "normalizers": []},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": parts},
    }
    ours = LibraryTokenizer(json.dumps(ours))
    back, note, keys = through(ours, tmp_path)
    assert (keys["tokenizer.ggml.pre"], note) == ("deepseek-llm", None)
    assert "tokenizer.huggingface.json" not in keys
    assert back.encode(TEXT) == ours.encode(TEXT)


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("deepseek-llm", ["It", "'", "s", " ", "1", "2", "3", "4", " ", "今天好", "！", "x", "\n"]),
        ("deepseek-coder", ["It", "'", "s", " ", "1", "2", "3", "4", " ", "今天好", "！", "x", "\n"]),
        ("kimi-k2", ["It's", " ", "123", "4", " ", "今天好", "！x", "\n"]),
        ("default", ["It", "'", "s", " ", "123", "4", " 今天好", "！", "x", "\n"]),
        (None, ["It", "'", "s", " ", "123", "4", " 今天好", "！", "x", "\n"]),
    ],
)
def test_texts_are_cut_as_the_name_in_the_file_says(pre, pieces, tmp_path, capsys):
    tokenizers = pytest.importorskip("tokenizers")
    keys, _ = write_vocabulary(BPE.train([TEXT], 280, pattern="gpt2"), 280)
    tokenizer = read_vocabulary(keys | {"tokenizer.ggml.pre": pre}, tmp_path / "x.gguf")
    cuts = tokenizers.Tokenizer.from_str(tokenizer.source).pre_tokenizer.pre_tokenize_str("".join(pieces))
    assert [unspell(piece).decode() for piece, _ in cuts] == pieces
    assert ("does not say how its tokenizer cuts texts" in capsys.readouterr().err) == (pre in (None, "default"))


def test_a_pattern_that_llama_cpp_does_not_know_is_kept_for_us_and_told(tmp_path):
    ours = BPE.train([TEXT * 3], 330, pattern="world")
    back, note, keys = through(ours, tmp_path)
    assert "other programs cut texts in another way" in note
    assert keys["tokenizer.ggml.pre"] == "qwen2"
    assert back.encode(TEXT) == ours.encode(TEXT)


def test_bytes_come_back_as_a_bpe_without_merges(tmp_path):
    back, note, _ = through(ByteTokenizer(), tmp_path)
    assert note is None
    assert back.encode(TEXT) == list(TEXT.encode())
    assert (back.bos, back.eos) == (256, (256,))


@pytest.mark.parametrize("folder", ["gpt2", "qwen2"])
def test_published_vocabularies_come_back(folder, material, tmp_path):
    ours = load_tokenizer(material / "tokenizers" / folder)
    back, note, _ = through(ours, tmp_path)
    assert note is None
    assert back.encode(TEXT) == ours.encode(TEXT)
    assert (back.bos, back.eos[:1]) == (ours.bos, ours.eos[:1])


def test_a_sentencepiece_model_comes_back_and_is_saved_as_one(tmp_path):
    library = pytest.importorskip("sentencepiece")
    (tmp_path / "corpus.txt").write_text(
        "\n".join(["the cat sat on the mat", "今天天气很好", "a bat, a hat"] * 20), encoding="utf-8"
    )
    library.SentencePieceTrainer.train(
        input=str(tmp_path / "corpus.txt"), model_prefix=str(tmp_path / "m"), vocab_size=320, model_type="bpe", byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, hard_vocab_limit=False, minloglevel=2,
        user_defined_symbols=["<sep>"], num_threads=1,
    )  # fmt: skip
    ours = load_tokenizer(tmp_path / "m.model")
    back, note, _ = through(ours, tmp_path)
    back.save(tmp_path)
    theirs = library.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    for text in (TEXT, "the cat<sep>sat", "  two  spaces ", ""):
        assert back.encode(text) == ours.encode(text) == theirs.encode(text)
    assert note is None
    assert (back.bos, back.eos) == (ours.bos, ours.eos)


def test_a_sentencepiece_model_in_the_form_of_a_tokenizer_json_comes_back(tmp_path):
    """As LLaMA 2's is published: merges over characters, bytes where there is no piece, a space in front."""
    library = pytest.importorskip("tokenizers")
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, **{f"<0x{byte:02X}>": 3 + byte for byte in range(256)}}
    for piece in ("▁", "t", "h", "e", "a", "th", "▁th", "▁the", "▁a", "he"):
        vocab[piece] = len(vocab)
    merges = [("t", "h"), ("▁", "th"), ("▁th", "e"), ("▁", "a"), ("h", "e")]
    model = library.models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    theirs = library.Tokenizer(model)
    theirs.normalizer = library.normalizers.Sequence([library.normalizers.Prepend("▁"), library.normalizers.Replace(" ", "▁")])
    theirs.add_special_tokens(["<unk>", "<s>", "</s>"])
    theirs.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true}')
    ours = load_tokenizer(tmp_path)
    back, note, _ = through(ours, tmp_path)
    assert note is None
    for text in ("the ath the", "he ate é", "😀"):
        assert back.encode(text) == ours.encode(text)
    assert (back.bos, back.eos) == (1, (2,))


def test_pieces_that_fill_the_table_of_tokens_up_are_left_out(stories, tmp_path):
    """As llama.cpp's converter pads them too: unused, with a score that never wins."""
    back, _, keys = through(stories.tokenizer, tmp_path, rows=600)
    assert len(keys["tokenizer.ggml.scores"]) == 600
    assert back.vocab_size == stories.tokenizer.vocab_size == 512
    assert back.encode(TEXT) == stories.tokenizer.encode(TEXT)


def test_a_tokenizer_that_gguf_has_no_kind_for_is_refused():
    with pytest.raises(CheckpointError, match=r"no place for this tokenizer \(CharTokenizer\)"):
        write_vocabulary(CharTokenizer("abc"), 10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer.ggml.pre": "quen2"}, "cuts texts by 'quen2', which is not known here; did you mean 'qwen2'"),
        ({"tokenizer.ggml.model": "bert"}, "a tokenizer of kind 'bert'"),
        ({"tokenizer.ggml.tokens": []}, "lists no tokens"),
        ({"tokenizer.ggml.tokens": 3}, "tokenizer.ggml.tokens is 3, which is no list of its kind"),
        ({"tokenizer.ggml.token_type": [1]}, "not as many token types"),
        ({"tokenizer.ggml.token_type": [9] * 280}, "tokens of type 9; the types are 1 to 6"),
        ({"tokenizer.ggml.merges": ["a b c"]}, "'a b c' is no merge"),
        ({"tokenizer.ggml.merges": 3}, "tokenizer.ggml.merges is 3, which is no list of its kind"),
    ],
)
def test_a_vocabulary_that_is_not_understood_is_refused(change, message, tmp_path):
    keys, _ = write_vocabulary(BPE.train([TEXT], 280, pattern="gpt2"), 280)
    with pytest.raises(CheckpointError, match=message):
        read_vocabulary(keys | change, tmp_path / "x.gguf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer.ggml.scores": [0.5]}, "lists 512 tokens but not as many scores: 1"),
        ({"tokenizer.ggml.scores": [1e300] * 512}, r"the score 1e\+300, which is no number to compare"),
        ({"tokenizer.ggml.scores": "x"}, "tokenizer.ggml.scores is x, which is no list of its kind"),
        ({"tokenizer.ggml.precompiled_charsmap": "x"}, "precompiled_charsmap is x, which is no list"),
        ({"tokenizer.ggml.precompiled_charsmap": [1, 2]}, "the normalisation table claims"),
        ({"tokenizer.ggml.token_type": [6] * 512}, "'<unk>' is no byte; bytes are written <0x00>"),
    ],
)
def test_pieces_that_are_not_understood_are_refused(change, message, stories, tmp_path):
    keys, _ = write_vocabulary(stories.tokenizer, 512)
    with pytest.raises(CheckpointError, match=message):
        read_vocabulary(keys | change, tmp_path / "x.gguf")


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_mutated_vocabularies_are_read_or_refused_and_nothing_else(kind, stories, tmp_path):
    """Values of other kinds under every key, then bytes changed anywhere in the header of a file."""
    tokenizer = stories.tokenizer if kind == "llama" else BPE.train([TEXT], 280, pattern="gpt2")
    keys, _ = write_vocabulary(tokenizer, 520)
    keys |= {"tokenizer.ggml.precompiled_charsmap": [4, 0, 0, 0, 0, 0, 0, 0, 0]} if kind == "llama" else {}
    junk = [keys | {key: value} for key in keys for value in (3, -1, 0.5, "x", True, [], [7], ["a"], [0.5] * 520)]
    write_gguf(tmp_path / "whole.gguf", keys, {}, {})
    data, random, refused = (tmp_path / "whole.gguf").read_bytes(), np.random.default_rng(0), 0
    for i in range(len(junk) + 150):
        try:
            if i < len(junk):
                read_vocabulary(junk[i], tmp_path)
                continue
            broken = bytearray(data)
            for at in random.integers(24, len(data), 3):
                broken[at] = int(random.integers(0, 256))
            (tmp_path / "m.gguf").write_bytes(broken)
            read_vocabulary(GGUF(tmp_path / "m.gguf").metadata, tmp_path)
        except CheckpointError:
            refused += 1
    assert refused > 30


def test_the_template_and_the_chat_survive(tmp_path):
    published("qwen2", tmp_path / "hf")
    tokenizer = BPE.train([TEXT * 3], 320, pattern="qwen2", specials=("<|endoftext|>", IM_START, IM_END))
    lm = cr.LM(cr.load(tmp_path / "hf").model, tokenizer, ChatTemplate(CHATML, tokenizer), name="tiny")
    export(lm, tmp_path / "x.gguf", to="gguf", kind="f32")
    back = cr.load(tmp_path / "x.gguf")
    turns = [{"role": "user", "content": "x = 1 <|im_end|>"}]
    assert back.chat_ids(turns) == lm.chat_ids(turns)
    assert back.chat(turns, max_tokens=4) == lm.chat(turns, max_tokens=4)


# what is refused


def rewritten(path, out, *, without="", more=None, **changes):
    """The file with other metadata, ``without`` a tensor or with ``more``."""
    gguf = pytest.importorskip("gguf")
    file = GGUF(path)
    metadata = {key: value for key, value in (file.metadata | changes).items() if value is not None}
    tensors = {name: file.tensor(name) for name in file.slots if name != without} | (more or {})
    write_gguf(out, metadata, tensors, dict.fromkeys(tensors, "F32"))
    assert gguf.GGUFReader(out)
    return out


@pytest.fixture
def llama_file(tmp_path):
    published("llama", tmp_path / "hf")
    export(cr.load(tmp_path / "hf"), tmp_path / "llama.gguf", to="gguf", kind="f32")
    return tmp_path / "llama.gguf"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"general.architecture": "mamba"}, "architecture 'mamba', which is not known here; known are .*llama"),
        ({"general.architecture": None}, "architecture None"),
        ({"llama.attention.head_count": None}, "lacks the key llama.attention.head_count"),
        ({"llama.block_count": 3}, "tensors of 2 layers, but its block_count is 3"),
        ({"llama.block_count": 2**32 - 1}, "block_count is 4294967295, which cannot be"),
        ({"llama.embedding_length": 48}, "but the config asks for"),
        ({"llama.feed_forward_length": "wide"}, "feed_forward_length is 'wide'"),
        ({"llama.rope.scaling.type": "longrope"}, "scales rope by 'longrope'"),
        ({"llama.attention.head_count": [4, 2]}, "differs from layer to layer"),
        ({"split.count": 3}, "one of several parts"),
        ({"llama.attention.causal": False}, "is not read here: llama.attention.causal = False"),
        ({"llama.attention.scale": 0.1}, r"is not read here: llama.attention.scale = 0\.1"),
        ({"llama.logit_scale": 0.5}, r"is not read here: llama.logit_scale = 0\.5"),
        ({"llama.rope.scaling.attn_factor": 1.2}, r"is not read here: llama.rope.scaling.attn_factor = 1\.2"),
        ({"llama.atention.key_length": 8}, r"atention.key_length = 8; did you mean 'attention.key_length'"),
        ({"llama.attention.sliding_window": 16}, "is not read here: llama.attention.sliding_window = 16"),
        ({"llama.attention.value_length": 8}, "attention.value_length is 8, which is not supported; 16 is"),
        ({"llama.rope.freq_base_swa": 5000.0}, "layers with a window by another base"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(changes, message, llama_file, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        cr.load(rewritten(llama_file, tmp_path / "bad.gguf", **changes))


HEADS = {"llama.attention.head_count": 128, "llama.attention.key_length": None, "llama.attention.value_length": None}
WIDEST = dict.fromkeys(
    (f"llama.{key}" for key in ("embedding_length", "attention.head_count", "attention.key_length", "attention.value_length")),
    2**24,
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [(HEADS, "has more heads than channels"), (WIDEST, r"cannot be understood: a value in it has the wrong type or size")],
)
def test_sizes_that_no_model_has_are_refused(changes, message, llama_file, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        cr.load(rewritten(llama_file, tmp_path / "bad.gguf", **changes))


@pytest.mark.parametrize("pattern", ["x", 0.5])
def test_windows_by_a_pattern_of_another_kind_are_refused(pattern, tmp_path):
    published("gemma3", tmp_path / "hf")
    export(cr.load(tmp_path / "hf"), tmp_path / "x.gguf", to="gguf", kind="f32")
    bad = rewritten(tmp_path / "x.gguf", tmp_path / "y.gguf", **{"gemma3.attention.sliding_window_pattern": pattern})
    with pytest.raises(CheckpointError, match=f"gemma3.attention.sliding_window_pattern is {pattern!r}; export the file again"):
        cr.load(bad)


def test_what_breaks_on_a_value_of_the_metadata_is_an_error_of_the_file(llama_file):
    shapes = dict.fromkeys(("token_embd.weight", "blk.0.attn_q.weight", "blk.1.attn_q.weight"), ())
    with pytest.raises(CheckpointError, match=r"x\.gguf \(model_type 'llama'\) cannot be understood: a value"):
        published_config("llama", GGUF(llama_file).metadata, shapes, {}, "x.gguf")


@pytest.mark.parametrize(
    ("name", "half", "lacks"),
    [
        ("gpt-oss", "ffn_up_exps.weight", "mlp.experts.up_proj"),
        ("gpt-oss", "ffn_up_exps.bias", "mlp.experts.up_proj_bias"),
        ("deepseek2", "attn_v_b.weight", "self_attn.v_b_proj.weight"),
    ],
)
def test_the_other_half_of_what_belongs_together_is_named_as_missing(name, half, lacks, tmp_path):
    published(name, tmp_path / "hf")
    export(cr.load(tmp_path / "hf"), tmp_path / "x.gguf", to="gguf", kind="f32")
    with pytest.raises(CheckpointError, match=rf"lacks 'model\.layers\.0\.{lacks}', which belongs to another of its tensors"):
        cr.load(rewritten(tmp_path / "x.gguf", tmp_path / "y.gguf", without=f"blk.0.{half}"))


def test_tensors_of_another_architectures_rope_are_refused(llama_file, tmp_path):
    more = {f"rope_factors_{one}.weight": torch.ones(8) for one in ("long", "short")}
    with pytest.raises(CheckpointError, match=r"'rope_factors_long.weight' has no place in this architecture"):
        cr.load(rewritten(llama_file, tmp_path / "bad.gguf", more=more))


def test_keys_that_ask_for_nothing_are_passed_over(llama_file, tmp_path):
    neutral = {
        "attention.causal": True, "attention.scale": 0.0, "logit_scale": 1.0, "expert_count": 0, "pooling_type": 0,
        "tensor_data_layout": "Meta AI original pth", "rope.scaling.finetuned": False, "attention.sliding_window": 0,
        "rope.scaling.type": "none", "rope.freq_base_swa": 1e4, "rope.scaling.original_context_length": 64,
    }  # fmt: skip
    other = rewritten(llama_file, tmp_path / "y.gguf", **{f"llama.{key}": value for key, value in neutral.items()})
    assert torch.equal(logits(cr.load(other)), logits(cr.load(llama_file)))


def test_a_size_of_yarns_scores_is_read(tmp_path):
    """llama.cpp's converter writes it where the publisher gives one."""
    published("qwen3", tmp_path / "hf", rope_parameters=YARN)
    export(cr.load(tmp_path / "hf"), tmp_path / "x.gguf", to="gguf", kind="f32")
    keys = {"qwen3.rope.scaling.yarn_attn_factor": 1.5, "qwen3.rope.scaling.yarn_ext_factor": 1.0}
    model = cr.load(rewritten(tmp_path / "x.gguf", tmp_path / "y.gguf", **keys)).model
    assert model.config.position.scaling.attention_factor == 1.5
    with pytest.raises(CheckpointError, match=r"yarn_ext_factor is 0\.5, which is not supported"):
        cr.load(rewritten(tmp_path / "x.gguf", tmp_path / "z.gguf", **{"qwen3.rope.scaling.yarn_ext_factor": 0.5}))


def test_only_weights_and_biases_have_names_in_a_file():
    names = ARCHS["llama"].names
    assert names.stored("model.layers.0.mlp.up_proj.weight") == "blk.0.ffn_up.weight"
    for name in ("model.layers.0.mlp.up_proj.packed", "model.layers.0.mlp.up_proj.scales", "model.norm.scale"):
        with pytest.raises(CheckpointError, match="has no place in this architecture"):
            names.stored(name)


def test_mutated_metadata_is_read_or_refused_and_nothing_else(llama_file, tmp_path):
    """Numbers in the keys that make the model: each file is loaded, or refused with one of our errors."""
    data, random, refused = llama_file.read_bytes(), np.random.default_rng(1), 0
    end = data.index(b"token_embd.weight")
    for _ in range(150):
        broken = bytearray(data)
        at = int(random.integers(20, end))
        broken[at] = int(random.integers(0, 256))
        (tmp_path / "m.gguf").write_bytes(broken)
        try:
            cr.load(tmp_path / "m.gguf")
        except cr.ChainruleError:
            refused += 1
    assert refused > 50


def test_what_gguf_cannot_say_is_refused_before_a_file_is_there(stories, tmp_path):
    from chainrule.models.ngram import NGram

    with pytest.raises(CheckpointError, match="type 'ngram'"):
        export(cr.LM(NGram.fit([[1, 2, 1]], order=2, vocab_size=4)), tmp_path / "x.gguf", to="gguf")
    published("llama", tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu"}))
    with pytest.raises(CheckpointError, match=r"mlp.activation is 'gelu', but whoever reads the file would take it for 'silu'"):
        export(cr.load(tmp_path / "hf"), tmp_path / "x.gguf", to="gguf")
    assert not (tmp_path / "x.gguf").exists()


def test_a_type_or_format_that_does_not_exist_is_refused_and_the_nearest_named(stories, tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'q4_k_m'"):
        export(stories, tmp_path / "x.gguf", to="gguf", kind="q4_km")
    with pytest.raises(ConfigError, match="its types: f32, int8"):
        export(stories, tmp_path / "x.bin", to="llama2c", kind="q8_0")
    with pytest.raises(ConfigError, match="did you mean 'gguf'"):
        export(stories, tmp_path / "x.gguf", to="ggfu")


def test_a_file_is_not_overwritten_unless_forced(stories, tmp_path):
    (tmp_path / "x.gguf").write_text("mine")
    with pytest.raises(CheckpointError, match="exists already"):
        export(stories, tmp_path / "x.gguf", to="gguf")
    assert (tmp_path / "x.gguf").read_text() == "mine"
    export(stories, tmp_path / "x.gguf", to="gguf", force=True)
    assert cr.load(tmp_path / "x.gguf").model.vocab_size == 512
