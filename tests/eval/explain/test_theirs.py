"""transformers watched while it loads: stages in order, at lines that exist, with seconds that add up; and what is refused."""

import linecache
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from chainrule.cli import main
from chainrule.core.errors import CheckpointError, ConfigError, RequestError
from chainrule.eval.explain import calls as calls_module
from chainrule.eval.explain import theirs
from chainrule.eval.explain.calls import OUTSIDE, Calls
from chainrule.eval.explain.model import explain
from chainrule.eval.explain.page import explanation_page
from chainrule.eval.explain.rows import beside
from chainrule.eval.explain.text import explanation_text
from chainrule.hub.fresh import recurrent
from chainrule.hub.gguf.model import write_model
from chainrule.hub.lm import LM
from chainrule.hub.safetensors import read_header
from chainrule.hub.save import save
from chainrule.tokenizers.byte import ByteTokenizer
from tests.eval.explain.test_model import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("transformers")
    return save(tmp_path_factory.mktemp("watched") / "tiny", tiny())


@pytest.fixture(scope="module")
def told(folder):
    return explain(str(folder), device="cpu", engine="transformers")


def test_the_stages_come_in_order_and_stand_at_lines_that_exist(told):
    import transformers

    names = [stage.name for stage in told.theirs.stages]
    assert len(names) >= 12
    order = [
        "import",
        "enter",
        "resolve",
        "config",
        "class",
        "files",
        "build",
        "rules",
        "open",
        "match",
        "assign",
        "tie",
        "eval",
    ]
    assert [name for name in names if name in order] == order
    assert told.theirs.version == transformers.__version__
    assert told.theirs.absent == ()
    home = Path(transformers.__file__).parent
    for stage in told.theirs.stages[1:-1]:
        place, name = stage.where.split(" ")
        file, line = place.rsplit(":", 1)
        assert f"def {name.rpartition('.')[2]}(" in linecache.getline(str(home / file), int(line))
    assert "models/llama/modeling_llama.py" in next(stage.where for stage in told.theirs.stages if stage.name == "build")


def test_every_tensor_is_assigned_once_and_the_seconds_add_up(folder, told):
    assign = next(stage for stage in told.theirs.stages if stage.name == "assign")
    assert assign.calls == len(tiny().state_dict())
    begin = time.perf_counter()
    again = theirs.traced(folder, "AutoModelForCausalLM", "auto", "cpu")
    whole = time.perf_counter() - begin
    assert again.seconds <= whole
    assert again.seconds == pytest.approx(whole, rel=0.25, abs=0.5)
    assert all(stage.seconds >= 0 for stage in again.stages)


def test_a_format_by_another_of_its_names_is_that_of_both(folder, monkeypatch):
    import transformers

    made, real = [], transformers.AutoModelForCausalLM.from_pretrained

    def remembered(*given, **named):
        made.append(real(*given, **named))
        return made[-1]

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", remembered)
    assert explain(str(folder), device="cpu", dtype="bfloat16", engine="transformers").dtype == "bfloat16"
    assert [model.dtype for model in made] == [torch.bfloat16]


