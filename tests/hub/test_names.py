"""Names: what is found here, what is fetched from a hub (one that runs inside the test), and what is said where neither works."""

import base64
import json
import sys

import pytest
import torch

from chainrule.adapt.lora import Lora, adapters, attach
from chainrule.cli import main
from chainrule.core.errors import ChainruleError, CheckpointError, TokenizerError
from chainrule.hub import fetch
from chainrule.hub.lm import LM
from chainrule.hub.load import load
from chainrule.hub.names import here, resolve
from chainrule.hub.peft import write_adapter
from chainrule.hub.safetensors import Mapped, write_tensors
from chainrule.hub.save import save
from chainrule.hub.tokenizer import find_tokenizer
from chainrule.tokenizers.byte import ByteTokenizer
from tests.hub.server import SHA, running
from tests.hub.test_weights import TOKENS, tiny


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """What the hub publishes: one model whole, one in two shards, one pickled, each with things that nobody needs."""
    root = tmp_path_factory.mktemp("published")
    whole = save(root / "whole", tiny(), ByteTokenizer())
    sharded = save(root / "sharded", tiny(), ByteTokenizer())
    file = Mapped(sharded / "model.safetensors")
    names = list(file.slots)
    index = {}
    for i, part in enumerate((names[:9], names[9:]), 1):
        name = f"model-0000{i}-of-00002.safetensors"
        write_tensors({name: file.tensor(name) for name in part}, sharded / name)
        index |= dict.fromkeys(part, name)
    (sharded / "model.safetensors").unlink()
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    pickled = save(root / "pickled", tiny(), ByteTokenizer())
    torch.save({name: file.tensor(name) for name in names}, pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    for folder in (whole, sharded):
        (folder / "pytorch_model.bin").write_bytes(b"never fetched")
        (folder / "README.md").write_text("never fetched")
        (folder / "consolidated.safetensors").write_bytes(b"never fetched")
    write_adapter(adapted().model, root / "adapter", base="org/whole")
    return root


def adapted():
    """The tiny model with an adapter that has learned something."""
    model = tiny()
    attach(model, Lora(rank=2), ("q_proj",), torch.Generator().manual_seed(5))
    with torch.no_grad():
        for layer in adapters(model).values():
            layer.b.fill_(0.1)
    return LM(model)


@pytest.fixture
def hub(published, tmp_path, monkeypatch):
    """The hub, and an environment in which nothing else can be reached."""
    for key in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN", "MODELSCOPE_API_TOKEN"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "scope"))
    monkeypatch.setattr(fetch, "TRIES", 1)
    monkeypatch.chdir(tmp_path)
    models = {f"org/{folder.name}": folder for folder in published.iterdir()}
    with running(models) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("MODELSCOPE_DOMAIN", server.url)
        yield server


HUBS = ("", "modelscope:")


@pytest.mark.parametrize("prefix", HUBS)
@pytest.mark.parametrize("model", ["whole", "sharded"])
def test_a_model_is_fetched_once_with_nothing_it_does_not_need(hub, prefix, model):
    steps = []
    lm = load(f"{prefix}org/{model}", device="cpu", trace=steps.append)
    assert torch.equal(lm.model(TOKENS), tiny()(TOKENS))
    assert lm.tokenizer.vocab_size == 257
    assert "download" in [step.stage for step in steps]
    asked = [path.rsplit("/")[-1] for kind, path, _ in hub.requests if kind == "GET" and "resolve" in path]
    assert len(asked) == len(set(asked))
    assert not {"pytorch_model.bin", "README.md", "consolidated.safetensors"} & set(asked)
    hub.requests.clear()
    assert torch.equal(load(f"{prefix}org/{model}", device="cpu").model(TOKENS), tiny()(TOKENS))
    assert not [path for kind, path, _ in hub.requests if kind == "GET" and "resolve" in path]


@pytest.mark.parametrize(
    ("prefix", "because"), [("", "is neither a folder here nor a model at"), ("modelscope:", "has no model")]
)
def test_an_adapter_is_fetched_like_a_model(hub, prefix, because, monkeypatch):
    lm = load("org/whole", adapter=f"{prefix}org/adapter", device="cpu")
    assert torch.equal(lm.model(TOKENS), adapted().model(TOKENS))
    hub.requests.clear()
    load("org/whole", adapter=f"{prefix}org/adapter", device="cpu")
    assert not [path for kind, path, _ in hub.requests if kind == "GET" and "resolve" in path]
    with pytest.raises(CheckpointError, match=r"holds no adapter_config.json, so it is no adapter"):
        load("org/whole", adapter=f"{prefix}org/sharded", device="cpu")
    with pytest.raises(CheckpointError, match=because):
        load("org/whole", adapter=f"{prefix}org/none", device="cpu")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    lm = load("org/whole", adapter=f"{prefix}org/adapter", device="cpu")
    assert torch.equal(lm.model(TOKENS), adapted().model(TOKENS))
    with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE forbids fetching it"):
        load("org/whole", adapter=f"{prefix}org/none", device="cpu")


@pytest.mark.parametrize("prefix", HUBS)
def test_an_interrupted_download_goes_on_where_it_stopped(hub, prefix):
    size = (hub.models["org/whole"] / "model.safetensors").stat().st_size
    hub.breaks["model.safetensors"] = 1000
    with pytest.raises(CheckpointError, match=rf"stopped at 1,000 of {size:,} bytes .* run the same again"):
        load(f"{prefix}org/whole", device="cpu")
    hub.down = False
    hub.requests.clear()
    assert torch.equal(load(f"{prefix}org/whole", device="cpu").model(TOKENS), tiny()(TOKENS))
    gets = [(path, range) for kind, path, range in hub.requests if kind == "GET" and path.endswith("model.safetensors")]
    assert [range for _, range in gets] == ["bytes=1000-"]


@pytest.mark.parametrize("prefix", HUBS)
def test_a_connection_that_breaks_once_is_taken_up_again_by_itself(hub, prefix, monkeypatch):
    monkeypatch.setattr(fetch, "TRIES", 3)
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds: setattr(hub, "down", False))
    hub.breaks["model.safetensors"] = 1000
    assert torch.equal(load(f"{prefix}org/whole", device="cpu").model(TOKENS), tiny()(TOKENS))


