"""The training loop: optimiser steps, averaged weights, checkpoints that resume exactly."""

from __future__ import annotations

import abc
import contextlib
import datetime
import json
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from rdlite.errors import OptionError
from train import distributed
from train.checkpoint import (
    CHECKPOINT,
    LOG,
    check_same_run,
    clean,
    load_checkpoint,
    make_folder,
    save_checkpoint,
    save_settings,
    truncate_log,
)
from train.config import RunConfig
from train.data import Batch, Samples, make_loader, steps_per_epoch
from train.optim import NonFiniteLossError, average_of, make_optimizer, pick_device
from train.schedule import Schedule

LOG_EVERY = 20


class Run(abc.ABC):
    """One training run in one folder; what is trained, and on what, is up to the subclass.

    Args:
        config: Settings. If `config.out` holds a checkpoint, the run goes on from it.

    Raises:
        OptionError: The folder holds a run with other settings or other data.
        RdliteError: Data or starting weights are unusable.
    """

    config: RunConfig
    dataset: Samples

    def __init__(self, config: RunConfig) -> None:
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.device = distributed.join(pick_device(config.device))
        self.config = config
        self.out = make_folder(config.out)
        self.resumes = (self.out / CHECKPOINT).exists()
        if not distributed.rank():
            clean(self.out)
        self._open_in_turn()
        distributed.check_parts(self.config)
        steps = steps_per_epoch(self.dataset, self.config.batch)
        objective, self.model = self.build()
        objective.to(self.device, memory_format=torch.channels_last)
        self.objective = distributed.synchronise_norms(objective, self.device)
        self.parallel = distributed.distribute(self.objective, self.device)
        self.optimizer = make_optimizer(self.objective, self.config)
        self.ema = average_of(self.model, self.config.ema)
        self.step = 0
        self.resolution: int | None = None
        self.history: list[dict[str, Any]] = []
        self._events: Any = None
        elapsed = 0.0
        if self.resumes:
            elapsed = self._resume()
        elif not distributed.rank():
            save_settings(self.out, self.config.to_dict())
        self.schedule = Schedule(self.config, steps, elapsed=elapsed)

    @abc.abstractmethod
    def open_data(self) -> None:
        """Set `dataset`, settle what `config` leaves open, and say what was found."""

    @abc.abstractmethod
    def data_state(self) -> dict[str, Any]:
        """What a checkpoint says of the data: `names` of the classes, `data_sha256`, and more."""

    @abc.abstractmethod
    def build(self) -> tuple[nn.Module, nn.Module]:
        """Make all that is trained, with its starting weights, and the part of it to average."""

    @abc.abstractmethod
    def losses(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Run `parallel` on a batch or a part of one.

        Returns:
            The scalar to minimise, and scalars by name that are logged with it.
        """

    def fit(self) -> Any:
        """Train to the end of the schedule, writing checkpoints, curves and TensorBoard events.

        Raises:
            NonFiniteLossError: A loss term is NaN or infinite; the last checkpoint is untouched.
        """
        if self.finished:
            self.say(f"{self.out / CHECKPOINT} is at the end of its schedule")
            return
        self.say(f"from step {self.step} on {self.device}; {self.out / LOG} follows it")
        batches = self.batches()
        speed = _Speed()
        signals = handle_signals(went_on=self.schedule.went_on)
        with self._writer() as self._events, self._bar() as bar, signals as stop:
            while not self.finished:
                with speed.waiting():
                    batch = next(batches)
                row = self.train_step(batch)
                self.schedule.note()
                speed.images += self.config.batch
                bar.update(self.config.batch)
                done = f"{self.schedule.progress(self.step):.0%}"
                bar.set_postfix(done=done, loss=f"{row['loss']:.3f}", px=self.resolution)
                if self.step % LOG_EVERY == 0 or self.finished:
                    self.log(row | speed.take())
                if self.step % self.config.save_every == 0:
                    self.save()
                    self.say(f"step {self.step}, {done}: loss {row['loss']:.3f}, saved")
                if stop.is_set():
                    self.save()
                    raise KeyboardInterrupt
            self.save()
        minutes = self.schedule.elapsed / 60
        self.say(f"{self.step} steps in {minutes:.1f} minutes: {self.out / CHECKPOINT}")

    @property
    def finished(self) -> bool:
        """Whether the schedule is at its end."""
        return self.schedule.progress(self.step) >= 1

    def save(self) -> None:
        """Write the checkpoint, whole or not at all, in the first process."""
        if distributed.rank():
            return
        state = {
            "objective": self.objective.state_dict(),
            "ema": self.ema.module.state_dict(),
            "averaged": self.ema.n_averaged,
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "resolution": self.resolution,
            "elapsed": self.schedule.elapsed,
            "config": self.config.to_dict(),
            "history": self.history,
            "date": datetime.date.today().isoformat(),
        }
        save_checkpoint(self.out, state | self.data_state())

    def batches(self) -> Iterator[Batch]:
        """The batches of this process, from the next step on."""
        return make_loader(
            self.dataset,
            batch_size=self.config.batch,
            workers=self.config.workers,
            seed=self.config.seed,
            resolution_at=self.schedule.resolution,
            start_step=self.step,
            # With a time limit nobody knows the last step; it is never reached.
            stop_step=self.schedule.total_steps or sys.maxsize,
            part=(distributed.rank(), distributed.size()),
            pin=self.device.type == "cuda",
        )

    def train_step(self, batch: Batch) -> dict[str, float]:
        """Take one optimiser step.

        Args:
            batch: As `batches` yields.

        Returns:
            `loss`, what `losses` gave by name, and the learning rate `lr`.

        Raises:
            NonFiniteLossError: A loss or the gradient is NaN or infinite.
        """
        lr = self.schedule.lr(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        found = self._backward(batch)
        norm = nn.utils.clip_grad_norm_(self.objective.parameters(), self.config.clip or math.inf)
        if not torch.isfinite(norm):
            raise self._not_finite("gradient", found)
        self.optimizer.step()
        resolution = batch["images"].shape[1]
        if resolution != self.resolution:
            self.ema.n_averaged.zero_()  # begin a new average: see `RunConfig.ema`
        self.resolution = resolution
        self.ema.update_parameters(self.model)
        self.step += 1
        return found | {"lr": lr}

    def log(self, values: dict[str, float]) -> None:
        """Add a row to the history, and in the first process to its log and TensorBoard."""
        row = {"step": self.step, **values, "resolution": self.resolution}
        self.history.append(row)
        if distributed.rank():
            return
        with open(self.out / LOG, "a", encoding="utf-8") as log:
            log.write(json.dumps({"minutes": round(self.schedule.elapsed / 60, 2), **row}) + "\n")
        for name, value in values.items() if self._events else ():
            self._events.add_scalar(name, value, self.step)

    def say(self, text: str) -> None:
        """Print a line, in the first process."""
        if not distributed.rank():
            tqdm.write(text)

    def _open_in_turn(self) -> None:
        """The first process decodes the images, the others wait and read what it wrote."""
        if distributed.rank():
            distributed.wait()
        self.open_data()
        if not distributed.rank():
            distributed.wait()

    def _resume(self) -> float:
        """Take over the state of the checkpoint; returns the seconds that it took so far."""
        state = load_checkpoint(self.out)
        check_same_run(state["config"], self.config)
        if state["data_sha256"] != self.data_state()["data_sha256"]:
            raise OptionError(
                f"{self.dataset.path} is not the data that the run in {self.out} began with: "
                "images, boxes or classes differ; give another --out"
            )
        self.objective.load_state_dict(state["objective"])
        self.ema.module.load_state_dict(state["ema"])
        self.ema.n_averaged.copy_(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.resolution = state["step"], state["resolution"]
        self.history = state["history"]
        truncate_log(self.out / LOG, self.step)
        return float(state["elapsed"])

    def _backward(self, batch: Batch) -> dict[str, float]:
        """Add the gradients of a batch, part by part; returns its losses."""
        parts = self.config.accumulate
        total: dict[str, Tensor] = {}
        for part in range(parts):
            rows = slice(part, None, parts)
            images, targets = batch["images"][rows].contiguous(), batch["targets"][rows]
            with self._last_part(part == parts - 1):
                loss, values = self.losses({**batch, "images": images, "targets": targets})
                (loss / parts).backward()
            for name, value in {"loss": loss, **values}.items():
                total[name] = total.get(name, 0.0) + value.detach() / parts
        means = distributed.average(torch.stack(list(total.values()))).tolist()
        found = dict(zip(total, means, strict=True))
        if not all(math.isfinite(value) for value in means):
            raise self._not_finite("loss", found)
        return found

    def _last_part(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Gradients go to the other processes with the last part only."""
        if last or distributed.size() == 1:
            return contextlib.nullcontext()
        return self.parallel.no_sync()

    def _not_finite(self, what: str, found: dict[str, float]) -> NonFiniteLossError:
        checkpoint = self.out / CHECKPOINT
        if checkpoint.exists():
            saved, start = f"its last checkpoint, {checkpoint}, is sound", str(checkpoint)
        else:
            saved, start = "there is no checkpoint yet", self.config.init
        again = f"--init {start} " if start else ""
        return NonFiniteLossError(
            f"the {what} is not finite at step {self.step}: {found}; {saved}; begin a new run with "
            f"{again}--lr {self.config.lr / 3:.2g} or --precision fp32 and another --out"
        )

    def _bar(self) -> Any:
        total = self.schedule.total_steps
        return tqdm(
            total=total and total * self.config.batch,
            initial=self.step * self.config.batch,
            unit="img",
            disable=True if distributed.rank() else None,  # shown to a person, silent in a log
            dynamic_ncols=True,
        )

    def _writer(self) -> Any:
        """TensorBoard's writer, in the first process."""
        from torch.utils.tensorboard import SummaryWriter

        if distributed.rank():
            return contextlib.nullcontext()
        return SummaryWriter(str(self.out), purge_step=self.step)


@contextlib.contextmanager
def handle_signals(*, went_on: Callable[[], None]) -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into a flag, so that a step is finished and saved.

    A second one stops at once. Several processes would stop at different steps and wait for each
    other, so there signals keep their meaning.

    Args:
        went_on: Called when the process goes on after SIGSTOP or Ctrl-Z; not on Windows, which has
            neither.

    Yields:
        The flag.
    """
    stop = threading.Event()
    if distributed.size() > 1 or threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(number: int, frame: Any) -> None:
        stop.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    handlers: dict[int, Callable[[int, Any], None]] = {signal.SIGINT: note, signal.SIGTERM: note}
    if sys.platform != "win32":
        handlers[signal.SIGCONT] = lambda number, frame: went_on()
    usual = {number: signal.getsignal(number) for number in handlers}
    for number, handler in handlers.items():
        signal.signal(number, handler)
    try:
        yield stop
    finally:
        for number in usual:
            signal.signal(number, usual[number])


class _Speed:
    """Images per second between two looks, and the share of the time spent waiting for them."""

    def __init__(self) -> None:
        self.images = 0
        self._waited = 0.0
        self._since = time.monotonic()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    def take(self) -> dict[str, float]:
        now = time.monotonic()
        passed = max(now - self._since, 1e-9)
        found = {"img_s": self.images / passed, "loader_wait": self._waited / passed}
        self.images, self._waited, self._since = 0, 0.0, now
        return {name: round(value, 3) for name, value in found.items()}
