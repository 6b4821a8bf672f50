"""What we export runs in llama.cpp: the same logits, the same text, the same ids; and our quantizers lose no more than its own.

llama-cpp-python is not among the packages for tests, since it is compiled for many minutes where it is installed:
pip install llama-cpp-python. Its source package holds llama.cpp's converter, in vendor/llama.cpp: LLAMA_CPP names that folder.
What was measured is kept in docs/results.json, once every test has run.
"""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

import chainrule as cr
from chainrule.adapt.blocks import FORMATS, pack, unpack
from chainrule.core.errors import CheckpointError
from chainrule.generate.engine import Engine, Request
from chainrule.hub.export import export
from chainrule.hub.gguf.vocab import PRES
from chainrule.tokenizers import load as load_tokenizer
from chainrule.tokenizers.bpe import BPE
from chainrule.tokenizers.chat import CHATML, IM_END, IM_START, ChatTemplate
from chainrule.tokenizers.fast import LibraryTokenizer
from chainrule.tokenizers.patterns import PATTERNS
from tests.hub.gguf_cases import CASES, published
from tests.measured import keep_measured
from tests.models.parity import checkpoint
from tests.models.test_families import FAMILIES as OTHERS
from tests.models.test_llama import BASE, CONFIGS

pytestmark = pytest.mark.prove
FAMILIES = {"Llama": (BASE, CONFIGS)} | OTHERS
VARIANTS = [(family, variant) for family, (_, variants) in FAMILIES.items() for variant in variants]
SAMPLE = Path(__file__).parents[2] / "docs" / "sample.txt"
TEXTS = (
    "Tom went to the park. It's 10:45!",
    "今天的天气很好，小明去了图书馆。",
    "x = 3*(4+5)\n\n  two  spaces\ttab\r\n",
    "naïve café 😀 ①",
)
F32 = 0
"""ggml's number for float32: keys and values are kept in it, since the usual float16 would hide what we compare."""


@pytest.fixture(scope="module")
def llama():
    """The package, or a skip that says why."""
    try:
        import llama_cpp
    except ImportError:
        pytest.skip("llama-cpp-python is not installed; it compiles for many minutes: pip install llama-cpp-python")
    return llama_cpp


@pytest.fixture(scope="module")
def kept(llama):
    """What the tests measure, by their names; written down behind the last of them, unless it is a part alone."""
    found: dict[str, dict[str, float]] = {"variants": {}, "converted": {}, "exported": {}, "quantized": {}, "error_to_ggml": {}}
    yield found
    if len(found["variants"]) == len(VARIANTS):  # not where -k chose some, or several processes share them
        keep_measured(
            "llama.cpp", 1, {"llama_cpp": llama.__version__} | {name: table for name, table in found.items() if table}
        )


@pytest.fixture(scope="module")
def tokenizer():
    names = ("<|endoftext|>", IM_START, IM_END)
    return BPE.train([SAMPLE.read_text(encoding="utf-8")], 320, pattern="qwen2", specials=names)


def opened(llama, path, n=64):
    return llama.Llama(
        str(path), n_ctx=n, logits_all=True, verbose=False, type_k=F32, type_v=F32, n_threads=1, flash_attn=False
    )


def theirs(llama, path, ids):
    model = opened(llama, path)
    model.eval(ids)
    return torch.tensor(np.array(model.scores[: len(ids)]))


@torch.no_grad()
def ours(path, ids):
    return cr.load(path, dtype="fp32").model(torch.tensor([ids]))[0]


def relative(a, b):
    return float((a - b).abs().max() / b.abs().max())


def same_text(llama, path, model, prompt, n=12):
    """The same greedy continuation, read from the logits of each."""
    said, engine = opened(llama, path), Engine(model)
    said.eval(prompt)
    engine.submit(Request(tokens=prompt, max_tokens=n, temperature=0.0))
    for token in [event.token for _ in range(n) for event in engine.step()]:
        assert int(np.argmax(said.scores[said.n_tokens - 1])) == token
        said.eval([token])