def test_an_address_that_expires_during_a_long_download_is_asked_for_again(hub, monkeypatch):
    def later(seconds):
        hub.down, hub.signature = False, 2

    monkeypatch.setattr(fetch, "TRIES", 3)
    monkeypatch.setattr(fetch.time, "sleep", later)
    monkeypatch.setenv("HF_TOKEN", hub.token)
    hub.signature = 1
    hub.breaks["model.safetensors"] = 1000
    assert torch.equal(load("org/whole", device="cpu").model(TOKENS), tiny()(TOKENS))
    asked = [(path.split("/")[2], range) for kind, path, range in hub.requests if path.startswith("/cdn")]
    assert asked == [("1", None), ("1", "bytes=1000-"), ("2", "bytes=1000-")]
    assert hub.trusted == {"127.0.0.1"}  # the other host has seen no token


def test_another_host_that_lets_nobody_in_does_not_make_a_model_gated(hub):
    hub.signature, hub.refuses = 1, True
    with pytest.raises(CheckpointError, match=r"has weights at localhost:\d+, which answers 403 .* run the same again"):
        load("org/whole", device="cpu")
    hub.refuses = False
    assert torch.equal(load("org/whole", device="cpu").model(TOKENS), tiny()(TOKENS))


@pytest.mark.parametrize("prefix", HUBS)
def test_a_server_that_cannot_go_on_sends_the_file_anew(hub, prefix):
    hub.breaks["model.safetensors"] = 1000
    with pytest.raises(CheckpointError, match="stopped at 1,000"):
        load(f"{prefix}org/whole", device="cpu")
    hub.down = hub.ranges = False
    assert torch.equal(load(f"{prefix}org/whole", device="cpu").model(TOKENS), tiny()(TOKENS))


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize(("left", "ranges"), [(10, False), (5000, True), (5000, False)])
def test_what_is_left_of_an_older_file_is_thrown_away(hub, tmp_path, left, ranges, told):
    """More than there is now, or a beginning that the server cannot go on from; with its size told or not."""
    new = (hub.models["org/whole"] / "config.json").read_bytes()
    (tmp_path / "c.json.part").write_bytes(b"x" * left)
    hub.ranges = ranges
    size = len(new) if told else None
    fetch.fetch(f"{hub.url}/org/whole/resolve/{SHA}/config.json", tmp_path / "c.json", size=size)
    assert (tmp_path / "c.json").read_bytes() == new


