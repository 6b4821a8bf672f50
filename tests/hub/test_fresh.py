"""New models: a name that stands for nothing is refused with the nearest that does."""

import pytest

from chainrule.core.errors import ConfigError
from chainrule.hub.fresh import fresh, fresh_seq2seq
from chainrule.models.rnn import RecurrentConfig

SMALL = {"vocab_size": 9, "context": 8, "n_layers": 1, "d_model": 8, "n_heads": 2, "d_ff": 8, "seed": 0}


@pytest.mark.parametrize(
    ("make", "because"),
    [
        (lambda: fresh(**SMALL, n_kv_heads=None, rope_theta=1e4, tied=True, init="nromal"), "'nromal'; did you mean 'normal'"),
        (lambda: fresh_seq2seq(**SMALL, plan="t5", init="magic"), "unknown init 'magic'; known are: fan_in, induction"),
        (lambda: fresh_seq2seq(**SMALL, plan="orignal", init="normal"), "unknown plan 'orignal' .*did you mean 'original'"),
        (
            lambda: RecurrentConfig.uniform(vocab_size=9, cell="gur", n_layers=1, d_model=8),
            "unknown cell 'gur'; did you mean 'gru'",
        ),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(make, because):
    with pytest.raises(ConfigError, match=because):
        make()
