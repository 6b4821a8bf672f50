"""The bar of a training, by hand: what was done, the loss, the speed, the time left."""

import io
import re
import sys
import time

import pytest

from chainrule.train.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_bar_says_loss_speed_and_time_left(monkeypatch):
    """Of 4 steps one took 10 seconds for 1,000 tokens: 100 tokens a second, half a minute left."""
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    bar = Progress(4, "train", began=time.monotonic() - 10)
    bar.update(0, 2.5, 1000)
    assert terminal.getvalue() == "\r\x1b[K" + "train " + "█" * 6 + "·" * 18 + " 1/4  loss 2.500  100 tok/s  0:30 left"
    bar.update(3, 0.25, 3000)
    assert terminal.getvalue().endswith("\r\x1b[Ktrain " + "█" * 24 + " 4/4  loss 0.250  400 tok/s  0:00 left")
    bar.close()
    assert terminal.getvalue().endswith("left\n")


def test_of_a_run_gone_on_with_only_its_own_steps_are_reckoned(monkeypatch):
    """From step 90 of 100 one step took 10 seconds: nine more will take a minute and a half."""
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    Progress(100, "train", start=90, began=time.monotonic() - 10).update(90, 1.0, 50)
    assert terminal.getvalue().endswith(" 91/100  loss 1.000  5 tok/s  1:30 left")


@pytest.mark.parametrize("every", [2, 3])
def test_without_a_terminal_there_is_a_line_now_and_then_and_at_the_end(capsys, every):
    bar = Progress(7, "sft", every=every)
    for step in range(7):
        bar.update(step, 1.0, 10)
    bar.close()
    lines = capsys.readouterr().err.splitlines()
    assert [int(re.search(r"(\d+)/7", line)[1]) for line in lines] == sorted({*range(every, 8, every), 7})
    assert all(re.fullmatch(r"sft █+·* \d/7  loss 1\.000  [\d,]+ tok/s  0:00 left", line) for line in lines)
