"""What a run minimises: the network together with everything that is trained beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from train.advanced import MultiTaskBalance
from train.anchors import make_anchors
from train.config import WITHOUT_ARM, TrainConfig
from train.heads import SSD, RefineDet
from train.loss import detection_loss
from train.matching import Targets
from train.mimic import MimicLoss
from train.model import RefineDetLite
from train.teacher import Lesson


class Objective(nn.Module):
    """A detector and its loss terms; one `forward` is one batch, so that it can be distributed.

    Args:
        model: The detector.
        config: Which losses.
        class_weights: float32 (K,), background first, if classes are weighted (Eq. 5).
        mimic: The distance to a teacher, if there is one.
    """

    def __init__(
        self,
        model: RefineDetLite | RefineDet | SSD,
        config: TrainConfig,
        *,
        class_weights: Tensor | None = None,
        mimic: MimicLoss | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.mimic = mimic
        self.balance = MultiTaskBalance() if config.multi_task else None
        self.register_buffer("class_weights", class_weights, persistent=False)
        self._giou, self._iou_guided = config.giou, config.iou_guided
        self._distil = config.distil
        self._arm = config.head not in WITHOUT_ARM
        self._shapes = config.anchor_shapes()
        self._made: dict[int, Tensor] = {}
        self._bf16 = config.precision == "bf16"

    def forward(
        self, images: Tensor, targets: Targets, lesson: Lesson | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss of a batch.

        Args:
            images: uint8 (B, R, R, 3) BGR.
            targets: Their ground truth.
            lesson: What the teacher says about them; needed if there is one.

        Returns:
            The scalar to minimise; and scalars to log: the loss terms before Eq. 6 weighs them and,
            where it does, each logarithm of its variance as `log_var_<term>`.
        """
        # Seen as NCHW, a contiguous NHWC batch is channels_last without a copy.
        x = images.permute(0, 3, 1, 2).float()
        side = images.shape[1]
        beside: dict[str, Tensor] = {}
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self._bf16):
            if self.mimic is not None and lesson is not None:
                coarse, refined = self.model.trunks(x)
                outputs = self.model.predict(coarse, refined)
                beside["mimic"] = self.mimic(refined, lesson, side)
            else:
                outputs = self.model(x)
        terms = detection_loss(
            outputs,
            targets,
            self._anchors(side, images.device),
            arm=self._arm,
            giou=self._giou,
            iou_guided=self._iou_guided,
            class_weights=self.class_weights,
            seen=lesson.seen if lesson is not None else None,
            distil=self._distil,
        )
        weighed, logged = terms, terms | beside
        if self.balance is not None:
            weighed = self.balance(terms)
            logged |= self.balance.log_variances()
        return torch.stack([*weighed.values(), *beside.values()]).sum(), logged

    def _anchors(self, side: int, device: torch.device) -> Tensor:
        """The anchors at a resolution, made once."""
        if side not in self._made:
            self._made[side] = make_anchors(side, self._shapes).to(device)
        return self._made[side]
