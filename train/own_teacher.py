"""A RefineDetLite as teacher: a narrower network, or the next one, learns from one that is trained.

It is run in PyTorch, so it needs no names of tensors, no scaling of its input, and fits every
resolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rdlite.errors import ModelError, RdliteError
from rdlite.session import Session
from train.anchors import ANCHORS_PER_CELL, decode, make_anchors, to_corners
from train.checkpoint import source_path
from train.config import TrainConfig
from train.distil import Seen, surest
from train.model import Outputs, RefineDetLite
from train.teacher import Lesson
from train.trained import Trained, load_trained


class OwnTeacher:
    """A trained RefineDetLite, run on training batches of any resolution.

    Args:
        config: `mimic` says which, as `train.trained.load_trained`; `distil` whether its objects
            are wanted; `precision` how it computes.
        device: Where it runs.

    Attributes:
        channels: Channels of the features of each level, strides 16, 32, 64 and 128.
        names: Its classes.

    Raises:
        ModelError: It cannot be read, or is another kind of detector.
    """

    def __init__(self, config: TrainConfig, *, device: torch.device) -> None:
        trained = _open(str(config.mimic))
        self._model = trained.model.to(device).requires_grad_(False)
        self._shapes, self._device = trained.shapes, device
        self._boxes, self._bf16 = config.distil > 0, config.precision == "bf16"
        self.channels = [self._model.head_channels] * len(self._model.odm)
        self.names = trained.names

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Lesson:
        """Run the teacher.

        Args:
            images: uint8 (B, R, R, 3) BGR.

        Returns:
            Its ODM's features and best class probabilities, on its device.
        """
        side = images.shape[1]
        x = images.to(self._device).permute(0, 3, 1, 2).float()
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bf16):
            coarse, refined = self._model.trunks(x)
            outputs = Outputs(*(part.float() for part in self._model.predict(coarse, refined)))
        probabilities = outputs.odm_conf.softmax(dim=2)[..., 1:]
        features = [feature.float() for feature in refined]
        scores = _best_of_cells(probabilities, features)
        seen = self._objects(outputs, probabilities, side) if self._boxes else None
        return Lesson(features, scores, seen)

    def _objects(self, outputs: Outputs, probabilities: Tensor, side: int) -> Seen:
        anchors = make_anchors(side, self._shapes).to(self._device)
        boxes = to_corners(decode(outputs.odm_loc, decode(outputs.arm_loc, anchors)))
        return surest(boxes, probabilities)


def _open(source: str) -> Trained:
    needs = "another detector than RefineDetLite needs --mimic-features"
    path = source_path(source)
    if path.suffix == ".onnx" and path.is_file():
        try:
            Session(path)
        except ModelError as error:
            raise ModelError(f"mimic: {error}; {needs}") from error
    try:
        trained = load_trained(source)
    except RdliteError as error:
        raise ModelError(f"mimic: {error}") from error
    if not isinstance(trained.model, RefineDetLite):
        raise ModelError(f"mimic: {source} is a {type(trained.model).__name__}; {needs}")
    return trained


def _best_of_cells(probabilities: Tensor, features: Sequence[Tensor]) -> list[Tensor]:
    """The best class probability (B, h, w) of any anchor of each cell, level by level."""
    best = probabilities.amax(dim=2).unflatten(1, (-1, ANCHORS_PER_CELL)).amax(dim=2)
    cells = [feature[0, 0].numel() for feature in features]
    return [
        level.reshape(len(level), *feature.shape[2:])
        for level, feature in zip(best.split(cells, dim=1), features, strict=True)
    ]
