"""Classification pre-training of the detector's backbone (paper Table 1, stage 4).

The result, backbone.safetensors, is what `python -m train fit --init` starts a detector from.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train import distributed
from train.classifier import Classifier, load_backbone
from train.classify_data import ClassDataset, open_classes
from train.data import Batch
from train.loop import Run
from train.plots import plot_accuracy
from train.pretrain_config import PretrainConfig
from train.weights import write_weights

BACKBONE = "backbone.safetensors"


class Pretrainer(Run):
    """A run that trains a classifier; arguments and errors as `train.loop.Run`."""

    config: PretrainConfig
    dataset: ClassDataset

    def open_data(self) -> None:
        """Open the images to train on, and those to measure on as `val`."""
        config = self.config
        # A crop of the least area, cut from an image of twice the side, still fills the input.
        shared = {"cache": config.cache, "max_side": 2 * config.largest_side, "seed": config.seed}
        dataset = open_classes(config.images, **shared)
        if config.val is None:
            self.dataset, self.val = dataset.split(config.holdout)
        else:
            val = open_classes(config.val, names=dataset.names, **shared)
            self.dataset, self.val = dataset, val.subset(np.arange(len(val)), augmented=False)
        self.say(
            f"{len(self.dataset)} images of {len(dataset.names)} classes, {len(self.val)} to "
            "measure accuracy on"
        )
        for line in dataset.report + (self.val.report if config.val else ()):
            self.say(line)

    def data_state(self) -> dict[str, Any]:
        """Names of the classes, and a digest of which file is in which."""
        return {"names": list(self.dataset.names), "data_sha256": self.dataset.sha256()}

    def build(self) -> tuple[Classifier, Classifier]:
        """The classifier, which is averaged whole."""
        config = self.config
        model = Classifier(len(self.dataset.names), width=config.width, res2block=config.res2block)
        if config.init and not self.resumes:
            load_backbone(model.backbone, config.init)
            self.say(f"backbone from {config.init}, classifier at random")
        return model, model

    def losses(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The cross-entropy, and the share of the images whose class is the first."""
        labels = torch.cat([target["labels"] for target in batch["targets"]]).to(self.device)
        logits = self._logits(self.parallel, batch["images"])
        loss = F.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)
        return loss, {"top1": (logits.argmax(1) == labels).float().mean()}

    def fit(self) -> dict[str, Any]:
        """Train to the end of the schedule and write the backbone.

        Returns:
            The last accuracy: `top1`, `top5`, `images`; empty without validation images, and in all
            processes but the first.

        Raises:
            NonFiniteLossError: The loss is NaN or infinite; the last checkpoint is untouched.
        """
        super().fit()
        return {} if distributed.rank() else self._finish()

    def save(self) -> None:
        """Measure accuracy, and write the checkpoint and the curves."""
        if distributed.rank():
            return
        if len(self.val) and not self._measured():
            self.log(self.measure())
        super().save()
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

    def _logits(self, model: nn.Module, images: Tensor) -> Tensor:
        """Float32 (B, K) of uint8 (B, R, R, 3)."""
        # Seen as NCHW, a contiguous NHWC batch is channels_last without a copy.
        images = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2).float()
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"
        ):
            return model(images).float()

    def _measured(self) -> dict[str, Any]:
        """The row of the history with the accuracy at this step; empty when there is none."""
        rows = (r for r in self.history if r["step"] == self.step and "val_top1" in r)
        return next(rows, {})

    def _finish(self) -> dict[str, Any]:
        write_weights(nn.ModuleDict({"backbone": self.ema.module.backbone}), self.out / BACKBONE)
        result: dict[str, Any] = {}
        if row := self._measured():
            result = {"top1": row["val_top1"], "top5": row["val_top5"], "images": len(self.val)}
            self.say(
                f"top-1 {100 * result['top1']:.1f} %, top-5 {100 * result['top5']:.1f} % of "
                f"{result['images']} images"
            )
        (self.out / "results.json").write_text(json.dumps(result), encoding="utf-8")
        self.say(f"for `fit --init`: {self.out / BACKBONE}")
        return result
