"""The detectors that RefineDetLite is compared with: other heads on backbones of other networks.

They have the interface of `train.model.RefineDetLite`: the same outputs, losses and model file.

SSD and SSDLite are not all as published:

* SSDLite attaches to what timm gives as features: on MobileNetV2 the outputs of bottlenecks, 96 and
  320 channels, where arXiv 1801.04381 §6.2 takes the expansion of layer 15 (576) and the last layer
  (1280); on MobileNetV3-Large 112 and 960, where arXiv 1905.02244 §6.3 takes the expansion of the
  13th bottleneck (672) and the last layer, its channels halved (480).
* On VGG and ResNet all further levels halve the one before, so that the last one at 300 pixels has
  2x2 cells, of 128 channels. In SSD300 (arXiv 1512.02325) conv10_2 and conv11_2 are 3x3 without
  padding: 3x3 cells, then 1x1, both of 256 channels.
* Every level has the ratios 1/2, 1 and 2 in two sizes. The papers have 3 and 1/3 instead of the
  second size of 2 and 1/2, and SSD has only four anchors a cell on some levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.anchors import AnchorShapes
from train.backbones import Pyramid
from train.model import ConvBN, Outputs, initialise, predict_anchors

REFINEDET_STRIDES = (8, 16, 32)
REFINEDET_SHAPES = AnchorShapes(
    (0.1, 0.2, 0.4, 0.8, 1.0), (0.5, 1.0, 2.0), stride=REFINEDET_STRIDES[0], scales=1
)
"""One anchor of four strides' size for each ratio (arXiv 1711.06897 §4)."""
CHANNELS = 256
"""Of a transfer connection block."""

SSD_STRIDES = (16, 32)
SSD_SIZES = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.05)
"""Of MobileNets, whose first level has 20x20 cells at 320 pixels."""
CLASSIC_STRIDES = (8, 16)
CLASSIC_SIZES = (0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05)
"""Of VGG and ResNet, whose first level has 38x38 cells at 300 pixels (SSD300's for COCO)."""
SSD_RATIOS = (0.5, 1.0, 2.0)
EXTRA_CHANNELS = (512, 256, 256, 128)
"""Levels behind the backbone's two, each half of the one before."""


def head_shapes(head: str, backbone: str) -> AnchorShapes:
    """The anchors of a head, which its predictors are made for."""
    if head == "refinedet":
        return REFINEDET_SHAPES
    classic = _is_classic(backbone)
    sizes, strides = (CLASSIC_SIZES, CLASSIC_STRIDES) if classic else (SSD_SIZES, SSD_STRIDES)
    return AnchorShapes(sizes, SSD_RATIOS, stride=strides[0])


def _is_classic(backbone: str) -> bool:
    return backbone.startswith(("vgg", "resnet"))


def build_detector(head: str, backbone: str, num_classes: int) -> RefineDet | SSD:
    """One of the three detectors, with random weights.

    Args:
        head: One of `HEADS`.
        backbone: As `train.backbones.Pyramid`.
        num_classes: Foreground classes.

    Raises:
        OptionError: As `train.backbones.Pyramid`.
    """
    if head == "refinedet":
        return RefineDet(num_classes, backbone)
    return SSD(num_classes, backbone, lite=head == "ssdlite")


class RefineDet(nn.Module):
    """RefineDet (arXiv 1711.06897) on any backbone, at strides 8 to 64.

    As published: the ARM predicts from the backbone with 3x3 convolutions, transfer connection
    blocks with 256 channels of 3x3 convolutions and a deconvolution carry the features over, and
    the ODM predicts with 3x3 convolutions. New layers are batch-normalised, which the run time
    folds away; that stands in for the L2 normalisation of VGG's features.

    Args:
        num_classes: Foreground classes.
        backbone: As `train.backbones.Pyramid`.
    """

    def __init__(self, num_classes: int, backbone: str) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = Pyramid(backbone, REFINEDET_STRIDES)
        self.extra = _Extra(self.backbone.channels[-1], 512)
        pyramid = (*self.backbone.channels, 512)
        self.transfer = nn.ModuleList(
            nn.Sequential(ConvBN(channels, CHANNELS, 3), ConvBN(CHANNELS, CHANNELS, 3, relu=False))
            for channels in pyramid
        )
        self.enlarge = nn.ModuleList(
            nn.ConvTranspose2d(CHANNELS, CHANNELS, 2, stride=2) for _ in REFINEDET_STRIDES
        )
        self.smooth = nn.ModuleList(ConvBN(CHANNELS, CHANNELS, 3) for _ in pyramid)
        anchors, odm = REFINEDET_SHAPES.per_cell, [CHANNELS] * len(pyramid)
        self.arm_loc = _predictors(pyramid, 4 * anchors)
        self.arm_conf = _predictors(pyramid, 2 * anchors)
        self.odm_loc = _predictors(odm, 4 * anchors)
        self.odm_conf = _predictors(odm, (num_classes + 1) * anchors)
        _initialise(self)

    def forward(self, x: Tensor) -> Outputs:
        """As `train.model.RefineDetLite.forward`."""
        pyramid = self.backbone(x)
        pyramid.append(self.extra(pyramid[-1]))
        refined = self._fuse(pyramid)
        return Outputs(
            predict_anchors(self.arm_loc, pyramid, 4),
            predict_anchors(self.arm_conf, pyramid, 2),
            predict_anchors(self.odm_loc, refined, 4),
            predict_anchors(self.odm_conf, refined, self.num_classes + 1),
        )

    def _fuse(self, pyramid: Sequence[Tensor]) -> list[Tensor]:
        fused = [transfer(p) for transfer, p in zip(self.transfer, pyramid, strict=True)]
        for level in reversed(range(len(fused))):
            x = fused[level]
            if level < len(self.enlarge):
                x = x + _cut(self.enlarge[level](fused[level + 1]), x)
            fused[level] = self.smooth[level](F.relu(x))
        return fused


