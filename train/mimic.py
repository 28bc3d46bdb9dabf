"""Learning from a teacher: the ODM is drawn towards the features of another detector.

Feature imitation: FitNets (arXiv 1412.6550); weighting cells by the teacher's confidence follows
the imitation masks of arXiv 1906.03609.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rdlite.errors import OptionError
from train import distributed
from train.checkpoint import checkpoint_path, load_checkpoint
from train.config import TrainConfig, parse_resolution
from train.teacher import Lesson

SETTLE = 64
"""Batches of a resolution from which its statistics are taken; afterwards the targets stand."""


class MimicLoss(nn.Module):
    """Distance between the ODM's features and the teacher's.

    The trunk of each level that the teacher has goes through one 1x1 convolution. Each channel of
    the teacher is standardised with statistics of that level and resolution (those taken at 192
    pixels are wrong at 320), and each cell counts by the teacher's best score in it.

    Args:
        channels: Of the teacher's features, by level.
        own: Channels of the ODM's features.
        config: For its resolutions.
    """

    def __init__(self, channels: Sequence[int], own: int, config: TrainConfig) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(own, c, 1) for c in channels)
        self.weight = config.mimic_weight
        for side, _ in parse_resolution(config.resolution):
            self.register_buffer(f"batches_{side}", torch.zeros((), dtype=torch.int64))
            for level, count in enumerate(channels):
                self.register_buffer(f"mean_{side}_{level}", torch.zeros(count))
                self.register_buffer(f"square_{side}_{level}", torch.zeros(count))

    def take_over(self, config: TrainConfig) -> bool:
        """Begin with the projections and statistics of the run whose checkpoint `config.init` is.

        Random ones pull the trunks in all directions for some hundred steps.

        Returns:
            Whether it is a checkpoint, and of a run with the same teacher: path and settings.
        """
        path = checkpoint_path(config.init or "")
        if path.suffix != ".pt" or not config.init:
            return False
        state = load_checkpoint(path)
        before, now = state["config"], config.to_dict()
        same = ("width", "mimic", "mimic_features", "mimic_color", "mimic_mean", "mimic_std")
        if any(before.get(name) != now[name] for name in same):
            return False
        own = self.state_dict()
        saved = {n.removeprefix("mimic."): tensor for n, tensor in state["objective"].items()}
        known = {n: tensor for n, tensor in saved.items() if n in own}
        if any(tensor.shape != own[n].shape for n, tensor in known.items()):
            return False
        self.load_state_dict(own | known)
        return True

    def forward(self, trunks: Sequence[Tensor], lesson: Lesson, side: int) -> Tensor:
        """Measure the distance.

        Args:
            trunks: ODM features of a batch, (B, `own`, h, w), finest level first.
            lesson: The teacher's.
            side: Resolution of the batch.

        Returns:
            Scalar: mean squared difference per channel, cells weighted, mean over levels, times the
            weight.

        Raises:
            OptionError: The grids differ.
        """
        self._observe(lesson.features, side)
        losses = []
        for level, (project, feature, score) in enumerate(
            zip(self.project, lesson.features, lesson.scores, strict=True)
        ):
            if feature.shape[2:] != trunks[level].shape[2:]:
                raise OptionError(
                    f"mimic: the teacher's level {level + 1} has a grid of "
                    f"{tuple(feature.shape[2:])} at {side} pixels, the ODM "
                    f"{tuple(trunks[level].shape[2:])}; name tensors of strides 16, 32, 64"
                )
            ours = project(trunks[level]).float()
            distance = (ours - self._standardise(feature, side, level)).square().mean(dim=1)
            # Over all processes, as every other normaliser: their gradients are averaged.
            total = distributed.average(score.sum()).clamp(min=1e-6)
            losses.append((distance * score).sum() / total)
        return self.weight * torch.stack(losses).mean()

    def _buffer(self, kind: str, side: int, level: int) -> Tensor:
        return self.get_buffer(f"{kind}_{side}_{level}")

    @torch.no_grad()
    def _observe(self, features: Sequence[Tensor], side: int) -> None:
        batches = self.get_buffer(f"batches_{side}")
        if not self.training or batches >= SETTLE:
            return
        batches += 1
        for level, feature in enumerate(features):
            for kind, value in (("mean", feature), ("square", feature.square())):
                buffer = self._buffer(kind, side, level)
                buffer += (distributed.average(value.mean(dim=(0, 2, 3))) - buffer) / batches

    def _standardise(self, feature: Tensor, side: int, level: int) -> Tensor:
        mean = self._buffer("mean", side, level)[:, None, None]
        variance = self._buffer("square", side, level)[:, None, None] - mean.square()
        return (feature - mean) / variance.clamp(min=1e-6).sqrt()
