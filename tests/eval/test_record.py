"""What is kept of a measured run: every number by its name, and beside what other proofs keep."""

import json

import pytest

from chainrule.core.errors import DataError
from chainrule.eval.findings import checks
from chainrule.eval.record import keep, record


def test_a_record_holds_what_the_run_measured(results) -> None:
    kept = record(results)
    assert kept["bits_per_byte"]["Transformer"] == {"en": 0.541, "zh": 0.668}
    assert kept["chats"].keys() == {"majority", "ngram", "before", "after"}
    assert kept["chats"]["before"]["zh"]["arithmetic"] == {"right": 2, "asked": 100}
    assert kept["chats"]["after"]["en"] == {
        kind: {"right": right, "asked": 100}
        for kind, right in {"recall": 98, "counts": 94, "arithmetic": 91, "programs": 97}.items()
    }
    assert kept["order"]["nats"]["tokens 2-gram"] == pytest.approx(4.8)
    assert kept["order"]["nats"]["tokens 3-gram, ML"] is None
    assert kept["order"]["expected"] == pytest.approx(2.996, abs=1e-3)
    assert list(kept["costs"]) == [cost.stage for cost in results.costs]
    assert kept["costs"]["pretraining"] == {"seconds": 270.4, "tokens": 8_310_000, "memory_bytes": 1_730_000_000}
    assert kept["seconds"] == 495
    assert [check["met"] for check in kept["checks"]] == [check.met for check in checks(results)]


def test_a_record_replaces_its_own_and_leaves_the_others(results, tmp_path) -> None:
    path = tmp_path / "results.json"
    keep(path, "quickstart", {"seconds": 1})
    keep(path, "ladder", {"seconds": 2})
    keep(path, "quickstart", record(results))
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert kept["ladder"] == {"seconds": 2}
    assert kept["quickstart"] == json.loads(json.dumps(record(results)))
    path.write_text("{")
    with pytest.raises(DataError, match="is not JSON"):
        keep(path, "ladder", {})
    assert path.read_text() == "{"