SUITED = {
    "Gemma2": {"head_dim": 16},
    "Gemma3Text": {"head_dim": 16},
    "Llama4Text": {"attention_chunk_size": 8192},
    "Qwen3Moe": {"norm_topk_prob": True},
}
"""What llama.cpp takes for granted in a family."""
TOLD = {
    ("Llama", "other-theta-eps-act"): "mlp.activation",
    ("GPT2", "relu"): "mlp.activation",
    ("GPT2", "scaled-by-layer"): "attention.scale is",
    ("Mistral", "window"): "the file's context is the window: 5 tokens",
    ("Mistral", "window-of-two"): "the file's context is the window: 2 tokens",
    ("Mistral", "wide-heads"): "the file's context is the window: 6 tokens",
    ("Mixtral", "window"): "the file's context is the window: 5 tokens",
    ("Qwen2", "upper-windows"): "attention.window is 5",
    ("Qwen3", "biases"): "attention.qkv_bias is True",
    ("Qwen3", "windows"): "attention.window is 5",
    ("Qwen3Moe", "every-other"): "mlp.kind is 'gated'",
    ("Qwen3Moe", "some-dense"): "mlp.kind is 'gated'",
    ("Qwen3Moe", "windows"): "attention.window is 5",
    ("Gemma2", "no-caps"): "attention.soft_cap is None",
    ("Gemma2", "untied"): "its head is not tied",
    ("DeepseekV2", "no-query-rank"): "only if it has 26 or 27 layers",
    ("DeepseekV2", "groups"): "it routes otherwise",
    ("DeepseekV2", "yarn"): "position.scaling.attention_factor",
    ("DeepseekV2", "biases"): "attention.bias is True",
    ("DeepseekV3", "no-query-rank"): "only if it has 26 or 27 layers",
    ("DeepseekV3", "halves"): "position.pairs is 'halves'",
    ("DeepseekV3", "one-group"): "attention.bias is True",
    ("Glm", "wide-heads"): "64 wide in a model of 32",
    ("Ernie4_5", "biases"): "attention.qkv_bias is True",
    ("Ernie4_5_Moe", "biases"): "attention.qkv_bias is True",
    ("Ernie4_5_Moe", "middle"): "mlp.kind is 'gated'",
    ("Ernie4_5_Moe", "every-other"): "mlp.kind is 'gated'",
    ("Ernie4_5_Moe", "least-sum"): "mlp.router.norm_min is 0.9",
    ("Llama4Text", "temperature"): "attention.chunk is None",
    ("Llama4Text", "no-norms"): "attention.qk_norm is None",
    ("Llama4Text", "every-other"): "bias is True",
    ("Phi3", "window"): "beyond 5 tokens it scores otherwise",
    ("Phi3", "short"): "by the context it is started with",
    ("Olmo2", "biases"): "attention.qkv_bias is True",
    ("Olmo2", "llama3"): "no factors of rope",
    ("SmolLM3", "every-other"): "position is {'kind': 'none'}",
    ("SmolLM3", "chosen"): "position is {'kind': 'none'}",
    ("SmolLM3", "windows"): "attention.window is 5",
    ("SmolLM3", "biases"): "attention.qkv_bias is True",
    ("GptOss", "plain"): "rounds the borders of YaRN's ramp",
    ("GptOss", "three-layers"): "rounds the borders of YaRN's ramp",
    ("GptOss", "clamped"): "mlp.clamp is 0.1",
    ("GptOss", "no-biases"): "attention.qkv_bias is False",
}
"""Variants that llama.cpp has no words for or computes otherwise, and what the user is told."""


def allowed(name):
    """How far logits may lie apart: llama.cpp reads the activation of GPT-2 and Gemma from a table of float16."""
    return 2e-3 if name.lower().startswith(("gpt2", "gemma")) else 1e-5


@pytest.mark.parametrize(("family", "variant"), VARIANTS, ids=["-".join(case) for case in VARIANTS])
def test_every_variant_of_every_family_is_the_same_in_llama_cpp_or_the_user_is_told(
    family, variant, llama, kept, tokenizer, tmp_path
):
    """The configurations that are held to transformers, held to llama.cpp: logits and greedy text."""
    base, variants = FAMILIES[family]
    settings = base | variants[variant] | SUITED.get(family, {}) | {"vocab_size": tokenizer.vocab_size}
    checkpoint(tmp_path / "hf", getattr(transformers, f"{family}Config")(**settings), seed=VARIANTS.index((family, variant)))
    lm = cr.LM(cr.load(tmp_path / "hf").model, tokenizer)
    try:
        notes = export(lm, tmp_path / "x.gguf", to="gguf", kind="f32")
    except CheckpointError as error:
        notes = [str(error)]
    if (family, variant) in TOLD:
        assert TOLD[family, variant] in " ".join(notes)
        return
    ids = torch.randint(320, (40,), generator=torch.Generator().manual_seed(2)).tolist()
    far = relative(theirs(llama, tmp_path / "x.gguf", ids), ours(tmp_path / "hf", ids))
    kept["variants"][f"{family}-{variant}"] = far
    assert far < allowed(family)
    same_text(llama, tmp_path / "x.gguf", lm.model, ids[:9])


