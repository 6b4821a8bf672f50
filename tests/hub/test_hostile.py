"""Folders that were damaged, or made to mislead: one clear error each, and nothing outside of them is read."""

import json
import os

import pytest

from chainrule.cli import main
from chainrule.core.errors import ChainruleError, CheckpointError
from chainrule.hub.build import LAYERS, parts
from chainrule.hub.export import export
from chainrule.hub.fresh import fresh
from chainrule.hub.load import load
from chainrule.hub.pictures import text_alone
from chainrule.hub.save import save
from chainrule.hub.shipped import SHIPPED, shipped_config
from chainrule.hub.tokenizer import find_tokenizer
from chainrule.tokenizers.byte import ByteTokenizer
from tests.models.parity import checkpoint

LLAMA = {
    "model_type": "llama", "vocab_size": 257, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "max_position_embeddings": 32,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    model = fresh(
        vocab_size=257, context=32, n_layers=1, d_model=16, n_heads=2, n_kv_heads=None, d_ff=16, rope_theta=1e4, tied=True,
        init="normal", seed=0,
    )  # fmt: skip
    save(tmp_path / "m", model, ByteTokenizer())
    return tmp_path / "m"


def changed(folder, name="config.json", **values):
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    "values",
    [
        {"num_attention_heads": 0}, {"hidden_size": "64"}, {"rope_scaling": "x"}, {"rope_scaling": ["linear", 2]},
        {"rope_scaling": {"rope_type": "linear", "factor": "x"}}, {"rope_scaling": {"rope_type": "linear"}},
        {"hidden_act": ["silu"]}, {"model_type": ["llama"]}, {"hidden_size": 10**12}, {"num_hidden_layers": -1},
        {"model_type": "decoder"}, {"quantization_config": [1]}, {"rms_norm_eps": "1e-6"},
    ],
)  # fmt: skip
def test_a_config_value_of_a_wrong_kind_is_a_clear_error(folder, values, capsys):
    settings = {"rope_parameters": None} if "rope_scaling" in values else {}
    changed(folder, **settings | values)
    with pytest.raises(ChainruleError):
        load(folder, device="cpu").next("a", 1)
    for verb in (["next", str(folder), "a"], ["plan", str(folder)]):
        # a plan has no weights to unpack, and knows the price of any width
        reads = verb[0] == "next" or values not in ({"quantization_config": [1]}, {"hidden_size": 10**12})
        assert main([*verb, "--device", "cpu" if verb[0] == "next" else "h100"]) == (2 if reads else 0)
        assert "chainrule: " in capsys.readouterr().err or not reads


@pytest.mark.parametrize("name", [*SHIPPED, "bert", "t5"])
def test_more_layers_than_any_model_has_are_refused_before_they_are_listed(name):
    config = shipped_config(SHIPPED[name][0]) if name in SHIPPED else transformers_config(name)
    within = text_alone(config)
    keys = [key for key in LAYERS if key in within]
    assert keys
    parts(config)
    for key in keys:
        with pytest.raises(
            CheckpointError, match=rf"'{key}' is 10001, and a model of more than 10,000 layers .* copy it again"
        ):
            parts(config | ({key: 10_001} if key in config else {"text_config": within | {key: 10_001}}))


def transformers_config(model_type):
    return pytest.importorskip("transformers").AutoConfig.for_model(model_type).to_dict()


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "gpt2", "num_hidden_layers": 10_001},
        {"model_type": "gemma3", "text_config": {"num_hidden_layers": 10_001}},
    ],
)
def test_layers_are_counted_under_another_familys_word_and_in_a_text_config_too(config):
    with pytest.raises(CheckpointError, match="'num_hidden_layers' is 10001"):
        parts(config)


def test_a_folder_with_too_many_layers_says_so_at_the_command_line(folder, capsys):
    changed(folder, num_hidden_layers=10**9)
    for verb in (["next", str(folder), "a"], ["plan", str(folder)]):
        assert main(verb) == 2
        assert "'num_hidden_layers' is 1000000000" in capsys.readouterr().err


