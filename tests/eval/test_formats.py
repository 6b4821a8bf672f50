"""Number formats against hand numbers and against torch's own conversions."""

import contextlib
import io
import math

import pytest
import torch

from chainrule.cli import main
from chainrule.core.errors import ConfigError
from chainrule.eval.formats import FORMATS, FloatFormat, number_format, sheet, sheet_text

FLOATS = [name for name, format in FORMATS.items() if isinstance(format, FloatFormat)]


@pytest.mark.parametrize(
    ("name", "largest", "smallest_normal", "smallest", "epsilon"),
    [
        ("fp32", 3.4028234663852886e38, 2.0**-126, 2.0**-149, 2.0**-23),
        ("fp16", 65504.0, 2.0**-14, 2.0**-24, 2.0**-10),
        ("bf16", 3.3895313892515355e38, 2.0**-126, 2.0**-133, 2.0**-7),
        ("fp8-e4m3", 448.0, 2.0**-6, 2.0**-9, 2.0**-3),
        ("fp8-e5m2", 57344.0, 2.0**-14, 2.0**-16, 2.0**-2),
    ],
)
def test_range_and_epsilon_are_the_standards(name, largest, smallest_normal, smallest, epsilon):
    format = FORMATS[name]
    assert (format.largest, format.smallest_normal, format.smallest, format.epsilon) == (
        largest,
        smallest_normal,
        smallest,
        epsilon,
    )
    info = torch.finfo(getattr(torch, format.torch))
    assert (info.max, info.smallest_normal, info.eps) == (largest, smallest_normal, epsilon)


@pytest.mark.parametrize("name", FLOATS)
def test_rounding_is_torchs(name):
    format = FORMATS[name]
    generator = torch.Generator().manual_seed(0)
    size = torch.empty(400, dtype=torch.float64).uniform_(-44, 38, generator=generator)
    values = (torch.randn(400, dtype=torch.float64, generator=generator) * 10**size).float()
    values = torch.cat(
        [values, torch.randn(400, generator=generator) * 10, torch.tensor([17.0, 9.0, -257.0, 2049.0, 447.9, 70000.0])]
    )
    if not format.infinite:  # beyond the largest, versions of torch differ: the largest, or NaN
        values = values[values.abs() <= format.largest]
    theirs = values.to(getattr(torch, format.torch)).double().tolist()
    ours = [format.round(x) for x in values.double().tolist()]
    assert [x if math.isfinite(x) else str(x)[-3:] for x in ours] == [x if math.isfinite(x) else str(x)[-3:] for x in theirs]


def test_a_tenth_in_bf16_by_hand():
    bf16 = FORMATS["bf16"]
    assert bf16.round(0.1) == 205 / 2048  # 1.6015625 / 16
    assert bf16.pattern(0.1) == "0 01111011 1001101"
    assert bf16.neighbours(0.1) == (204 / 2048, 206 / 2048)
    assert FORMATS["fp16"].neighbours(0.0) == (-(2.0**-24), 2.0**-24)
    assert FORMATS["fp8-e4m3"].neighbours(-448) == (-math.inf, -416)
    assert (FORMATS["fp8-e4m3"].round(1e6), FORMATS["fp8-e5m2"].round(1e6)) == (448, math.inf)


@pytest.mark.parametrize("name", ["fp16", "fp8-e4m3", "fp8-e5m2"])
def test_every_pattern_means_its_number(name):
    format = FORMATS[name]
    last = format.code(format.largest)
    values = [format.value(code) for code in range(last + 1)]
    assert values == sorted(set(values))
    assert [format.code(value) for value in values] == list(range(last + 1))
    assert all(format.round(value) == value for value in values)


def test_integers_by_hand():
    int4 = FORMATS["int4"]
    assert int4.round(0.5) == pytest.approx(4 / 7)  # 3.5 goes to the even 4
    assert int4.round(-9) == pytest.approx(-8 / 7)
    assert int4.pattern(-8 / 7) == "1000"
    assert FORMATS["int8"].pattern(1) == "01111111"
    assert FORMATS["int8"].neighbours(1) == (pytest.approx(126 / 127), 1)


@pytest.mark.parametrize("name", FORMATS)
def test_the_reader_can_reproduce_every_example(name):
    examples = FORMATS[name].examples()
    assert len(examples) >= 2
    for example in examples:
        assert len(example.code.splitlines()) == 3
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(example.code, {})
        assert out.getvalue().strip() == example.prints
    assert float(examples[0].prints) == 0


def test_bf16_absorbs_one_at_256():
    texts = sheet_text("bf16")
    assert "256 + 1 is 256" in texts
    assert "0.10009765625" in texts
    assert sheet("e4m3", 3)["value"]["stored"] == 3


def test_unknown_formats_and_values_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="did you mean 'bf16'"):
        number_format("bf61")
    with pytest.raises(ConfigError, match="largest number is 65504"):
        sheet("fp16", 1e6)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_what_is_no_finite_number_is_refused_in_every_format(name, value, capsys):
    assert main(["explain", "--dtype", name, f"--value={value}"]) == 2
    because = f"--value {value} is no number that a format stores; give a finite one, such as 0.1"
    assert capsys.readouterr().err == f"chainrule: {because}\n"


def test_a_number_far_beyond_the_largest_is_stored_as_the_largest():
    for name in ("int8", "int4"):
        assert sheet(name, 1e308)["value"]["stored"] == 1
        assert sheet(name, -1e308)["value"]["bits"] == "1" + "0" * (FORMATS[name].bits - 1)
