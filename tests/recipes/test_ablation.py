"""The ablations in their smallest form: a deep decoder, whole and without each part, and what its layers are told."""

import math
import re
from pathlib import Path

import pytest
import torch

from chainrule.core.datum import Batch
from chainrule.core.errors import ConfigError, DataError
from chainrule.eval.ablation import PARTS, chosen, ratio, read
from chainrule.eval.gradients import layer_gradients
from chainrule.logprobs.losses import cross_entropy
from chainrule.recipes import ablation as recipe
from chainrule.recipes.ablation import Plan, ablation, command, decoder
from chainrule.train.loop import Diverged


def plan(folder, **more):
    settings = {"runs": folder, "steps": 1, "held_out": 3, "documents": 60, "vocab_size": 600, "context": 32, "batch_rows": 4}
    return Plan(**(settings | {"threads": 1, "precision": "fp32"} | more))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return folder, ablation(plan(folder))


def test_the_whole_model_comes_first_then_one_without_each_part(done):
    _, found = done
    assert [one.without for one in found.models] == [None, *PARTS]
    assert found.layers == 24
    assert (found.machine.dtype, found.machine.threads) == ("float32", 1)
    assert found.seconds > sum(one.seconds for one in found.models)
    whole, *others = found.models
    assert all(set(one.bits_per_byte) == {"en", "zh"} for one in found.models)
    assert {one.parameters for one in others if one.without != "norm"} == {whole.parameters}
    assert found.models[2].parameters == whole.parameters - (2 * 24 + 1) * 64


def test_every_layer_has_a_gradient_norm_before_and_after(done):
    _, found = done
    for one in found.models:
        assert len(one.start) == len(one.end) == 24
        assert all(norm is None or norm >= 0 for norm in (*one.start, *one.end))


def test_without_the_residual_stream_the_gradient_explodes_on_its_way_down(done):
    _, found = done
    whole, residual = found.models[:2]
    assert 0.1 < ratio(whole.start) < 30
    assert ratio(residual.start) > 10 * ratio(whole.start)


def test_a_layers_gradient_is_the_norm_over_its_parameters():
    model = decoder(Plan(layers=2, d_model=16, n_heads=2), 50, None)
    tokens = torch.randint(50, (2, 8), generator=torch.Generator().manual_seed(0))
    batch = Batch(tokens, torch.ones(2, 8))
    norms = layer_gradients(model, batch)
    loss = cross_entropy(model, batch)
    (loss.total / 14).backward()  # 7 judged tokens in each row
    squares = sum(float(parameter.grad.square().sum()) for parameter in model.layers[1].parameters())
    assert norms[1] == pytest.approx(math.sqrt(squares), rel=1e-5)
    assert len(norms) == 2


def test_what_was_found_can_be_read_and_looked_at(done):
    folder, found = done
    assert read(folder / "ablation") == found
    html = (folder / "ablation" / "report.html").read_text(encoding="utf-8")
    assert html.count("<svg") >= 5
    assert all(one.name in html for one in found.models)
    assert "without residual" in found.text()


def test_what_is_lost_is_drawn_for_each_language(done):
    folder, found = done
    html = (folder / "ablation" / "report.html").read_text(encoding="utf-8")
    for language in ("English", "中文"):
        (drawn,) = re.findall(f'aria-label="Bits per byte, whole and without each part, {language}".*?</svg>', html, re.DOTALL)
        assert all(one.name in drawn for one in found.models)
        key = {"English": "en", "中文": "zh"}[language]
        whole, *others = (one.bits_per_byte[key] for one in found.models)
        assert f"whole {whole:.3f}" in drawn
        assert all(f"{bits:.3f} ({bits - whole:+.3f})".replace("-", "−") in drawn for bits in others)


def test_models_that_are_done_are_not_trained_again(done, monkeypatch):
    folder, found = done
    monkeypatch.setattr(recipe, "train", lambda *args, **more: pytest.fail("a finished model was trained again"))
    assert ablation(plan(folder), resume=True).models == found.models
    with pytest.raises(ConfigError, match="layers was 24, is 12"):
        ablation(plan(folder, layers=12), resume=True)


def test_a_users_own_text_is_judged_by_its_last_part(tmp_path):
    text = tmp_path / "my text.txt"
    text.write_text("The cat sat on the mat.\nThe dog ran to the park and sat there too.\n" * 150)
    found = ablation(plan(tmp_path, text=text, layers=2, parts=("norm", "position"), documents=None))
    assert [one.without for one in found.models] == [None, "norm", "position"]
    assert all(list(one.bits_per_byte) == ["text"] for one in found.models)
    assert all(bits > 0 for one in found.models for bits in one.bits_per_byte.values())
    assert found.source == str(text)
    said = f"--text '{text}' --layers 2 --steps 1 --documents 3 --dtype fp32 --runs {tmp_path}"
    assert found.commands == (f"chainrule ladder --ablate norm,position {said} --name ablation --force",)
    assert str(text) in (tmp_path / "ablation" / "report.html").read_text(encoding="utf-8")
    assert (
        ablation(plan(tmp_path, text=text, layers=2, parts=("norm", "position"), documents=None), resume=True).models
        == found.models
    )
    with pytest.raises(ConfigError, match="text was"):
        ablation(plan(tmp_path, layers=2, parts=("norm", "position"), documents=None), resume=True)


def test_a_text_too_short_for_a_row_is_refused_and_leaves_nothing(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("ab cd\nef gh\nij kl\nmn op\nqr st\n")
    with pytest.raises(DataError, match="less than the 32 of a row"):
        ablation(plan(tmp_path, text=text))
    assert not (tmp_path / "ablation").exists()


def test_what_to_type_again_says_only_what_is_not_usual():
    assert command(Plan()) == "chainrule ladder --ablate residual,norm,position --name ablation --force"
    again = command(Plan(seed=3, runs=Path("my runs"), documents=60, device="cpu"))
    said = "--seed 3 --train-documents 60 --device cpu --runs 'my runs'"
    assert again == f"chainrule ladder --ablate residual,norm,position {said} --name ablation --force"


def test_a_model_that_diverges_is_reported_with_its_step(tmp_path, monkeypatch):
    real = recipe.train

    def breaks(objective, *args, **more):
        real(objective, *args, **more)
        if isinstance(objective.model.norm, torch.nn.Identity):
            raise Diverged("not finite", 2)

    monkeypatch.setattr(recipe, "train", breaks)
    found = ablation(plan(tmp_path, layers=2, parts=("norm", "position")))
    whole, norm, position = found.models
    assert norm.diverged_at == 2
    assert set(norm.bits_per_byte.values()) == {None}
    assert whole.diverged_at is position.diverged_at is None
    assert "without norm diverged: from step 2 on" in found.text()
    assert "diverged at 2" in (tmp_path / "ablation" / "report.html").read_text(encoding="utf-8")


def test_a_learning_rate_beyond_all_measure_diverges_in_truth(tmp_path):
    found = ablation(plan(tmp_path, layers=2, parts=("norm",), steps=16, lr=1e30))
    assert found.models[1].diverged_at is not None
    assert found.models[1].bits_per_byte == {"en": None, "zh": None} or found.models[1].bits_per_byte == {
        "zh": None,
        "en": None,
    }


def test_parts_are_chosen_by_name():
    assert chosen("position, residual") == ("residual", "position")
