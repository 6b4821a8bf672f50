"""Progress for people, on stderr: a bar with loss, speed and time left; plain lines where there is no terminal."""

import sys
import time
from dataclasses import dataclass, field

WIDTH = 24


@dataclass
class Progress:
    """Reports the steps of one training."""

    steps: int
    label: str
    start: int = 0
    every: int = 50
    began: float = field(default_factory=time.monotonic)
    tokens: int = 0

    def update(self, step: int, loss: float, tokens: int) -> None:
        """After a step: redraw the bar, or print a line now and then."""
        self.tokens += tokens
        tty = sys.stderr.isatty()
        if not tty and (step + 1) % self.every and step + 1 != self.steps:
            return
        passed = time.monotonic() - self.began
        left = passed / (step + 1 - self.start) * (self.steps - step - 1)
        done = round(WIDTH * (step + 1) / self.steps)
        bar = "█" * done + "·" * (WIDTH - done)
        line = f"{self.label} {bar} {step + 1}/{self.steps}  loss {loss:.3f}  {self.speed:,.0f} tok/s  {clock(left)} left"
        sys.stderr.write(f"\r\x1b[K{line}" if tty else f"{line}\n")
        sys.stderr.flush()

    def close(self) -> None:
        """Leave the line."""
        if sys.stderr.isatty():
            sys.stderr.write("\n")

    @property
    def speed(self) -> float:
        """Tokens per second so far."""
        return self.tokens / max(time.monotonic() - self.began, 1e-9)


def clock(seconds: float) -> str:
    """Minutes and seconds.

    >>> clock(75)
    '1:15'
    """
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