@pytest.fixture(scope="module")
def converter(llama):
    """llama.cpp's own converter of published folders, or a skip that says why."""
    folder = os.environ.get("LLAMA_CPP")
    if not folder:
        pytest.skip("LLAMA_CPP names no folder of llama.cpp's source, which holds convert_hf_to_gguf.py")
    script = Path(folder) / "convert_hf_to_gguf.py"
    assert script.is_file()
    return script


OWN_TOKENIZER = ("gemma2", "phi3", "phi3-longrope", "glm", "glm-no-biases", "glm4", "glm4-moe", "ernie", "ernie-moe")
"""For these the converter wants the publisher's own tokenizer, which is not at hand: it is told to take any."""
AS_PUBLISHED = {"ernie-moe": {"intermediate_size": 128}}
"""What the converter takes for granted: ERNIE's shared experts are as wide as the mlp divided by the heads of keys."""
ANY_TOKENIZER = """
import runpy, sys
from conversion import load_all_models
from conversion.base import TextModel
load_all_models()
classes = [TextModel]
for one in classes:
    classes += one.__subclasses__()
    if "set_vocab" in vars(one):
        one.set_vocab = TextModel._set_vocab_gpt2
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("name", CASES)
def test_llama_cpps_converter_reads_what_we_save(name, llama, kept, converter, material, tmp_path):
    """Our folder through their converter into their program: our logits."""
    known = load_tokenizer(material / "tokenizers" / ("qwen2" if name.startswith("qwen") else "gpt2"))
    published(name, tmp_path / "hf", vocab_size=known.vocab_size, **AS_PUBLISHED.get(name, {}))
    cr.LM(cr.load(tmp_path / "hf").model, known).save(tmp_path / "ours")
    start = ["-c", ANY_TOKENIZER] if name in OWN_TOKENIZER else []
    argv = [sys.executable, *start, str(converter), str(tmp_path / "ours"), "--outtype", "f32"]
    with_theirs = os.environ | {"PYTHONPATH": str(converter.parent)}
    done = subprocess.run(
        [*argv, "--outfile", str(tmp_path / "x.gguf")], capture_output=True, text=True, check=False, env=with_theirs
    )
    assert done.returncode == 0, done.stderr
    ids = torch.randint(known.vocab_size, (40,), generator=torch.Generator().manual_seed(2)).tolist()
    got, want = theirs(llama, tmp_path / "x.gguf", ids), ours(tmp_path / "ours", ids)
    kept["converted"][name] = relative(got, want)
    assert kept["converted"][name] < allowed(name)


@pytest.mark.parametrize("name", CASES)
def test_the_logits_of_an_exported_model_are_those_of_llama_cpp(name, llama, kept, tokenizer, tmp_path):
    """Prompts longer than the windows, every architecture, float32."""
    published(name, tmp_path / "hf")
    lm = cr.LM(cr.load(tmp_path / "hf").model, tokenizer)
    export(lm, tmp_path / "x.gguf", to="gguf", kind="f32")
    ids = torch.randint(320, (40,), generator=torch.Generator().manual_seed(2)).tolist()
    kept["exported"][name] = relative(theirs(llama, tmp_path / "x.gguf", ids), ours(tmp_path / "hf", ids))
    assert kept["exported"][name] < allowed(name)


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0", "q4_0", "q6_k", "q4_k_m"])
def test_quantized_files_run_in_llama_cpp_as_we_read_them(kind, llama, kept, tokenizer, tmp_path):
    """llama.cpp also rounds the activations of quantized products to eight bits, so that the two agree to a few hundredths."""
    published("qwen3", tmp_path / "hf", hidden_size=256, num_attention_heads=8, intermediate_size=512)
    lm = cr.LM(cr.load(tmp_path / "hf").model, tokenizer)
    export(lm, tmp_path / "x.gguf", to="gguf", kind=kind)
    ids = torch.randint(320, (40,), generator=torch.Generator().manual_seed(2)).tolist()
    kept["quantized"][kind] = relative(theirs(llama, tmp_path / "x.gguf", ids), ours(tmp_path / "x.gguf", ids))
    assert kept["quantized"][kind] < 0.06


def test_stories260k_says_in_llama_cpp_what_llama2_c_makes_it_say(llama, material, tmp_path):
    golden = json.loads((material / "stories260K" / "golden.json").read_text())
    lm = cr.load(material / "stories260K" / "stories260K.bin")
    export(lm, tmp_path / "x.gguf", to="gguf", kind="f32")
    model = opened(llama, tmp_path / "x.gguf", n=512)
    said = list(golden["prompt_ids"])
    model.eval(said)
    while len(said) < len(golden["greedy_ids"]):
        said.append(int(np.argmax(model.scores[model.n_tokens - 1])))
        model.eval(said[-1:])
    assert said == golden["greedy_ids"]
    for text in TEXTS:
        assert model.tokenize(text.encode(), add_bos=True) == [1, *lm.tokenizer.encode(text)]


def cutting(pattern, vocab_size):
    """A tokenizer that has learned from the sample: by a pattern of ours, or by those that one of llama.cpp's names stands for."""
    names, known = ("<|endoftext|>", IM_START, IM_END), pattern in PATTERNS
    learned = BPE.train([SAMPLE.read_text(encoding="utf-8")], vocab_size, pattern=pattern if known else "qwen2", specials=names)
    if known:
        return learned
    source = json.loads(learned.fast().source)
    splits = [
        {"type": "Split", "pattern": {"Regex": one}, "behavior": "Isolated", "invert": False} for one in PRES[pattern].patterns
    ]
    source["pre_tokenizer"]["pretokenizers"][:-1] = splits
    return LibraryTokenizer(json.dumps(source))


