"""The training loop: optimiser steps, averaged weights, checkpoints that resume exactly."""

from __future__ import annotations

import contextlib
import json
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from rdlite.errors import OptionError
from train import distributed
from train.augment import AugmentConfig
from train.checkpoint import (
    CHECKPOINT,
    check_same_run,
    load_checkpoint,
    save_checkpoint,
    save_settings,
    truncate_log,
)
from train.class_weights import class_weights, count_boxes
from train.config import TrainConfig
from train.data import Batch, DetectionDataset, make_loader, open_dataset, steps_per_epoch
from train.defaults import explain, settle
from train.matching import Targets, collate
from train.mimic import MimicLoss, Teacher, TeacherSettings
from train.model import RefineDetLite
from train.objective import Objective
from train.optim import NonFiniteLossError, average_of, make_optimizer, pick_device
from train.plots import plot_curves
from train.schedule import Schedule
from train.validation import holdout_share
from train.weights import load_weights

LOG_EVERY = 20
MAY_CHANGE = (
    "out",
    "val",
    "val_images",
    "cache",
    "device",
    "workers",
    "threads",
    "save_every",
    "minutes",
)
"""Settings that a resumed run may change: they decide nothing about what is learned, except the
length in minutes: with a longer one, learning rate and resolution go back to where it puts them."""


def build_model(config: TrainConfig, num_classes: int) -> RefineDetLite:
    """The network that a run's settings describe, with random weights."""
    return RefineDetLite(
        num_classes, width=config.width, res2block=config.res2block, light_head=config.light_head
    )