@pytest.mark.parametrize("prefix", HUBS)
def test_a_file_that_arrives_damaged_is_thrown_away(hub, prefix):
    hub.lies.add("model.safetensors")
    with pytest.raises(CheckpointError, match="arrived damaged"):
        load(f"{prefix}org/whole", device="cpu")
    hub.lies.clear()
    assert torch.equal(load(f"{prefix}org/whole", device="cpu").model(TOKENS), tiny()(TOKENS))


def test_a_revision_is_taken_by_name_and_by_commit(hub):
    assert resolve("org/whole@main").name == SHA
    assert resolve(f"org/whole@{SHA}").name == SHA
    with pytest.raises(CheckpointError, match=r"org/whole has no revision 'v9'; give a branch, tag or commit"):
        resolve("org/whole@v9")
    with pytest.raises(CheckpointError, match="no model org/whole with a revision 'v9'"):
        resolve("modelscope:org/whole@v9")


def test_a_gated_model_says_how_to_get_in_and_opens_with_a_token(hub, monkeypatch):
    hub.gated.add("org/whole")
    with pytest.raises(
        CheckpointError, match=r"org/whole is gated: ask for access at http.*/org/whole, .* export HF_TOKEN=hf_"
    ):
        load("org/whole")
    with pytest.raises(CheckpointError, match="export MODELSCOPE_API_TOKEN="):
        load("modelscope:org/whole")
    monkeypatch.setenv("HF_TOKEN", hub.token)
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", hub.token)
    for prefix in HUBS:
        assert torch.equal(load(f"{prefix}org/whole", device="cpu").model(TOKENS), tiny()(TOKENS))


def test_a_missing_model_is_named(hub):
    with pytest.raises(
        CheckpointError, match=r"org/nothing is neither a folder here nor a model at http.*; check the spelling"
    ):
        load("org/nothing")
    with pytest.raises(CheckpointError, match="has no model org/nothing"):
        load("modelscope:org/nothing")


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_the_cache_is_used_and_nothing_is_asked(hub, variable, monkeypatch):
    for prefix in HUBS:
        load(f"{prefix}org/sharded", device="cpu")
    hub.requests.clear()
    monkeypatch.setenv(variable, "1")
    for prefix in HUBS:
        assert torch.equal(load(f"{prefix}org/sharded", device="cpu").model(TOKENS), tiny()(TOKENS))
        with pytest.raises(CheckpointError, match=rf"not in the cache \(.*{variable} forbids fetching it"):
            load(f"{prefix}org/whole")
    assert hub.requests == []


def test_without_a_network_the_cache_is_used_and_else_the_reason_given(hub, monkeypatch):
    for prefix in HUBS:
        load(f"{prefix}org/whole", device="cpu")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("MODELSCOPE_DOMAIN", "http://127.0.0.1:9")
    for prefix in HUBS:
        assert torch.equal(load(f"{prefix}org/whole", device="cpu").model(TOKENS), tiny()(TOKENS))
    with pytest.raises(
        CheckpointError, match=r"cannot be reached \(.*refused.*\); give a folder, or set HF_ENDPOINT to a mirror"
    ):
        load("org/sharded")
    with pytest.raises(CheckpointError, match=r"gives no list of its files \(.*refused.*\)"):
        load("modelscope:org/sharded")


