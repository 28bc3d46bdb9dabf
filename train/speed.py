"""How many images a second the loader makes and the network learns from, each alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from tempfile import TemporaryDirectory

from train import distributed
from train.config import TrainConfig, parse_resolution
from train.data import Batch, make_loader
from train.engine import Trainer

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
    rows = ["side   loader img/s   steps img/s"]
    with TemporaryDirectory() as folder:
        trainer = Trainer(replace(config, out=folder, minutes=None))
        for side, _ in parse_resolution(trainer.config.resolution):
            loader = _rate(_next(_batches(trainer, side)), seconds) * trainer.config.batch
            batch = next(_batches(trainer, side, workers=0))
            step = _rate(lambda batch=batch: trainer.train_step(batch), seconds)
            rows.append(f"{side:4}   {loader:12.1f}   {step * trainer.config.batch:11.1f}")
    return "\n".join(rows)


def _next(batches: Iterator[Batch]) -> Callable[[], Batch]:
    return lambda: next(batches)


def _batches(trainer: Trainer, side: int, workers: int | None = None) -> Iterator[Batch]:
    config = trainer.config
    return make_loader(
        trainer.dataset,
        batch_size=config.batch,
        workers=config.workers if workers is None else workers,
        seed=config.seed,
        resolution_at=lambda step: side,
        stop_step=1 << 40,
        part=(distributed.rank(), distributed.size()),
    )


def _rate(act: Callable[[], object], seconds: float) -> float:
    """Calls a second."""
    for _ in range(WARM_UP):
        act()
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        act()
        count += 1
    return count / (time.perf_counter() - start)