SMALL = {"vocab_size": 60, "max_position_embeddings": 32}
PUBLISHED = {
    "gpt2": ("GPT2LMHeadModel", {"vocab_size": 60, "n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 32}),
    "qwen3_moe": (
        "Qwen3MoeForCausalLM",
        {"hidden_size": 32, "intermediate_size": 64, "moe_intermediate_size": 16, "num_hidden_layers": 1, "num_experts": 4,
         "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "num_experts_per_tok": 2} | SMALL,
    ),
    "bert": ("BertForMaskedLM", {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64} | SMALL),
    "t5": (
        "T5ForConditionalGeneration",
        {"vocab_size": 60, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 1, "num_heads": 4, "decoder_start_token_id": 0},
    ),
}  # fmt: skip
ENTRIES = {"bert": "AutoModelForMaskedLM", "t5": "AutoModelForSeq2SeqLM"}


@pytest.mark.parametrize("kind", PUBLISHED)
def test_split_and_stacked_tensors_add_up_to_the_file_and_the_class_is_the_one_for_the_kind(kind, tmp_path):
    transformers = pytest.importorskip("transformers")
    name, settings = PUBLISHED[kind]
    made = getattr(transformers, name)
    made(made.config_class(**settings)).save_pretrained(tmp_path / kind)
    told = explain(str(tmp_path / kind), device="cpu", engine="transformers")
    _, begin = read_header(tmp_path / kind / "model.safetensors")
    size = (tmp_path / kind / "model.safetensors").stat().st_size
    assert sum(fact.stored_bytes for fact in told.tensors) + begin == size
    assert told.theirs.entry == f"{ENTRIES.get(kind, 'AutoModelForCausalLM')}.from_pretrained"
    assert sum(seen.flops for seen in told.forward.seen) == pytest.approx(told.forward.flops, rel=1e-12)


def test_both_stand_side_by_side_in_text_and_on_the_page(told):
    rows = beside(told).rows
    assert {row[4] for row in rows} >= {stage.name for stage in told.stages}
    assert next(row for row in rows if row[0] == "config")[4] == "config"
    text = explanation_text(told)
    assert f"transformers {told.theirs.version}" in text
    assert "AutoModelForCausalLM.from_pretrained, watched by sys.setprofile" in text
    assert "<h2>Beside transformers" in explanation_page(told, "0").html()


def test_a_function_that_the_version_does_not_have_is_told_as_absent(folder, monkeypatch):
    gone = replace(theirs.STAGES[-3], functions=("modeling_utils:PreTrainedModel.no_such_thing",))
    monkeypatch.setattr(theirs, "STAGES", (*theirs.STAGES[:-3], gone, *theirs.STAGES[-2:]))
    found = theirs.traced(folder, "AutoModelForCausalLM", "auto", "cpu")
    assert found.absent == (f"{gone.name}: transformers.modeling_utils.PreTrainedModel.no_such_thing",)
    assert gone.name not in [stage.name for stage in found.stages]
    assert any(gone.name in remark for remark in found.remarks)


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes when it is told to, so that seconds are exact."""
    now = [0.0]
    monkeypatch.setattr(calls_module, "time", SimpleNamespace(perf_counter=lambda: now[0]))

    def wait(seconds):
        now[0] += seconds

    return wait


def test_what_happens_belongs_to_the_innermost_watched_function(clock):
    def inner():
        clock(3)

    def outer():
        clock(1)
        inner()
        clock(10)
        return inner

    def learned():
        clock(2)

    with Calls(
        {inner.__code__: "inner", outer.__code__: "outer"}, {outer.__code__: lambda _: {learned.__code__: "late"}}
    ) as calls:
        learned()
        outer()
        learned()
        clock(20)
    assert {name: one.seconds for name, one in calls.spent.items()} == {OUTSIDE: 22, "outer": 11, "inner": 3, "late": 2}
    assert {name: one.calls for name, one in calls.spent.items()} == {OUTSIDE: 0, "outer": 1, "inner": 1, "late": 1}
    assert list(calls.called) == ["outer", "inner", "late"]


def test_an_exception_on_the_way_leaves_no_function_open(clock):
    def fails():
        clock(1)
        raise ValueError

    with Calls({fails.__code__: "fails"}) as calls:
        with pytest.raises(ValueError):
            fails()
        clock(5)
    assert {name: one.seconds for name, one in calls.spent.items()} == {OUTSIDE: 5, "fails": 1}


def test_without_transformers_the_message_says_what_to_install(folder, monkeypatch, capsys):
    monkeypatch.setattr(theirs, "find_spec", lambda _: None)
    assert main(["explain", str(folder), "--engine", "transformers"]) == 2
    assert "pip install transformers" in capsys.readouterr().err


def test_what_transformers_cannot_load_is_refused(folder, tmp_path):
    with pytest.raises(ConfigError, match="no int4"):
        explain(str(folder), device="cpu", dtype="int4", engine="transformers")
    write_model(LM(tiny(), name="tiny"), tmp_path / "tiny.gguf", "q8_0")
    for name in (str(tmp_path / "tiny.gguf"), "world", "meta-llama/Meta-Llama-3.1-8B-Instruct"):
        with pytest.raises(RequestError, match="which reads a folder with"):
            explain(name, engine="transformers")
    save(tmp_path / "lstm", recurrent(vocab_size=257, d_model=16), ByteTokenizer())
    with pytest.raises(CheckpointError, match="cannot load"):
        explain(str(tmp_path / "lstm"), device="cpu", engine="transformers")
