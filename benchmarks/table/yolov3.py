"""YOLOv3 (arXiv 1804.02767) by its published structure, for timing."""

from __future__ import annotations

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

ANCHORS_PER_CELL = 3


class YOLOv3(nn.Module):
    """Darknet53 and the three output blocks of yolov3.cfg; random weights.

    Args:
        num_classes: 80 for COCO.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone = timm.create_model("darknet53", features_only=True, out_indices=(3, 4, 5))
        fine, middle, coarse = self.backbone.feature_info.channels()
        self.blocks = nn.ModuleList(
            [_block(coarse, 512), _block(middle + 256, 256), _block(fine + 128, 128)]
        )
        self.reduce = nn.ModuleList([_conv(512, 256, 1), _conv(256, 128, 1)])
        self.outputs = nn.ModuleList(
            nn.Sequential(
                _conv(width, 2 * width, 3),
                nn.Conv2d(2 * width, ANCHORS_PER_CELL * (5 + num_classes), 1),
            )
            for width in (512, 256, 128)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """Raw maps (B, 3 * (5 + classes), h, w) of strides 32, 16 and 8, of (B, 3, R, R)."""
        *finer, x = self.backbone(x)
        maps = []
        for level, block in enumerate(self.blocks):
            if level:
                x = F.interpolate(self.reduce[level - 1](x), scale_factor=2.0, mode="nearest")
                x = torch.cat([x, finer[-level]], dim=1)
            x = block(x)
            maps.append(self.outputs[level](x))
        return maps


def _block(inputs: int, width: int) -> nn.Module:
    """Five convolutions, 1x1 and 3x3 in turn."""
    return nn.Sequential(
        _conv(inputs, width, 1),
        _conv(width, 2 * width, 3),
        _conv(2 * width, width, 1),
        _conv(width, 2 * width, 3),
        _conv(2 * width, width, 1),
    )


def _conv(inputs: int, outputs: int, kernel: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.LeakyReLU(0.1, inplace=True),
    )