def lead_out(path, tmp_path):
    """Put a link in the place of a file, to the same one outside of its folder."""
    outside = tmp_path / f"outside-{path.name}"
    outside.write_text(path.read_text() if path.exists() else "{}")
    path.unlink(missing_ok=True)
    path.symlink_to(outside)


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer_config.json", "generation_config.json", "config.json"])
def test_a_link_out_of_the_folder_is_refused_whatever_it_stands_for(folder, tmp_path, name):
    lead_out(folder / name, tmp_path)
    with pytest.raises(CheckpointError, match="leads out of its folder"):
        load(folder, device="cpu")


@pytest.mark.parametrize("name", ["config.json", "recipe.yaml"])
@pytest.mark.parametrize("run", [False, True])
def test_a_plan_reads_nothing_outside_of_its_folder_either(folder, tmp_path, name, run, capsys):
    if run:
        (tmp_path / "run").mkdir()
        folder = folder.rename(tmp_path / "run" / "model")
    home = folder.parent if run and name == "recipe.yaml" else folder
    lead_out(home / name, tmp_path)
    assert main(["plan", str(folder.parent if run else folder), "--device", "h100"]) == 2
    assert "leads out of its folder" in capsys.readouterr().err


def test_a_tokenizer_beside_a_file_of_llama2c_may_not_lie_elsewhere(material, tmp_path):
    for name in ("stories260K.bin", "tok512.bin"):
        (tmp_path / name).write_bytes((material / "stories260K" / name).read_bytes())
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "stories260K.bin").symlink_to(tmp_path / "stories260K.bin")  # the user's own link to what is asked for
    (tmp_path / "here" / "tok512.bin").symlink_to(tmp_path / "tok512.bin")
    with pytest.raises(CheckpointError, match=r"tok512\.bin leads out of its folder"):
        load(tmp_path / "here" / "stories260K.bin", device="cpu")


@pytest.mark.parametrize("name", ["tokenizer.json", "vocab.txt", "tokenizer_config.json"])
def test_a_tokenizer_alone_may_not_lie_outside_its_folder_either(folder, tmp_path, name, capsys):
    assert find_tokenizer(str(folder)).encode("a") == [97]
    lead_out(folder / name, tmp_path)
    with pytest.raises(CheckpointError, match="leads out of its folder"):
        find_tokenizer(str(folder))
    assert main(["tokenize", str(folder), "a"]) == 2
    assert "leads out of its folder" in capsys.readouterr().err


def test_a_tokenizer_beside_a_file_of_llm_c_may_not_lie_elsewhere(tmp_path):
    transformers = pytest.importorskip("transformers")
    checkpoint(tmp_path / "hf", transformers.GPT2Config(vocab_size=61, n_embd=16, n_layer=1, n_head=2, n_positions=32))
    export(load(tmp_path / "hf", device="cpu"), tmp_path / "here" / "x.bin", to="llmc", kind="f32")
    assert load(tmp_path / "here" / "x.bin", device="cpu").tokenizer is None
    lead_out(tmp_path / "here" / "tokenizer.json", tmp_path)
    with pytest.raises(CheckpointError, match="leads out of its folder"):
        load(tmp_path / "here" / "x.bin", device="cpu")


@pytest.fixture
def sentences(folder):
    """A model in the layout of sentence-transformers, its Transformer in a folder of its own."""
    home = folder.parent / "sentences"
    home.mkdir()
    folder.rename(home / "0_Transformer")
    (home / "1_Pooling").mkdir()
    (home / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "mean"}))
    modules = [{"path": path, "type": path.partition("_")[2]} for path in ("0_Transformer", "1_Pooling")]
    (home / "modules.json").write_text(json.dumps(modules))
    return home


@pytest.mark.parametrize(
    "name",
    [
        "modules.json", "1_Pooling/config.json", "0_Transformer/config.json", "0_Transformer/tokenizer_config.json",
        "0_Transformer/sentence_bert_config.json",
    ],
)  # fmt: skip
def test_a_link_out_of_a_sentence_models_folder_is_refused(sentences, tmp_path, name):
    assert load(sentences, device="cpu").next("a", 1)
    lead_out(sentences / name, tmp_path)
    with pytest.raises(CheckpointError, match="leads out of its folder"):
        load(sentences, device="cpu")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("modules.json", '{"type": "Transformer"}'), ("modules.json", '[{"type": 1, "path": "0_Transformer"}]'),
        ("modules.json", '[{"type": "Transformer", "path": ["0_Transformer"]}]'), ("1_Pooling/config.json", "[1]"),
        ("1_Pooling/config.json", '{"pooling_mode": 5}'), ("1_Pooling/config.json", '{"pooling_mode": [["mean"]]}'),
        ("0_Transformer/sentence_bert_config.json", '"x"'),
        ("0_Transformer/sentence_bert_config.json", '{"max_seq_length": "x"}'),
    ],
)  # fmt: skip
def test_settings_of_a_sentence_model_of_a_wrong_kind_are_a_clear_error(sentences, name, text, capsys):
    (sentences / name).write_text(text)
    with pytest.raises(CheckpointError):
        load(sentences, device="cpu")
    assert main(["next", str(sentences), "a"]) == 2
    assert "chainrule: " in capsys.readouterr().err