@pytest.mark.parametrize("recorded", [True, False])
def test_what_modelscope_publishes_anew_in_the_same_size_is_fetched_again(hub, tmp_path, recorded):
    """By its sha256: that of the time it was fetched, or of the file itself where nobody wrote one down."""
    old, new = tiny(), tiny()
    with torch.no_grad():
        new.norm.weight.mul_(2)
    hub.models["org/again"] = save(tmp_path / "old", old, ByteTokenizer())
    assert torch.equal(load("modelscope:org/again", device="cpu").model(TOKENS), old(TOKENS))
    record = tmp_path / "scope" / "models" / "org" / "again" / ".sha256.json"
    before = record.read_text()
    for model, fetched in ((old, []), (new, ["model.safetensors"])):
        if not recorded:
            record.unlink()
        hub.models["org/again"] = save(tmp_path / "published", model, ByteTokenizer(), force=True)
        hub.requests.clear()
        assert torch.equal(load("modelscope:org/again", device="cpu").model(TOKENS), model(TOKENS))
        assert [path.rsplit("/")[-1] for _, path, _ in hub.requests if "resolve" in path] == fetched
        assert (record.read_text() == before) == (model is old)


def test_half_a_model_is_never_taken_for_one(hub, monkeypatch):
    hub.breaks["model-00002-of-00002.safetensors"] = 1000
    with pytest.raises(CheckpointError, match="stopped at 1,000"):
        load("modelscope:org/sharded", device="cpu")
    with pytest.raises(CheckpointError, match="answers 503"):
        load("modelscope:org/sharded", device="cpu")
    with monkeypatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(CheckpointError, match=r"only in part in the cache \(.*HF_HUB_OFFLINE forbids"):
            load("modelscope:org/sharded", device="cpu")
    with monkeypatch.context() as patch:
        patch.setenv("MODELSCOPE_DOMAIN", "http://127.0.0.1:9")
        with pytest.raises(CheckpointError, match=r"only in part in the cache \(.*gives no list of its files"):
            load("modelscope:org/sharded", device="cpu")
    hub.down = False
    assert torch.equal(load("modelscope:org/sharded", device="cpu").model(TOKENS), tiny()(TOKENS))


@pytest.mark.parametrize("prefix", HUBS)
def test_a_whole_model_is_used_while_its_site_is_out_of_order(hub, prefix):
    load(f"{prefix}org/sharded", device="cpu")
    hub.down = True
    assert torch.equal(load(f"{prefix}org/sharded", device="cpu").model(TOKENS), tiny()(TOKENS))


@pytest.mark.parametrize("prefix", HUBS)
def test_pickles_are_fetched_only_where_they_are_asked_for(hub, prefix):
    with pytest.raises(CheckpointError, match=r"publishes no safetensors; .* pickle=True \(--pickle\)"):
        load(f"{prefix}org/pickled")
    assert torch.equal(load(f"{prefix}org/pickled", device="cpu", pickle=True).model(TOKENS), tiny()(TOKENS))


@pytest.mark.parametrize("prefix", HUBS)
@pytest.mark.parametrize("missing", ["forbidden", "unreachable", "down"])
def test_pickles_in_the_cache_are_read_without_the_hub_where_they_are_asked_for(hub, prefix, missing, monkeypatch):
    load(f"{prefix}org/pickled", device="cpu", pickle=True)
    if missing == "forbidden":
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    elif missing == "unreachable":
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setenv("MODELSCOPE_DOMAIN", "http://127.0.0.1:9")
    hub.down = missing == "down"
    hub.requests.clear()
    assert torch.equal(load(f"{prefix}org/pickled", device="cpu", pickle=True).model(TOKENS), tiny()(TOKENS))
    with pytest.raises(CheckpointError, match=r"if you trust \w+, say pickle=True \(--pickle\)"):
        load(f"{prefix}org/pickled", device="cpu")
    assert missing == "down" or hub.requests == []