@pytest.mark.parametrize(
    "pattern", ["gpt2", "qwen2", "cl100k", "o200k", "kimi", "deepseek-llm", "deepseek-coder", "deepseek-v3", "default"]
)
def test_llama_cpp_cuts_texts_as_our_tokenizers_do(pattern, llama, tmp_path):
    tokenizer = cutting(pattern, 600)
    published("llama", tmp_path / "hf", vocab_size=600)
    lm = cr.LM(cr.load(tmp_path / "hf").model, tokenizer, ChatTemplate(CHATML, tokenizer))
    export(lm, tmp_path / "x.gguf", to="gguf", kind="f32")
    model = opened(llama, tmp_path / "x.gguf")
    for text in (
        *TEXTS,
        *SAMPLE.read_text(encoding="utf-8").splitlines()[:100],
        "camelCase HTTPServer isn'tHave 12345 ٣٤٥ «q»　。",
    ):
        assert model.tokenize(text.encode(), add_bos=False) == tokenizer.encode(text)
    turn = f"{IM_START}user\nHi{IM_END}\n"
    wanted = [tokenizer.specials[IM_START], *tokenizer.encode("user\nHi"), tokenizer.specials[IM_END], *tokenizer.encode("\n")]
    assert model.tokenize(turn.encode(), add_bos=False, special=True) == wanted
    assert model.metadata["tokenizer.chat_template"] == CHATML


@pytest.mark.parametrize(("pattern", "words"), [("o200k", "हिन्दी लिखना "), ("kimi", "हिन्दी लिखना "), ("kimi", "人々")])
def test_where_llama_cpp_cuts_otherwise_the_user_is_told(pattern, words, llama, tmp_path):
    tokenizer = BPE.train([words * 9], 300, pattern=pattern)
    published("llama", tmp_path / "hf", vocab_size=300)
    (note,) = export(cr.LM(cr.load(tmp_path / "hf").model, tokenizer), tmp_path / "x.gguf", to="gguf", kind="f32")
    assert "other ids there" in note
    assert opened(llama, tmp_path / "x.gguf").tokenize(words.encode(), add_bos=False) != tokenizer.encode(words)


@pytest.mark.parametrize("name", ["Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K"])
def test_our_quantizers_lose_as_little_as_ggmls_own(name, llama, kept):
    """Squared error over heavy-tailed weights: within two parts in a thousand, what rounding in another order may cost."""
    library = next((Path(llama.__file__).parent / "lib").glob("libggml-base.*"))
    quantize = ctypes.CDLL(str(library)).ggml_quantize_chunk
    quantize.restype = ctypes.c_size_t
    long = ctypes.c_int64
    quantize.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, long, long, long, ctypes.c_void_p]
    x = np.random.default_rng(0).standard_t(5, size=(256, 1024)).astype(np.float32)
    data = np.zeros((256, FORMATS[name].row_bytes(1024)), np.uint8)
    assert quantize(FORMATS[name].number, x.ctypes.data, data.ctypes.data, 0, *x.shape, None) == data.nbytes
    ggml, here = (np.mean((unpack(one, name) - x) ** 2) for one in (data, pack(x, name)))
    kept["error_to_ggml"][name] = float(here / ggml)
    assert here <= ggml * 1.002