class Trainer:
    """One training run in one folder.

    Args:
        config: Settings. If `config.out` holds a checkpoint, the run goes on from it.

    Raises:
        OptionError: The folder holds a run with other settings.
        RdliteError: Data or starting weights are unusable.
    """

    def __init__(self, config: TrainConfig) -> None:
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.device = distributed.join(pick_device(config.device))
        self.dataset = _open_dataset(config)
        self.out = Path(config.out)
        self.config = config = self._settle(config)
        names = self.dataset.coco.names
        model = build_model(config, len(names))
        if config.init and not (self.out / CHECKPOINT).exists():
            self._say(f"{config.init}: {load_weights(model, config.init, names=names)}")
        self.teacher = (
            Teacher(TeacherSettings.from_config(config), device=self.device)
            if config.mimic
            else None
        )
        mimic = MimicLoss(self.teacher.channels, config) if self.teacher else None
        weights = class_weights(count_boxes(self.dataset.coco)) if config.class_weights else None
        objective = Objective(model, config, class_weights=weights, mimic=mimic)
        objective.to(self.device, memory_format=torch.channels_last)
        if config.freeze:
            model.backbone.requires_grad_(False)
            model.backbone.eval()  # nobody calls train() again
        self.objective = distributed.synchronise_norms(objective, self.device)
        self._distributed = distributed.distribute(self.objective, self.device)
        self.model = self.objective.model
        self.optimizer = make_optimizer(
            self.objective,
            optimizer=config.optimizer,
            lr=config.lr,
            weight_decay=config.weight_decay,
        )
        self.ema = average_of(self.model, config.ema)
        self.step = 0
        self.resolution: int | None = None
        self.history: list[dict[str, Any]] = []
        self.schedule = Schedule(config, steps_per_epoch(self.dataset, config.batch))
        if (self.out / CHECKPOINT).exists():
            self._resume()
        elif not distributed.rank():
            save_settings(self.out, config.to_dict())

    def _settle(self, config: TrainConfig) -> TrainConfig:
        """Fill in what the settings leave open, and say so."""
        images = len(self.dataset)
        settled = settle(config, images)
        if chosen := explain(config, settled, images):
            self._say(chosen)
        _check_parts(settled)
        return settled

    def fit(self) -> None:
        """Train to the end of the schedule, writing checkpoints, curves and TensorBoard events.

        Raises:
            NonFiniteLossError: A loss term is NaN or infinite; the last checkpoint is untouched.
        """
        self._report_start()
        batches = self._batches()
        speed = _Speed()
        with self._events() as events, self._bar() as bar:
            while self.schedule.progress(self.step) < 1:
                with speed.waiting():
                    batch = next(batches)
                terms, lr = self.train_step(batch)
                speed.images += self.config.batch
                bar.update(self.config.batch)
                bar.set_postfix(loss=f"{sum(terms.values()):.3f}", px=self.resolution)
                if self.step % LOG_EVERY == 0:
                    self._log({**terms, "lr": lr, **speed.take()}, sum(terms.values()), events)
                if self.step % self.config.save_every == 0:
                    self.save()
        self.save()
        minutes = self.schedule.elapsed / 60
        self._say(f"{self.step} steps in {minutes:.1f} minutes: {self.out / CHECKPOINT}")

    def save(self) -> None:
        """Write the checkpoint (whole or not at all) and the curves."""
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
            "names": list(self.dataset.coco.names),
            "category_ids": list(self.dataset.coco.category_ids),
            "data_sha256": self.dataset.coco.sha256(),
            "history": self.history,
        }
        save_checkpoint(self.out, state)
        if len(self.history) > 1:
            plot_curves(self.history, self.out / "curves.png")

    def _resume(self) -> None:
        state = load_checkpoint(self.out)
        check_same_run(state["config"], self.config.to_dict(), may_change=MAY_CHANGE)
        if state["data_sha256"] != self.dataset.coco.sha256():
            raise OptionError(
                f"{self.config.data} is not the data that the run in {self.out} began with: "
                "images, boxes or classes differ; give another --out"
            )
        self.objective.load_state_dict(state["objective"])
        self.ema.module.load_state_dict(state["ema"])
        self.ema.n_averaged.copy_(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.resolution = state["step"], state["resolution"]
        self.history = state["history"]
        truncate_log(self.out / "log.jsonl", self.step)
        self.schedule = Schedule(
            self.config, steps_per_epoch(self.dataset, self.config.batch), elapsed=state["elapsed"]
        )

    def _not_finite(self, what: str, terms: dict[str, float]) -> NonFiniteLossError:
        checkpoint = self.out / CHECKPOINT
        saved = (
            f"its last checkpoint, {checkpoint}, is sound"
            if checkpoint.exists()
            else ("there is no checkpoint yet")
        )
        start = checkpoint if checkpoint.exists() else self.config.init
        again = f"--init {start} " if start else ""
        return NonFiniteLossError(
            f"the {what} is not finite at step {self.step}: {terms}; {saved}; begin a new run with "
            f"{again}--lr {self.config.lr / 3:.2g} or --precision fp32 and another --out"
        )

    def _batches(self) -> Iterator[Batch]:
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
        )

    def train_step(self, batch: Batch) -> tuple[dict[str, float], float]:
        """Take one optimiser step.

        Args:
            batch: As `train.data.make_loader` yields.

        Returns:
            The loss terms by name, and the learning rate.

        Raises:
            NonFiniteLossError: A term or the gradient is NaN or infinite.
        """
        lr = self.schedule.lr(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        terms = self._backward(batch)
        norm = nn.utils.clip_grad_norm_(self.objective.parameters(), self.config.clip or math.inf)
        if not torch.isfinite(norm):
            raise self._not_finite("gradient", terms)
        self.optimizer.step()
        resolution = batch["images"].shape[1]
        if resolution != self.resolution:
            self.ema.n_averaged.zero_()  # begin a new average: see `TrainConfig.ema`
        self.resolution = resolution
        self.ema.update_parameters(self.model)
        self.step += 1
        return terms, lr

    def _backward(self, batch: Batch) -> dict[str, float]:
        """Add the gradients of a batch, part by part; returns its loss terms."""
        parts = self.config.accumulate
        targets = _targets(batch, scores=self.config.score_weights)
        total: dict[str, Tensor] = {}
        for part in range(parts):
            rows = slice(part, None, parts)
            images = batch["images"][rows].contiguous()
            lesson = self.teacher(images).to(self.device) if self.teacher else None
            with self._last_part(part == parts - 1):
                terms = self._distributed(
                    images.to(self.device, non_blocking=True),
                    Targets(*(t[rows] for t in targets)).to(self.device),
                    lesson,
                )
                (torch.stack(list(terms.values())).sum() / parts).backward()
            for name, value in terms.items():
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
        waiting: contextlib.AbstractContextManager[None] = self._distributed.no_sync()
        return waiting

    def _report_start(self) -> None:
        coco, failed = self.dataset.coco, self.dataset.cache.failed
        self._say(
            f"{len(self.dataset)} images, {len(coco.names)} classes, "
            f"{coco.dropped_boxes} boxes without area dropped, "
            f"{len(failed)} unreadable images left out; from step {self.step} on {self.device}"
        )
        for name, reason in failed.items():
            self._say(f"  left out: {name}: {reason}")

    def _say(self, text: str) -> None:
        if not distributed.rank():
            tqdm.write(text)

    def _bar(self) -> Any:
        total = self.schedule.total_steps
        return tqdm(
            total=total and total * self.config.batch,
            initial=self.step * self.config.batch,
            unit="img",
            disable=True if distributed.rank() else None,  # shown to a person, silent in a log
            dynamic_ncols=True,
        )

    def _events(self) -> Any:
        """TensorBoard's writer, in the first process."""
        from torch.utils.tensorboard import SummaryWriter

        if distributed.rank():
            return contextlib.nullcontext()
        return SummaryWriter(str(self.out), purge_step=self.step)

    def _log(self, values: dict[str, float], loss: float, events: Any) -> None:
        row = {"step": self.step, "loss": loss, **values, "resolution": self.resolution}
        self.history.append(row)
        if events is None:
            return
        for name in ("loss", *values):
            events.add_scalar(name, row[name], self.step)
        with open(self.out / "log.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps({"minutes": round(self.schedule.elapsed / 60, 2), **row}) + "\n")


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


def _open_dataset(config: TrainConfig) -> DetectionDataset:
    """The training set; the first process decodes it, the others wait and read what it wrote."""
    if distributed.rank():
        distributed.wait()
    dataset = open_dataset(
        config.data,
        config.images,
        cache=config.cache,
        seed=config.seed,
        config=AugmentConfig(),
        holdout=holdout_share(config),
    )
    if not distributed.rank():
        distributed.wait()
    return dataset


def _check_parts(config: TrainConfig) -> None:
    """A batch must divide evenly, and processes must agree on every step."""
    parts = distributed.size() * config.accumulate
    if config.batch % parts:
        raise OptionError(
            f"batch must be a multiple of processes x accumulate, got {config.batch} and "
            f"{distributed.size()} x {config.accumulate}"
        )
    if config.minutes and distributed.size() > 1:
        raise OptionError(
            "minutes cannot be used with several processes, whose clocks differ; give epochs"
        )


def _targets(batch: Batch, *, scores: bool) -> Targets:
    return collate(
        [
            (
                t["boxes"],
                t["labels"],
                t["ignore"],
                t["score"] if scores else torch.ones_like(t["score"]),
            )
            for t in batch["targets"]
        ]
    )