@pytest.fixture
def renamed(hub, tmp_path):
    """A model in shards, as safetensors and as pickles, whose names are of no usual form."""
    for kind, ending in (("model.safetensors", "safetensors"), ("pytorch_model.bin", "bin")):
        folder = save(tmp_path / ending, tiny(), ByteTokenizer())
        file = Mapped(folder / "model.safetensors")
        names = {name: f"{'upper' if 'layers' in name else 'lower'}_half.{ending}" for name in file.slots}
        for shard in set(names.values()):
            part = {name: file.tensor(name).clone() for name in file.slots if names[name] == shard}
            torch.save(part, folder / shard) if ending == "bin" else write_tensors(part, folder / shard)
        (folder / "model.safetensors").unlink()
        (folder / f"model-other.{ending}").write_bytes(b"never fetched")
        (folder / f"{kind}.index.json").write_text(json.dumps({"weight_map": names}))
        hub.models[f"org/{ending}"] = folder


@pytest.mark.parametrize("prefix", HUBS)
@pytest.mark.parametrize("ending", ["safetensors", "bin"])
def test_shards_are_those_that_the_index_names(hub, renamed, prefix, ending):
    lm = load(f"{prefix}org/{ending}", device="cpu", pickle=ending == "bin")
    assert torch.equal(lm.model(TOKENS), tiny()(TOKENS))
    assert not [path for _, path, _ in hub.requests if "model-other" in path]


def test_a_shard_that_the_site_does_not_have_is_named(hub, renamed):
    (hub.models["org/safetensors"] / "upper_half.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"org/safetensors lacks a file|lacks upper_half\.safetensors, which its model"):
        load("org/safetensors", device="cpu")
    with pytest.raises(
        CheckpointError, match=r"lacks upper_half\.safetensors, which its model\.safetensors\.index\.json names"
    ):
        load("modelscope:org/safetensors", device="cpu")


@pytest.mark.parametrize("prefix", HUBS)
def test_an_index_that_names_files_elsewhere_is_refused(hub, prefix, tmp_path):
    folder = tmp_path / "evil"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../../secret"}}))
    hub.models["org/evil"] = folder
    with pytest.raises(CheckpointError, match=r"names '\.\./\.\./secret', which is no file of the model's own folder"):
        load(f"{prefix}org/evil")


@pytest.mark.parametrize("prefix", HUBS)
def test_an_index_of_safetensors_that_names_a_pickle_is_refused_before_it_is_fetched(hub, prefix, tmp_path):
    folder = save(tmp_path / "published", tiny(), ByteTokenizer())
    file = Mapped(folder / "model.safetensors")
    torch.save({name: file.tensor(name).clone() for name in file.slots}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    names = dict.fromkeys(file.slots, "pytorch_model.bin")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    hub.models["org/evil"] = folder
    with pytest.raises(CheckpointError, match=r"names 'pytorch_model\.bin', which is no \.safetensors file"):
        load(f"{prefix}org/evil", device="cpu")
    assert not [path for _, path, _ in hub.requests if path.endswith(".bin")]


def test_a_local_folder_wins_over_a_hub(hub, tmp_path):
    save(tmp_path / "org" / "whole", tiny(), ByteTokenizer())
    load("org/whole", device="cpu")
    assert hub.requests == []


@pytest.mark.parametrize("name", ["runs/nothing", "nothing", "a/b/c", "./org/whole", "org/weights.bin", "modelscope:whole"])
def test_what_cannot_be_on_a_hub_is_never_asked_there(hub, name):
    with pytest.raises(CheckpointError, match=r"does not exist here.*; give a run"):
        load(name)
    assert hub.requests == []


@pytest.mark.parametrize("name", ["gpt2", f"gpt2@{SHA}"])
def test_a_name_from_before_there_were_organisations_is_still_one(hub, name):
    hub.models["openai-community/gpt2"] = hub.models["org/whole"]
    lm = load(name, device="cpu")
    assert torch.equal(lm.model(TOKENS), tiny()(TOKENS))
    assert lm.name == "openai-community/gpt2"


@pytest.mark.parametrize("prefix", HUBS)
def test_the_tokenizer_of_kimi_comes_with_its_model(hub, prefix, tmp_path):
    folder = save(tmp_path / "published", tiny(vocab_size=512))
    lines = [f"{base64.b64encode(bytes([byte])).decode()} {byte}" for byte in range(256)]
    (folder / "tiktoken.model").write_text("\n".join(lines))
    (folder / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {"256": {"content": "[BOS]"}}}))
    hub.models["org/kimi"] = folder
    lm = load(f"{prefix}org/kimi", device="cpu")
    assert lm.tokenizer.encode("é") == [0xC3, 0xA9]
    assert lm.tokenizer.specials["[BOS]"] == 256