def test_the_links_of_the_cache_are_followed_in_its_folders_too(sentences, tmp_path):
    snapshot = tmp_path / "models--org--sentences" / "snapshots" / "abc"
    (snapshot.parent.parent / "blobs").mkdir(parents=True)
    for i, file in enumerate(sorted(path for path in sentences.rglob("*") if path.is_file())):
        blob, place = snapshot.parent.parent / "blobs" / str(i), snapshot / file.relative_to(sentences)
        blob.write_bytes(file.read_bytes())
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(os.path.relpath(blob, place.parent))
    assert load(snapshot, device="cpu").next("a", 1)
    assert find_tokenizer(str(snapshot / "0_Transformer")).encode("a") == [97]


def test_a_link_within_the_folder_is_followed(folder):
    os.rename(folder / "config.json", folder / "real.json")
    (folder / "config.json").symlink_to("real.json")
    assert load(folder, device="cpu").next("a", 1)


@pytest.mark.parametrize(
    ("model_type", "key"),
    [
        ("mistral", "sliding_window"), ("gemma2", "attn_logit_softcapping"), ("gemma2", "final_logit_softcapping"),
        ("deepseek_v3", "first_k_dense_replace"), ("deepseek_v3", "n_shared_experts"),
    ],
)  # fmt: skip
def test_a_key_that_means_another_model_where_it_is_absent_must_be_there(model_type, key):
    transformers = pytest.importorskip("transformers")
    name = {"mistral": "MistralConfig", "gemma2": "Gemma2Config", "deepseek_v3": "DeepseekV3Config"}[model_type]
    config = getattr(transformers, name)().to_dict()
    assert config[key] is not None  # what transformers takes where the key is absent
    parts(config)
    parts(config | {key: None})
    del config[key]
    with pytest.raises(CheckpointError, match=f"does not say '{key}'"):
        parts(config)


@pytest.mark.parametrize("nothing", [None, 0, False, [], {}])
def test_an_unknown_key_is_refused_unless_it_asks_for_nothing(nothing):
    parts(LLAMA | {"something_new": nothing})
    with pytest.raises(CheckpointError, match="something_new"):
        parts(LLAMA | {"something_new": 1})


def test_a_checkpoint_with_pictures_lacks_its_text_config():
    with pytest.raises(CheckpointError, match="holds no text_config"):
        parts({"model_type": "gemma3", "vision_config": {}})


def test_a_damaged_tokenizer_config_and_weights_that_are_no_file_are_refused(folder):
    held = (folder / "tokenizer_config.json").read_text()
    (folder / "tokenizer_config.json").write_text("[]")
    with pytest.raises(ChainruleError, match="holds a list"):
        load(folder, device="cpu")
    (folder / "tokenizer_config.json").write_text(held)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    with pytest.raises(CheckpointError, match="holds no weights"):
        load(folder, device="cpu")


@pytest.mark.parametrize("length", [300, 5000])
def test_a_name_of_thousands_of_letters_is_no_name(length, capsys):
    with pytest.raises(CheckpointError, match=f"{length} characters long"):
        load("x" * length)
    for verb in ("plan", "explain"):
        assert main([verb, "x" * length]) == 2
    assert "chainrule: " in capsys.readouterr().err


def test_a_broken_template_is_told_with_its_line(folder):
    (folder / "chat_template.jinja").write_text("{{ messages }}\n{% if %}")
    with pytest.raises(ChainruleError, match="chat template is broken in line 2"):
        load(folder, device="cpu").template.render([{"role": "user", "content": "hi"}])
