"""What is said of speed: how fast the truth reads, how soon n-grams are counted and a verb says what it takes. Keeps its numbers in docs/results.json.

Each in a process of its own, on one thread: no signature is checked there, which would take its time. The best of three counts,
since what else a machine does only ever takes time.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chainrule.cli import VERBS
from tests.measured import keep_measured

pytestmark = pytest.mark.prove
ROOT = Path(__file__).parents[2]
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
COUNT = """
import sys, time
from pathlib import Path
from chainrule.models.ngram import NGram
from chainrule.tokenizers.byte import ByteTokenizer
text, tokenizer = Path(sys.argv[1]).read_text(encoding="utf-8") * 2, ByteTokenizer()
began = time.perf_counter()
model = NGram.fit([[256, *tokenizer.encode(text), 256]], order=4, vocab_size=tokenizer.vocab_size)
print(len(text.encode()), sum(model.config.sizes), time.perf_counter() - began)
"""


def said(*argv: str) -> str:
    return subprocess.run([sys.executable, *argv], env=ONE_THREAD, capture_output=True, text=True, check=True).stdout


def test_the_truth_reads_at_least_50_kb_of_the_world_a_second():
    """Every next byte's distribution, as the benchmark measures it."""
    rates = []
    for _ in range(3):
        found = re.search(
            r"^oracle, every next byte +([\d,]+) kB/s$", said(str(ROOT / "benchmarks" / "oracle.py")), re.MULTILINE
        )
        assert found is not None
        rates.append(int(found[1].replace(",", "")))
    keep_measured("oracle", 1, {"kb_per_second": max(rates)}, on_world=True)
    assert max(rates) >= 50


def test_a_4_gram_over_two_megabytes_is_counted_within_ten_seconds(material):
    """tinyshakespeare, twice, byte by byte."""
    path = material / "corpora" / "tinyshakespeare.txt"
    size, n_grams, seconds = min((said("-c", COUNT, str(path)).split() for _ in range(3)), key=lambda row: float(row[2]))
    kept = {"order": 4, "size_bytes": int(size), "n_grams": int(n_grams), "seconds": round(float(seconds), 2)}
    keep_measured("counting", 1, kept)
    assert int(size) > 2e6
    assert float(seconds) < 10


def test_every_verb_says_within_half_a_second_what_it_takes():
    """As a user waits for it: a process from its start to its end."""
    start = "import sys; from chainrule.cli import main; sys.exit(main())"
    seconds = {verb: min(taken(["-c", start, verb, "--help"]) for _ in range(3)) for verb in VERBS}
    slowest = max(seconds, key=lambda verb: seconds[verb])
    keep_measured("help", 1, {"slowest": slowest, "seconds": round(seconds[slowest], 3)})
    assert seconds[slowest] < 0.5


def taken(argv: list[str]) -> float:
    began = time.perf_counter()
    said(*argv)
    return time.perf_counter() - began
