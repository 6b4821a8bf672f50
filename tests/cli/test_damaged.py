"""A model whose weights are no numbers: the verbs that ask it for probabilities say so, as generating does."""

import pytest
import torch

from chainrule.cli import main
from chainrule.hub.fresh import fresh
from chainrule.hub.save import save
from chainrule.tokenizers.byte import ByteTokenizer


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    shape = {"context": 64, "n_layers": 1, "d_model": 16, "n_heads": 2, "n_kv_heads": 2, "d_ff": 16}
    model = fresh(vocab_size=257, **shape, rope_theta=1e4, tied=True, init="normal", seed=0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    return save(tmp_path_factory.mktemp("models") / "damaged", model, ByteTokenizer())


@pytest.mark.parametrize(
    "argv",
    [
        ("next", "MODEL", "Tom"),
        ("score", "MODEL", "Tom"),
        ("eval", "MODEL", "--documents", "2"),
        ("compare", "world", "MODEL", "--documents", "4"),
        ("ladder", "MODEL", "--orders", "1", "--documents", "2", "--train-documents", "2"),
    ],
)
def test_weights_that_are_no_numbers_are_told(damaged, capsys, argv):
    assert main([str(damaged) if word == "MODEL" else word for word in argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "the model's scores are not numbers after " in err
    assert "; its weights are damaged" in err
