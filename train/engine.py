"""The training loop: optimiser steps, averaged weights, checkpoints that resume exactly."""

from __future__ import annotations

import functools
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from rdlite.errors import OptionError, RdliteError
from train.anchors import make_anchors
from train.augment import AugmentConfig
from train.config import TrainConfig
from train.data import Batch, make_loader, open_dataset, steps_per_epoch
from train.loss import detection_loss
from train.matching import Targets, collate
from train.model import RefineDetLite
from train.plots import TERMS, plot_curves
from train.schedule import Schedule
from train.weights import load_weights

CHECKPOINT = "checkpoint.pt"
LOG_EVERY = 20
MAY_CHANGE = ("out", "cache", "device", "workers", "threads", "save_every", "minutes")
"""Settings that a resumed run may change: they decide nothing about what is learned, except the
length in minutes: with a longer one, learning rate and resolution go back to where it puts them."""


class NonFiniteLossError(RdliteError, ArithmeticError):
    """The loss became NaN or infinite."""


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
        self.config = config
        self.out = Path(config.out)
        self.device = _device(config.device)
        self.dataset = open_dataset(
            config.data, config.images, cache=config.cache, seed=config.seed, config=AugmentConfig()
        )
        model = build_model(config, len(self.dataset.coco.names))
        if config.init:
            load_weights(model, config.init)
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.optimizer = make_optimizer(self.model, config)
        self.ema = AveragedModel(
            self.model, multi_avg_fn=functools.partial(_average, config.ema), use_buffers=True
        )
        self.step = 0
        self.resolution: int | None = None
        self.history: list[dict[str, Any]] = []
        self.schedule = Schedule(config, steps_per_epoch(self.dataset, config.batch))
        self.out.mkdir(parents=True, exist_ok=True)
        if (self.out / CHECKPOINT).exists():
            self._resume()

    def fit(self) -> None:
        """Train to the end of the schedule, writing checkpoints, curves and TensorBoard events.

        Raises:
            NonFiniteLossError: A loss term is NaN or infinite; the last checkpoint is untouched.
        """
        from torch.utils.tensorboard import SummaryWriter

        self._report_start()
        batches = self._batches()
        with SummaryWriter(str(self.out), purge_step=self.step) as events, self._bar() as bar:
            while self.schedule.progress(self.step) < 1:
                batch = next(batches)
                resolution = batch["images"].shape[1]
                terms, lr = self._train_step(batch, resolution)
                bar.update(self.config.batch)
                bar.set_postfix(loss=f"{sum(terms.values()):.3f}", px=resolution)
                if self.step % LOG_EVERY == 0:
                    self._log(terms, lr, resolution, events)
                if self.step % self.config.save_every == 0:
                    self.save()
        self.save()
        minutes = self.schedule.elapsed / 60
        tqdm.write(f"{self.step} steps in {minutes:.1f} minutes: {self.out / CHECKPOINT}")

    def save(self) -> None:
        """Write the checkpoint (whole or not at all) and the curves."""
        state = {
            "model": self.model.state_dict(),
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
        temporary = self.out / f".{CHECKPOINT}.partial"
        torch.save(state, temporary)
        os.replace(temporary, self.out / CHECKPOINT)
        if len(self.history) > 1:
            plot_curves(self.history, self.out / "curves.png")

    def _resume(self) -> None:
        state = load_checkpoint(self.out)
        _check_same_run(state["config"], self.config)
        if state["data_sha256"] != self.dataset.coco.sha256():
            raise OptionError(
                f"{self.config.data} is not the data that the run in {self.out} began with: "
                "images, boxes or classes differ; give another --out"
            )
        self.model.load_state_dict(state["model"])
        self.ema.module.load_state_dict(state["ema"])
        self.ema.n_averaged.copy_(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.resolution = state["step"], state["resolution"]
        self.history = state["history"]
        self._truncate_log()
        self.schedule = Schedule(
            self.config, steps_per_epoch(self.dataset, self.config.batch), elapsed=state["elapsed"]
        )

    def _truncate_log(self) -> None:
        """Drop what an interrupted part logged after its last checkpoint: it is done again."""
        log = self.out / "log.jsonl"
        rows = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        kept = [row for row in rows if json.loads(row)["step"] <= self.step]
        log.write_text("".join(f"{row}\n" for row in kept), encoding="utf-8")

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
        )

    def _train_step(self, batch: Batch, resolution: int) -> tuple[dict[str, float], float]:
        lr = self.schedule.lr(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        losses = self._losses(batch, resolution)
        terms = {name: loss.item() for name, loss in losses.items()}
        if not all(math.isfinite(value) for value in terms.values()):
            raise self._not_finite("loss", terms)
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip or math.inf)
        if not torch.isfinite(norm):
            raise self._not_finite("gradient", terms)
        self.optimizer.step()
        if resolution != self.resolution:
            self.ema.n_averaged.zero_()  # begin a new average: see `TrainConfig.ema`
        self.resolution = resolution
        self.ema.update_parameters(self.model)
        self.step += 1
        return terms, lr

    def _losses(self, batch: Batch, resolution: int) -> dict[str, Tensor]:
        images = batch["images"].to(self.device, non_blocking=True)
        # Seen as NCHW, a contiguous NHWC batch is channels_last without a copy.
        images = images.permute(0, 3, 1, 2).float()
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"
        ):
            outputs = self.model(images)
        anchors = make_anchors(resolution).to(self.device)
        return detection_loss(outputs, _targets(batch).to(self.device), anchors)

    def _report_start(self) -> None:
        coco, failed = self.dataset.coco, self.dataset.cache.failed
        tqdm.write(
            f"{len(self.dataset)} images, {len(coco.names)} classes, "
            f"{coco.dropped_boxes} boxes without area dropped, "
            f"{len(failed)} unreadable images left out; from step {self.step} on {self.device}"
        )
        for name, reason in failed.items():
            tqdm.write(f"  left out: {name}: {reason}")

    def _bar(self) -> Any:
        total = self.schedule.total_steps
        return tqdm(
            total=total and total * self.config.batch,
            initial=self.step * self.config.batch,
            unit="img",
            disable=None,  # shown to a person, silent in a log
            dynamic_ncols=True,
        )

    def _log(self, terms: dict[str, float], lr: float, resolution: int, events: Any) -> None:
        row = {
            "step": self.step,
            "loss": sum(terms.values()),
            **terms,
            "lr": lr,
            "resolution": resolution,
        }
        self.history.append(row)
        for name in ("loss", *TERMS, "lr"):
            events.add_scalar(name, row[name], self.step)
        with open(self.out / "log.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps({"minutes": round(self.schedule.elapsed / 60, 2), **row}) + "\n")


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """AdamW or SGD; only kernels (tensors of two or more dimensions) decay."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9)
    return torch.optim.AdamW(groups, lr=config.lr)


def load_checkpoint(folder: str | Path) -> dict[str, Any]:
    """The state that `Trainer.save` wrote into a run's folder; plain tensors and JSON types.

    Raises:
        OptionError: The folder holds no checkpoint.
    """
    path = Path(folder) / CHECKPOINT
    if not path.is_file():
        raise OptionError(
            f"{folder} holds no {CHECKPOINT}; give the --out folder of `python -m train fit`"
        )
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return state


def _average(
    decay: float, averaged: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor
) -> None:
    """Move averaged weights towards the current ones, in place.

    The decay rises to its value over the first updates, `min(decay, (1 + n) / (10 + n))`; otherwise
    a short run would export its starting weights.
    """
    count = int(updates)
    rate = 1 - min(decay, (1 + count) / (10 + count))
    for ours, theirs in zip(averaged, current, strict=True):
        if ours.is_floating_point():
            ours.lerp_(theirs, rate)
        else:
            ours.copy_(theirs)  # counters


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionError("device is cuda, but PyTorch sees no GPU here; use --device cpu")
    return torch.device(name)


def _check_same_run(saved: dict[str, Any], config: TrainConfig) -> None:
    now = config.to_dict()
    changed = [k for k in now if k not in MAY_CHANGE and saved.get(k) != now[k]]
    if (saved["minutes"] is None) != (now["minutes"] is None):  # epochs cannot become minutes
        changed.append("minutes")
    if changed:
        raise OptionError(
            f"{config.out} holds a run with other settings ("
            + ", ".join(f"{k}: {saved.get(k)!r} there, {now[k]!r} here" for k in changed)
            + "); give the same settings to continue it, or another --out"
        )


def _targets(batch: Batch) -> Targets:
    return collate([(t["boxes"], t["labels"], t["ignore"]) for t in batch["targets"]])
