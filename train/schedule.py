"""How learning rate and resolution follow the progress of a run."""

from __future__ import annotations

import math
import time

from train.config import RunConfig, parse_resolution

LONGEST_WARMUP = 0.1
"""Share of the schedule that warm-up takes at most."""


class Schedule:
    """Where a run stands.

    Progress is the share of the steps that are done or, when the run was given minutes, of the time
    that has passed in it; only the former repeats exactly.

    Args:
        config: The run's settings.
        steps_per_epoch: Steps in one pass over the data.
        elapsed: Seconds that earlier parts of a resumed run took.
    """

    def __init__(self, config: RunConfig, steps_per_epoch: int, *, elapsed: float = 0.0) -> None:
        self._config = config
        self._stages = parse_resolution(config.resolution, least=0)  # checked by the configuration
        self._start = time.monotonic() - elapsed
        self._noted = elapsed
        self.total_steps = (
            None if config.minutes else max(1, round(config.epochs * steps_per_epoch))
        )

    @property
    def elapsed(self) -> float:
        """Seconds since the run began, time between its parts and of a stopped process left out."""
        return time.monotonic() - self._start

    def note(self) -> None:
        """Call after every step: from here `went_on` counts."""
        self._noted = self.elapsed

    def went_on(self) -> None:
        """Leave out the time since `note`: the process was stopped (SIGSTOP, Ctrl-Z)."""
        self._start = time.monotonic() - self._noted

    def progress(self, step: int) -> float:
        """Share of the schedule that is done before a step, from 0 to 1."""
        if self.total_steps is not None:
            return min(1.0, step / self.total_steps)
        return min(1.0, self.elapsed / (60 * (self._config.minutes or 0)))

    def resolution(self, step: int) -> int:
        """Input side of a step."""
        progress = self.progress(step)
        return next(side for side, end in self._stages if progress < end or end == 1)

    def lr(self, step: int) -> float:
        """Learning rate of a step."""
        progress = self.progress(step)
        warm = 1.0
        if warmup := self._config.warmup:
            warm = min(1.0, max((step + 1) / warmup, progress / LONGEST_WARMUP))
        if self._config.schedule == "cosine":
            factor = 0.5 * (1 + math.cos(math.pi * progress))
        else:
            factor = 1.0 if progress < 0.6 else 0.1 if progress < 0.8 else 0.01
        return self._config.lr * warm * factor
