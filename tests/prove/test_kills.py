"""A run that is killed goes on to the same bits, wherever it was: every touch of the disk, one by one.

Keeps its numbers in docs/results.json.
"""

import pytest

from tests.lives import Life, nursery
from tests.measured import keep_measured
from tests.train.test_survival import WORDS, killed, training

pytestmark = pytest.mark.prove


def test_a_run_killed_at_every_touch_of_the_disk_goes_on_to_the_same_bits(tmp_path):
    (tmp_path / "text.txt").write_text(WORDS * 60)
    with nursery() as live:
        whole = live(Life(argv=training(tmp_path, "whole")))
        assert whole.code == 0, whole.said
        for touch in range(1, len(whole.touches)):
            killed(live, tmp_path, touch)
    keep_measured("kills", 1, {"kills": len(whole.touches) - 1, "same_bits": len(whole.touches) - 1})
