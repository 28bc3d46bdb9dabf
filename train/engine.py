"""Training of a detector."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from rdlite.errors import OptionError
from train import distributed
from train.augment import AugmentConfig
from train.build import build_model
from train.class_weights import class_weights, count_boxes
from train.config import TrainConfig, parse_resolution
from train.data import Batch, DetectionDataset, open_dataset
from train.defaults import explain, settle, settled_resolution
from train.heads import SSD, RefineDet
from train.loop import Run
from train.matching import Targets, collate
from train.mimic import MimicLoss
from train.model import RefineDetLite
from train.objective import Objective
from train.own_teacher import OwnTeacher
from train.plots import plot_curves
from train.teacher import Teacher, TeacherSettings
from train.validation import holdout_share, write_validation
from train.weights import Loaded, load_weights


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
            max_side=_kept_side(told),
            seed=told.seed,
            config=_augmentation(told),
            holdout=holdout_share(told),
            repeat=told.repeat,
            min_score=told.min_score,
        )
        self.say(self.dataset.summary())
        for name, reason in self.dataset.cache.failed.items():
            self.say(f"  unreadable: {name}: {reason}")
        self.validation = None if distributed.rank() else write_validation(told, self.dataset)
        self.config = settle(told, len(self.dataset))
        if chosen := explain(told, self.config, len(self.dataset)):
            self.say(chosen)

    def data_state(self) -> dict[str, Any]:
        """Names and category ids of the classes, and a digest of the annotations."""
        coco = self.dataset.coco
        return {
            "names": list(coco.names),
            "category_ids": list(coco.category_ids),
            "data_sha256": self.dataset.sha256(),
        }

    def build(self) -> tuple[Objective, RefineDetLite | RefineDet | SSD]:
        """The detector and the loss terms that learn beside it; the detector is averaged."""
        config, coco = self.config, self.dataset.coco
        model = build_model(config, len(coco.names))
        if config.init and not self.resumes:
            self.say(f"{config.init}: {self._start(model)}")
        self.teacher = self._open_teacher() if config.mimic else None
        mimic = None
        if self.teacher:
            mimic = MimicLoss(self.teacher.channels, model.head_channels, config)
            if not self.resumes:
                begin = "go on" if mimic.take_over(config) else "begin at random"
                self.say(f"projections towards {config.mimic} {begin}")
        weights = (
            class_weights(count_boxes(self.dataset.images, len(coco.names)))
            if config.class_weights
            else None
        )
        if config.freeze:
            model.backbone.requires_grad_(False)
            model.backbone.eval()  # nobody calls train() again
        return Objective(model, config, class_weights=weights, mimic=mimic), model

    def _open_teacher(self) -> Teacher | OwnTeacher:
        config, names = self.config, self.dataset.coco.names
        if config.mimic_features:
            settings = TeacherSettings.from_config(config)
            sides = [side for side, _ in parse_resolution(config.resolution)]
            teacher = Teacher(settings, sides=sides, device=self.device)
            if config.distil and teacher.classes != len(names):
                raise OptionError(
                    f"distil: {config.mimic} scores {teacher.classes} classes, {config.data} has "
                    f"{len(names)}; they must be the same in the same order"
                )
            return teacher
        own = OwnTeacher(config, device=self.device)
        if config.distil and own.names != list(names):
            pairs = enumerate(itertools.zip_longest(own.names, names, fillvalue="none"), start=1)
            number, (theirs, ours) = next((n, pair) for n, pair in pairs if len(set(pair)) > 1)
            raise OptionError(
                f"distil: class {number} of {config.mimic} is {theirs}, that of {config.data} is "
                f"{ours}; they must be the same in the same order, or leave out --distil"
            )
        return own

    def _start(self, model: nn.Module) -> Loaded:
        config, names = self.config, self.dataset.coco.names
        taken = load_weights(model, str(config.init), names=names, shapes=config.anchor_shapes())
        if taken.narrowed and config.freeze:
            raise OptionError(
                f"{config.init} is wider than {config.width}, and a backbone that lost channels "
                f"has to train again; leave out --freeze {config.freeze}"
            )
        return taken

    def losses(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """What is minimised, and the loss terms; see `train.objective.Objective`."""
        images = batch["images"]
        lesson = self.teacher(images).to(self.device) if self.teacher else None
        return self.parallel(  # type: ignore[no-any-return]
            images.to(self.device, non_blocking=True),
            _targets(batch, scores=self.config.score_weights).to(self.device),
            lesson,
        )

    def save(self) -> None:
        """Write the checkpoint and the curves."""
        super().save()
        if len(self.history) > 1 and not distributed.rank():
            plot_curves(self.history, self.out / "curves.png")


def _kept_side(config: TrainConfig) -> int:
    """Side to which larger pictures are reduced once: no less than a crop of them has to have."""
    largest = max(side for side, _ in parse_resolution(settled_resolution(config)))
    return max(512, round(1.6 * largest))


def _augmentation(config: TrainConfig) -> AugmentConfig:
    last_side, _ = parse_resolution(settled_resolution(config))[-1]
    return AugmentConfig(
        expand_max=config.zoom_out, mosaic_prob=config.mosaic, mosaic_below=last_side
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
