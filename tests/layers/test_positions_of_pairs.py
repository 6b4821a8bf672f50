"""Sinusoids and relative biases: numbers by hand, and the published buckets."""

import pytest
import torch
from torch.testing import assert_close

from chainrule.core.errors import ConfigError
from chainrule.layers.relative_bias import RelativeBias, bucket
from chainrule.layers.sinusoidal import Sinusoidal


def test_sinusoids_by_hand():
    found = Sinusoidal(theta=100.0).added(torch.tensor([[0, 1, 20]]), 4)[0]
    expected = [[0, 1, 0, 1], [0.841471, 0.540302, 0.0998334, 0.995004], [0.912945, 0.408082, 0.909297, -0.416147]]
    assert_close(found, torch.tensor(expected), atol=1e-6, rtol=0)


def test_buckets_by_hand():
    # 8 buckets: 0 to 3 one each, then 4·2^(k/4·log2(32/4)): from 4, 6.7, 11.3 and 19.0 on
    distance = torch.tensor([0, 1, 2, 3, 4, 6, 7, 11, 12, 19, 20, 31, 32, 1000])
    assert bucket(distance, 8, 32).tolist() == [0, 1, 2, 3, 4, 4, 5, 5, 6, 6, 7, 7, 7, 7]


@pytest.mark.parametrize(("n", "m"), [(32, 128), (8, 20), (4, 3), (16, 1000)])
@pytest.mark.parametrize("both_ways", [True, False])
def test_biases_equal_those_of_transformers(n, m, both_ways):
    modeling = pytest.importorskip("transformers.models.t5.modeling_t5")
    layer = RelativeBias(n_buckets=n, max_distance=m).build(1, both_ways=both_ways)
    with torch.no_grad():
        layer.table.weight[:, 0] = torch.arange(n)
    place = torch.arange(300)[None]
    expected = modeling.T5Attention._relative_position_bucket(place - place.T, both_ways, n, m)
    assert_close(layer(place, place)[0, 0], expected.float(), atol=0, rtol=0)


@pytest.mark.parametrize(("n", "m"), [(7, 128), (2, 128), (32, 16)])
def test_buckets_that_mean_nothing_are_refused(n, m):
    with pytest.raises(ConfigError, match=f"{n}|{m}"):
        RelativeBias(n_buckets=n, max_distance=m)