@pytest.mark.parametrize("name", ["gpt2", "org/whole", f"org/whole@{SHA}", "modelscope:org/whole", "org/pickled"])
def test_a_tokenizer_comes_without_the_weights_of_its_model(hub, name, capsys, monkeypatch):
    hub.models["openai-community/gpt2"] = hub.models["org/whole"]
    for switch in ("", "1"):
        monkeypatch.setenv("HF_HUB_OFFLINE", switch)
        assert main(["tokenize", name, "hi", "--color", "never"]) == 0
        assert capsys.readouterr().out.splitlines()[:2] == ["h|i", "104 105"]
    asked = [path for kind, path, _ in hub.requests if kind == "GET"]
    assert not [path for path in asked if path.endswith((".safetensors", ".bin", ".md"))]


def test_a_model_is_whole_after_its_tokenizer_came_alone(hub):
    for prefix in HUBS:
        find_tokenizer(f"{prefix}org/whole")
        assert here(f"{prefix}org/whole") is None
        assert torch.equal(load(f"{prefix}org/whole", device="cpu").model(TOKENS), tiny()(TOKENS))


def test_a_tokenizer_that_is_nowhere_is_told_as_a_model_is(hub, tmp_path, monkeypatch):
    for name, because in (
        ("gtp2", r"gtp2 does not exist here \(did you mean 'gpt2'\?\); give a tokenizer file"),
        ("runs/nothing", "runs/nothing does not exist here; give a tokenizer file"),
        ("org/nothing", "org/nothing is neither a folder here nor a model at http"),
        ("modelscope:org/nothing", "has no model org/nothing"),
    ):
        with pytest.raises(ChainruleError, match=because):
            find_tokenizer(name)
    hub.models["org/bare"] = save(tmp_path / "published", tiny())
    for prefix in HUBS:
        with pytest.raises(TokenizerError, match="holds no one tokenizer"):
            find_tokenizer(f"{prefix}org/bare")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for prefix in HUBS:
        with pytest.raises(CheckpointError, match="HF_HUB_OFFLINE forbids fetching it"):
            find_tokenizer(f"{prefix}org/whole")


def test_a_local_folder_wins_over_such_a_name(hub, tmp_path):
    save(tmp_path / "gpt2", tiny(), ByteTokenizer())
    assert load("gpt2", device="cpu").name == "gpt2"
    assert hub.requests == []


def test_a_name_without_its_organisation_is_told_with_it(hub):
    with pytest.raises(CheckpointError, match=r"qwen3-8b does not exist here \(did you mean 'Qwen/Qwen3-8B'\?\); give a run"):
        load("qwen3-8b")
    with pytest.raises(CheckpointError, match=r"gtp2 does not exist here \(did you mean 'gpt2'\?\); give a run"):
        load("gtp2")
    assert hub.requests == []


def test_a_misspelt_run_names_the_nearest(hub, tmp_path):
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="did you mean 'runs/quickstart'"):
        load("runs/quikstart")


