"""``chainrule doctor``: what the machine has is told, and a machine or a code that cannot learn is no success."""

import json
import math

import pytest
import torch

from chainrule.cli import main
from chainrule.hub.fresh import fresh
from chainrule.train import selfcheck


def examined(capsys) -> tuple[int, dict]:
    code = main(["doctor", "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_machine_that_learns_is_told_whole(capsys):
    assert main(["doctor"]) == 0
    rows = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines() if line.split()[0].isalpha())
    assert rows["torch"] == torch.__version__.split("+")[0] or rows["torch"] == torch.__version__
    assert {"python", "system", "numpy", "memory", "AMX", "CUDA", "MPS"} <= set(rows)


def test_what_is_measured_is_said_of_the_device_that_is_chosen(capsys):
    _, found = examined(capsys)
    device = found["device chosen"]
    assert f"on {device}" in found["bf16 in hardware"]
    assert found["fp32 matmul"].endswith(f" GFLOP/s on {device}")


def test_the_check_trains_on_the_device_it_is_given():
    with pytest.raises(RuntimeError, match="meta"):  # on which nothing can be trained
        selfcheck.overfit(1, device="meta")


def test_a_fresh_model_knows_nothing_and_learns_one_batch_by_heart():
    first, last, size = selfcheck.overfit()
    assert abs(first - math.log(size)) < 0.05
    assert last < 0.1


def sure(model):
    """It prefers some tokens before it has seen any."""
    with torch.no_grad():
        model.norm.weight *= 30
    return model


def numb(model):
    """No gradient reaches it."""
    for parameter in model.parameters():
        parameter.register_hook(torch.zeros_like)
    return model


@pytest.mark.parametrize(("broken", "told"), [(sure, "step-0 loss is ln V"), (numb, "one batch is learned")])
def test_a_broken_model_is_found_and_is_no_success(capsys, monkeypatch, broken, told):
    monkeypatch.setattr(selfcheck, "fresh", lambda **shape: broken(fresh(**shape)))
    code, found = examined(capsys)
    assert code == 1
    assert found[told] is False
