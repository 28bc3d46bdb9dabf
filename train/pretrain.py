"""Classification pre-training of the detector's backbone (paper Table 1, stage 4).

The result, backbone.safetensors, is what `python -m train fit --init` starts a detector from.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from rdlite.errors import OptionError
from train.checkpoint import (
    CHECKPOINT,
    check_same_run,
    load_checkpoint,
    save_checkpoint,
    truncate_log,
)
from train.classifier import Classifier, load_backbone
from train.classify_data import ClassDataset, open_classes
from train.data import make_loader, steps_per_epoch
from train.optim import NonFiniteLossError, average_of, make_optimizer, pick_device
from train.plots import plot_accuracy
from train.pretrain_config import PretrainConfig
from train.schedule import Schedule
from train.weights import write_weights

BACKBONE = "backbone.safetensors"
LOG_EVERY = 20
MAY_CHANGE = ("out", "val", "cache", "device", "workers", "threads", "save_every", "minutes")
"""Settings that a resumed run may change; see `train.engine.MAY_CHANGE`."""


class Pretrainer:
    """One pre-training run in one folder.

    Args:
        config: Settings. If `config.out` holds a checkpoint, the run goes on from it.

    Raises:
        OptionError: The folder holds a run with other settings or other data.
        RdliteError: Images or starting weights are unusable.
    """

    def __init__(self, config: PretrainConfig) -> None:
        if config.threads:
            torch.set_num_threads(config.threads)
        torch.manual_seed(config.seed)
        self.config = config
        self.out = Path(config.out)
        self.device = pick_device(config.device)
        self.dataset, self.val = _open_sets(config)
        steps_per_epoch(self.dataset, config.batch)  # refuses a set below one batch
        model = Classifier(len(self.dataset.names), width=config.width, res2block=config.res2block)
        if config.init:
            load_backbone(model.backbone, config.init)
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.optimizer = make_optimizer(
            self.model,
            optimizer=config.optimizer,
            lr=config.lr,
            weight_decay=config.weight_decay,
        )
        self.ema = average_of(self.model, config.ema)
        self.step = 0
        self.resolution: int | None = None
        self.history: list[dict[str, Any]] = []
        self.schedule = self._schedule(elapsed=0.0)
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OptionError(f"{self.out} cannot be made a folder ({error.strerror})") from error
        if (self.out / CHECKPOINT).exists():
            self._resume()

    def fit(self) -> dict[str, Any]:
        """Train to the end of the schedule and write the backbone.

        Returns:
            The last accuracy: `top1`, `top5`, `images`; empty without validation images.

        Raises:
            NonFiniteLossError: The loss is NaN or infinite; the last checkpoint is untouched.
        """
        self._report_start()
        batches = make_loader(
            self.dataset,
            batch_size=self.config.batch,
            workers=self.config.workers,
            seed=self.config.seed,
            resolution_at=self.schedule.resolution,
            start_step=self.step,
            # With a time limit nobody knows the last step; it is never reached.
            stop_step=self.schedule.total_steps or sys.maxsize,
        )
        with self._bar() as bar:
            while self.schedule.progress(self.step) < 1:
                batch = next(batches)
                labels = torch.cat([target["labels"] for target in batch["targets"]])
                row = self._train_step(batch["images"], labels)
                bar.update(self.config.batch)
                bar.set_postfix(loss=f"{row['loss']:.3f}", top1=f"{row['top1']:.2f}")
                if self.step % LOG_EVERY == 0:
                    self._log(row)
                if self.step % self.config.save_every == 0:
                    self.save()
        self.save()
        return self._finish()

    def save(self) -> None:
        """Measure accuracy, and write the checkpoint (whole or not at all) and the curves."""
        if len(self.val) and not any("val_top1" in row for row in self._rows_now()):
            self._log({"step": self.step, **self.measure()})
        save_checkpoint(
            self.out,
            {
                "model": self.model.state_dict(),
                "ema": self.ema.module.state_dict(),
                "averaged": self.ema.n_averaged,
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "resolution": self.resolution,
                "elapsed": self.schedule.elapsed,
                "config": self.config.to_dict(),
                "names": list(self.dataset.names),
                "data_sha256": self.dataset.sha256(),
                "history": self.history,
            },
        )
        if self.history:
            plot_accuracy(self.history, self.out / "curves.png")

    @torch.inference_mode()
    def measure(self) -> dict[str, float]:
        """Shares of the validation images whose class is the averaged weights' first, or in 5."""
        model, best = self.ema.module.eval(), min(5, len(self.val.names))
        side = self.resolution or self.schedule.resolution(self.step)
        hits = np.zeros(best, np.int64)
        for start in range(0, len(self.val), self.config.batch):
            chosen = range(start, min(start + self.config.batch, len(self.val)))
            images = np.stack([self.val.sample(i, epoch=0, resolution=side)[0] for i in chosen])
            labels = torch.from_numpy(self.val.labels[start : start + len(chosen)])
            logits = self._logits(model, torch.from_numpy(images)).cpu()
            hits += (logits.topk(best).indices == labels[:, None]).sum(0).numpy()
        return {
            "val_top1": int(hits[0]) / len(self.val),
            "val_top5": int(hits.sum()) / len(self.val),
        }

    def _train_step(self, images: Tensor, labels: Tensor) -> dict[str, Any]:
        lr, side = self.schedule.lr(self.step), images.shape[1]
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        labels = labels.to(self.device)
        logits = self._logits(self.model, images)
        loss = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip or math.inf)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            raise self._not_finite(loss.item(), norm.item())
        self.optimizer.step()
        if side != self.resolution:
            self.ema.n_averaged.zero_()  # begin a new average: see `PretrainConfig.ema`
        self.resolution = side
        self.ema.update_parameters(self.model)
        self.step += 1
        top1 = (logits.argmax(1) == labels).float().mean().item()
        return {
            "step": self.step,
            "loss": loss.item(),
            "top1": top1,
            "lr": lr,
            "resolution": side,
        }

    def _logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """Float32 (B, K) of uint8 (B, R, R, 3)."""
        # Seen as NCHW, a contiguous NHWC batch is channels_last without a copy.
        images = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float()
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"
        ):
            return model(images).float()

    def _not_finite(self, loss: float, norm: float) -> NonFiniteLossError:
        checkpoint = self.out / CHECKPOINT
        saved = f"{checkpoint} is sound" if checkpoint.exists() else "there is no checkpoint yet"
        return NonFiniteLossError(
            f"the loss ({loss}) or its gradient (norm {norm}) is not finite at step {self.step}; "
            f"{saved}; begin a new run with --lr {self.config.lr / 3:.2g} or --precision fp32 and "
            "another --out"
        )

    def _schedule(self, *, elapsed: float) -> Schedule:
        steps = steps_per_epoch(self.dataset, self.config.batch)
        return Schedule(self.config, steps, elapsed=elapsed)

    def _resume(self) -> None:
        state = load_checkpoint(self.out)
        check_same_run(state["config"], self.config.to_dict(), may_change=MAY_CHANGE)
        if state["data_sha256"] != self.dataset.sha256():
            raise OptionError(
                f"{self.config.images} is not the data that the run in {self.out} began with: "
                "files or classes differ; give another --out"
            )
        self.model.load_state_dict(state["model"])
        self.ema.module.load_state_dict(state["ema"])
        self.ema.n_averaged.copy_(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.resolution = state["step"], state["resolution"]
        self.history = state["history"]
        truncate_log(self.out / "log.jsonl", self.step)
        self.schedule = self._schedule(elapsed=state["elapsed"])

    def _rows_now(self) -> list[dict[str, Any]]:
        return [row for row in self.history if row["step"] == self.step]

    def _log(self, row: dict[str, Any]) -> None:
        self.history.append(row)
        with open(self.out / "log.jsonl", "a", encoding="utf-8") as log:
            log.write(json.dumps({"minutes": round(self.schedule.elapsed / 60, 2), **row}) + "\n")

    def _finish(self) -> dict[str, Any]:
        write_weights(nn.ModuleDict({"backbone": self.ema.module.backbone}), self.out / BACKBONE)
        result: dict[str, Any] = {}
        for row in self._rows_now():
            if "val_top1" in row:
                result = {
                    "top1": row["val_top1"],
                    "top5": row["val_top5"],
                    "images": len(self.val),
                }
        (self.out / "results.json").write_text(json.dumps(result), encoding="utf-8")
        accuracy = (
            f", top-1 {100 * result['top1']:.1f} %, top-5 {100 * result['top5']:.1f} % of "
            f"{result['images']} images"
            if result
            else ""
        )
        minutes = self.schedule.elapsed / 60
        tqdm.write(f"{self.step} steps in {minutes:.1f} minutes{accuracy}: {self.out / BACKBONE}")
        return result

    def _report_start(self) -> None:
        tqdm.write(
            f"{len(self.dataset)} images of {len(self.dataset.names)} classes, {len(self.val)} to "
            f"measure accuracy on; from step {self.step} on {self.device}"
        )
        if self.config.init and not self.step:
            tqdm.write(f"backbone from {self.config.init}, classifier at random")
        lines = self.dataset.report + (self.val.report if self.config.val else ())
        for line in lines:
            tqdm.write(line)

    def _bar(self) -> Any:
        total = self.schedule.total_steps
        return tqdm(
            total=total and total * self.config.batch,
            initial=self.step * self.config.batch,
            unit="img",
            disable=None,  # shown to a person, silent in a log
            dynamic_ncols=True,
        )


def _open_sets(config: PretrainConfig) -> tuple[ClassDataset, ClassDataset]:
    """The images to train on and those to measure on."""
    # A crop of the least area, cut from an image of twice the side, still fills the input.
    shared = {"cache": config.cache, "max_side": 2 * config.largest_side, "seed": config.seed}
    dataset = open_classes(config.images, **shared)
    if config.val is None:
        return dataset.split(config.holdout)
    val = open_classes(config.val, names=dataset.names, **shared)
    return dataset, val.subset(np.arange(len(val)), augmented=False)
