"""Training of a detector."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from train import distributed
from train.augment import AugmentConfig
from train.class_weights import class_weights, count_boxes
from train.config import TrainConfig
from train.data import Batch, DetectionDataset, open_dataset
from train.defaults import explain, settle
from train.loop import Run
from train.matching import Targets, collate
from train.mimic import MimicLoss, Teacher, TeacherSettings
from train.model import RefineDetLite
from train.objective import Objective
from train.plots import plot_curves
from train.validation import holdout_share
from train.weights import load_weights


def build_model(config: TrainConfig, num_classes: int) -> RefineDetLite:
    """The network that a run's settings describe, with random weights."""
    return RefineDetLite(
        num_classes, width=config.width, res2block=config.res2block, light_head=config.light_head
    )


class Trainer(Run):
    """A run that trains a detector; arguments and errors as `train.loop.Run`."""

    config: TrainConfig
    dataset: DetectionDataset

    def open_data(self) -> None:
        """Open the training set, and let its size decide what the settings leave open."""
        told = self.config
        self.dataset = open_dataset(
            told.data,
            told.images,
            cache=told.cache,
            seed=told.seed,
            config=AugmentConfig(),
            holdout=holdout_share(told),
        )
        coco, failed = self.dataset.coco, self.dataset.cache.failed
        self.say(
            f"{len(self.dataset)} images, {len(coco.names)} classes, "
            f"{coco.dropped_boxes} boxes without area dropped, "
            f"{len(failed)} unreadable images left out"
        )
        for name, reason in failed.items():
            self.say(f"  left out: {name}: {reason}")
        self.config = settle(told, len(self.dataset))
        if chosen := explain(told, self.config, len(self.dataset)):
            self.say(chosen)

    def data_state(self) -> dict[str, Any]:
        """Names and category ids of the classes, and a digest of the annotations."""
        coco = self.dataset.coco
        return {
            "names": list(coco.names),
            "category_ids": list(coco.category_ids),
            "data_sha256": coco.sha256(),
        }

    def build(self) -> tuple[Objective, RefineDetLite]:
        """The detector and the loss terms that learn beside it; the detector is averaged."""
        config, coco = self.config, self.dataset.coco
        model = build_model(config, len(coco.names))
        if config.init and not self.resumes:
            self.say(f"{config.init}: {load_weights(model, config.init, names=coco.names)}")
        self.teacher = (
            Teacher(TeacherSettings.from_config(config), device=self.device)
            if config.mimic
            else None
        )
        mimic = MimicLoss(self.teacher.channels, config) if self.teacher else None
        weights = class_weights(count_boxes(coco)) if config.class_weights else None
        if config.freeze:
            model.backbone.requires_grad_(False)
            model.backbone.eval()  # nobody calls train() again
        return Objective(model, config, class_weights=weights, mimic=mimic), model

    def losses(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum of the loss terms, and the terms."""
        images = batch["images"]
        lesson = self.teacher(images).to(self.device) if self.teacher else None
        terms = self.parallel(
            images.to(self.device, non_blocking=True),
            _targets(batch, scores=self.config.score_weights).to(self.device),
            lesson,
        )
        return torch.stack(list(terms.values())).sum(), terms

    def save(self) -> None:
        """Write the checkpoint and the curves."""
        super().save()
        if len(self.history) > 1 and not distributed.rank():
            plot_curves(self.history, self.out / "curves.png")


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
