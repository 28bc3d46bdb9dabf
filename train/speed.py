"""How many images a second the loader makes and the network learns from, each alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from tempfile import TemporaryDirectory

from rdlite.errors import OptionError
from train.config import TrainConfig, parse_resolution
from train.engine import Trainer
from train.schedule import Schedule

SECONDS = 10.0
"""Measured time of each number."""
WARM_UP = 2
"""Batches before the clock starts."""


def measure_speed(config: TrainConfig, *, seconds: float = SECONDS) -> str:
    """Measure every resolution of a run.

    The step works on one batch again and again, so that the loader takes no part; the loader makes
    batches that nobody uses, with the run's `workers`. Where the loader's number is not well above
    the step's, it limits the training: give more `workers`.

    Args:
        config: Settings of the run; its folder is not touched.
        seconds: Measured time of each number.

    Returns:
        A table.
    """
    if "LOCAL_RANK" in os.environ:
        raise OptionError("speed measures one process; run it without torchrun")
    rows = ["side   loader img/s   steps img/s"]
    with TemporaryDirectory() as folder:
        trainer = Trainer(replace(config, out=folder, minutes=None))
        for side, _ in parse_resolution(trainer.config.resolution):
            # Long enough never to end, and always of this side.
            endless = replace(trainer.config, epochs=1e9, resolution=str(side))
            trainer.schedule = Schedule(endless, steps_per_epoch=1)
            batches = trainer.batches()
            loader = _rate(partial(next, batches), seconds) * trainer.config.batch
            batch = next(batches)
            del batches  # ends its workers
            step = _rate(partial(trainer.train_step, batch), seconds) * trainer.config.batch
            rows.append(f"{side:4}   {loader:12.1f}   {step:11.1f}")
    return "\n".join(rows)


def _rate(act: Callable[[], object], seconds: float) -> float:
    """Calls a second."""
    for _ in range(WARM_UP):
        act()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        act()
        count += 1
    return count / (time.perf_counter() - start)
