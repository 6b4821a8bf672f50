"""What a quickstart is to do, and how the minutes that it may take are shared out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from chainrule.eval.results import Goals
from chainrule.recipes.corpus import check_seed
from chainrule.train.recipe import Fresh

PRETRAIN_SECONDS, SFT_SECONDS, REST_SECONDS = 270.0, 140.0, 130.0
END_SECONDS = 70.0
"""What the questions before the fine-tuning, its chats and the evaluation take."""
SMALL, LARGE = Fresh(n_layers=3, d_model=128, n_heads=4, d_ff=352), Fresh(n_layers=4, d_model=192, n_heads=6, d_ff=512)
"""What learns most in ten minutes, and what learns more in half an hour or longer: twice as many steps in the same time bring a
model of half the size nearer to the truth until it has no more room."""
LONG_MINUTES = 30.0
RATES, LONG_RATES = (0.006, 0.005), (0.013, 0.007)
"""Muon's rates in the pretraining and in the fine-tuning. In ten minutes a larger one washes away what finds back to a fact:
at 0.013 one of the two languages, now this one, now that, answered half of its questions of recall."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run: on which text (None: the world), for how long, how big."""

    kind: Literal["quickstart"] = "quickstart"
    name: str = "quickstart"
    runs: Path = Path("runs")
    text: Path | None = None
    seed: int = 0
    minutes: float = 10.0
    steps: int | None = None
    sft_steps: int | None = None
    vocab_size: int = 2048
    held_out: int = 400
    questions: int = 400
    counted: int = 40_000
    shape: Fresh | None = None
    """The model; None is what suits the minutes."""

    def __post_init__(self) -> None:
        check_seed(self.seed)

    @property
    def model(self) -> Fresh:
        """The model that is trained."""
        return self.shape or (SMALL if self.minutes < LONG_MINUTES else LARGE)

    @property
    def rates(self) -> tuple[float, float]:
        """Muon's rates in the pretraining and in the fine-tuning."""
        return RATES if self.minutes < LONG_MINUTES else LONG_RATES

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        return self.runs / self.name

    @property
    def seconds(self) -> tuple[float, float]:
        """How long the pretraining and the fine-tuning may take.

        Of all that is beyond ten minutes four fifths go to training, nine tenths of these to the pretraining: chats are learned
        sooner. The last fifth is kept, since a machine may be a sixth slower for an hour than while its steps were timed.
        """
        usual, beyond = PRETRAIN_SECONDS + SFT_SECONDS, 60 * self.minutes - 600
        if beyond <= 0:
            share = max(0.02, (self.minutes * 60 * (usual + REST_SECONDS) / 600 - REST_SECONDS) / usual)
            return share * PRETRAIN_SECONDS, share * SFT_SECONDS
        return PRETRAIN_SECONDS + 0.9 * 0.8 * beyond, SFT_SECONDS + 0.1 * 0.8 * beyond

    @property
    def goals(self) -> Goals:
        """What a run of so many minutes sets out to show: from an hour on, to come nearer to the truth."""
        return Goals(seconds=60 * self.minutes, above_truth=0.03 if self.minutes >= 60 else Goals.above_truth)
