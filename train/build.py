"""The network that a run's settings describe."""

from __future__ import annotations

from train.config import TrainConfig
from train.heads import SSD, RefineDet, build_detector
from train.model import RefineDetLite


def build_model(config: TrainConfig, num_classes: int) -> RefineDetLite | RefineDet | SSD:
    """The network that a run's settings describe, with random weights."""
    if config.head is not None and config.backbone is not None:
        return build_detector(config.head, config.backbone, num_classes)
    return RefineDetLite(
        num_classes, width=config.width, res2block=config.res2block, light_head=config.light_head
    )