@pytest.mark.parametrize(
    ("kind", "name", "because"),
    [
        ("quickstart", "quickstart", r"is a quickstart that has no model yet; .*: chainrule quickstart --resume$"),
        ("quickstart", "mine", r"has no model yet; .*: chainrule quickstart --name mine --resume$"),
        ("history", "ladder", r"is a ladder that has no model yet; .*: chainrule ladder --resume$"),
        ("ablation", "ablation", "is an ablation, which keeps no model"),
        ("another program's", "other", "holds no config.json"),
    ],
)
def test_a_run_of_many_stages_without_a_model_says_how_to_get_one(hub, tmp_path, kind, name, because):
    folder = tmp_path / "runs" / name
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text(json.dumps({"kind": kind}))
    with pytest.raises(CheckpointError, match=because):
        load(f"runs/{name}", device="cpu")


def test_a_quickstart_elsewhere_is_gone_on_with_there(hub, tmp_path):
    folder = tmp_path / "my runs" / "quickstart"
    folder.mkdir(parents=True)
    (folder / "plan.json").write_text('{"kind": "quickstart"}')
    with pytest.raises(CheckpointError, match=r"chainrule quickstart --runs '/.*/my runs' --resume$"):
        load(folder, device="cpu")


def test_a_ladder_names_the_models_inside(hub, tmp_path):
    folder = tmp_path / "runs" / "ladder"
    for name in ("rnn", "llama"):
        save(folder / name / "model", tiny(), ByteTokenizer())
    (folder / "plan.json").write_text('{"kind": "history"}')
    with pytest.raises(CheckpointError, match=r"of several models; name one of them: runs/ladder/llama, runs/ladder/rnn$"):
        load("runs/ladder", device="cpu")
    assert torch.equal(load("runs/ladder/llama", device="cpu").model(TOKENS), tiny()(TOKENS))


def test_the_command_line_says_it_in_one_line(hub, capsys):
    from chainrule.cli import main

    hub.gated.add("org/whole")
    assert main(["score", "org/whole", "Tom"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("chainrule: org/whole is gated")
    assert len(err.splitlines()) == 1
    assert main(["score", "org/sharded", "Tom"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(sys.platform != "linux", reason="the other programs' cache is compared by its links")
def test_what_we_fetch_other_programs_find_and_the_other_way_round(hub, tmp_path):
    import huggingface_hub

    load("org/whole", device="cpu")
    cache = tmp_path / "home" / "hub"
    hub.requests.clear()
    found = huggingface_hub.try_to_load_from_cache("org/whole", "model.safetensors", cache_dir=cache)
    assert found
    assert huggingface_hub.hf_hub_download("org/whole", "config.json", cache_dir=cache, endpoint=hub.url)
    huggingface_hub.snapshot_download("org/sharded", cache_dir=cache, endpoint=hub.url)
    hub.requests.clear()
    load("org/sharded", device="cpu")
    assert not [path for kind, path, _ in hub.requests if kind == "GET" and "resolve" in path]


@pytest.mark.parametrize(("variable", "value"), [("HF_HOME", "$CACHES/hf"), ("HF_HUB_CACHE", "${CACHES}/hf/hub")])
def test_a_variable_in_the_name_of_the_cache_is_filled_in_as_huggingface_hub_does(hub, tmp_path, monkeypatch, variable, value):
    monkeypatch.setenv("CACHES", str(tmp_path / "caches"))
    monkeypatch.setenv(variable, value)
    load("org/whole", device="cpu")
    assert (tmp_path / "caches" / "hf" / "hub" / "models--org--whole").is_dir()


def test_what_is_in_the_cache_is_found_without_asking_the_network(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("MODELSCOPE_CACHE", str(tmp_path / "ms"))
    home = tmp_path / "hub" / "models--org--tiny"
    folder = home / "snapshots" / ("a" * 40)
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text("a" * 40)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert here("org/tiny") is None  # its weights are missing
    (folder / "model.safetensors").write_bytes(b"")
    assert here("org/tiny") == folder
    assert here("org/other") is None
    assert here("modelscope:org/tiny") is None
    assert here("runs/tiny") is None
    assert here(str(folder)) == folder