class SSD(nn.Module):
    """SSD (arXiv 1512.02325) or SSDLite (MobileNetV2, arXiv 1801.04381 §6.2), six levels.

    This module's docstring says where they differ from the papers. They have no ARM: for the one
    decoder there is, they give constants that refine no anchor and leave none out (0.01 ms a
    picture).

    Args:
        num_classes: Foreground classes.
        backbone: As `train.backbones.Pyramid`.
        lite: Whether every 3x3 convolution is depthwise, between 1x1 ones: SSDLite.
    """

    def __init__(self, num_classes: int, backbone: str, *, lite: bool) -> None:
        super().__init__()
        self.num_classes = num_classes
        strides = CLASSIC_STRIDES if _is_classic(backbone) else SSD_STRIDES
        self.backbone = Pyramid(backbone, strides)
        pyramid = (*self.backbone.channels, *EXTRA_CHANNELS)
        self.extra = nn.ModuleList(
            _Extra(inputs, outputs, lite=lite) for inputs, outputs in pairwise(pyramid[1:])
        )
        anchors = head_shapes("ssd", backbone).per_cell
        kernel = 1 if lite else 3
        self.loc_depthwise, self.conf_depthwise = (
            nn.ModuleList(
                ConvBN(channels, channels, 3, groups=channels) if lite else nn.Identity()
                for channels in pyramid
            )
            for _ in range(2)
        )
        self.odm_loc = _predictors(pyramid, 4 * anchors, kernel)
        self.odm_conf = _predictors(pyramid, (num_classes + 1) * anchors, kernel)
        _initialise(self)

    def forward(self, x: Tensor) -> Outputs:
        """As `train.model.RefineDetLite.forward`, the first two constant."""
        pyramid = self.backbone(x)
        for extra in self.extra:
            pyramid.append(extra(pyramid[-1]))
        loc = [layer(p) for layer, p in zip(self.loc_depthwise, pyramid, strict=True)]
        conf = [layer(p) for layer, p in zip(self.conf_depthwise, pyramid, strict=True)]
        odm_loc = predict_anchors(self.odm_loc, loc, 4)
        zeros = torch.zeros(odm_loc.shape, device=x.device)
        return Outputs(
            zeros,
            zeros[..., :2],  # an object with probability 1/2, far above what is left out
            odm_loc,
            predict_anchors(self.odm_conf, conf, self.num_classes + 1),
        )


class _Extra(nn.Module):
    """A level of half the size: 1x1 to half the channels, then 3x3 of stride 2."""

    def __init__(self, inputs: int, outputs: int, *, lite: bool = False) -> None:
        super().__init__()
        middle = outputs // 2
        self.reduce = ConvBN(inputs, middle)
        self.conv = (
            nn.Sequential(
                ConvBN(middle, middle, 3, stride=2, groups=middle), ConvBN(middle, outputs)
            )
            if lite
            else ConvBN(middle, outputs, 3, stride=2)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        if x.shape[-1] == 1:
            # The same, but not with the bfloat16 gradient of PyTorch 2.13, which is garbage when a
            # strided convolution sees a single cell.
            x = F.pad(x, (0, 1, 0, 1))
        return self.conv(x)


def _predictors(channels: Sequence[int], values: int, kernel: int = 3) -> nn.ModuleList:
    return nn.ModuleList(nn.Conv2d(c, values, kernel, padding=kernel // 2) for c in channels)


def _cut(x: Tensor, like: Tensor) -> Tensor:
    """Twice an odd side rounded up is one too many."""
    height, width = like.shape[-2:]
    return x if x.shape == like.shape else x[..., :height, :width]


def _initialise(model: nn.Module) -> None:
    """Draw the weights of all but the backbone, which timm and torchvision draw."""
    for name, part in model.named_children():
        if name != "backbone":
            initialise(part)
