"""RefineDetLite: backbone Res2NetLite, coarse module (ARM), fusion and refined module (ODM).

Source: arXiv 1911.08855 §3, Table 1, Figures 1-3. Channel counts that the paper leaves open are
multiples of 16 per convolution group, the block in which CPU inference engines work.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.anchors import ANCHORS_PER_CELL

STAGE_BLOCKS = (3, 7, 3)


class Outputs(NamedTuple):
    """Raw predictions of a batch, the first dimension is the image.

    Attributes:
        arm_loc: (B, A, 4) encoded offsets from anchors to refined anchors.
        arm_conf: (B, A, 2) logits of background and object.
        odm_loc: (B, A, 4) encoded offsets from refined anchors to boxes.
        odm_conf: (B, A, K) logits of background (index 0) and the classes.
    """

    arm_loc: Tensor
    arm_conf: Tensor
    odm_loc: Tensor
    odm_conf: Tensor


class ConvBN(nn.Module):
    """Convolution, batch normalisation and, unless told otherwise, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False
        )
        self.bn = nn.BatchNorm2d(outputs)
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return F.relu(x, inplace=True) if self.relu else x


class Bottleneck(nn.Module):
    """Down-sampling by two without a shortcut (Fig. 2a)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = 64 * max(1, (outputs // 4 + 31) // 64)  # a quarter, to the nearest multiple of 64
        self.reduce = ConvBN(inputs, middle)
        self.conv = ConvBN(middle, middle, 3, stride=2, groups=2)
        self.expand = ConvBN(middle, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.expand(self.conv(self.reduce(x)))


def _split_width(channels: int) -> int:
    """Channels of one of the four splits: a sixteenth, to the nearest multiple of 2 groups x 16."""
    return 32 * max(1, round(channels / 16 / 32))


class Res2Block(nn.Module):
    """Residual block, a hierarchy of four splits inside (Fig. 2b; Res2Net, arXiv 1904.01169)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = _split_width(channels)
        self.reduce = ConvBN(channels, 4 * width)
        self.branches = nn.ModuleList(ConvBN(width, width, 3, groups=2) for _ in range(3))
        self.expand = ConvBN(4 * width, channels, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        passed, second, third, fourth = self.reduce(x).chunk(4, dim=1)
        second = self.branches[0](second)  # the first split is not added: Res2Net's y2 = K2(x2)
        third = self.branches[1](third + second)
        fourth = self.branches[2](fourth + third)
        return F.relu(x + self.expand(torch.cat([passed, second, third, fourth], dim=1)))


class ResBlock(nn.Module):
    """The classic residual bottleneck (arXiv 1512.03385) of equal width: row (a) of Table 3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        middle = 4 * _split_width(channels)
        self.reduce = ConvBN(channels, middle)
        self.conv = ConvBN(middle, middle, 3)
        self.expand = ConvBN(middle, channels, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.expand(self.conv(self.reduce(x))))


def head_channels(width: int) -> int:
    """Channels between the heads: 256 for c = 72, in proportion to the nearest multiple of 64.

    192 for c = 48 and 128 for c = 32. Heads of 256 channels would be 46 % of a network of c = 32.
    The levels P3 and P4 have twice as many (paper §3.2: {576, 1152, 512, 512} for c = 72).
    """
    return 64 * max(1, round(width * 256 / 72 / 64))


class LightHead(nn.Module):
    """1x1 path plus 1x1-3x3-1x1 path of half the channels, summed (Fig. 3a)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.skip = ConvBN(inputs, outputs, relu=False)
        self.reduce = ConvBN(inputs, outputs // 2)
        self.conv = ConvBN(outputs // 2, outputs // 2, 3)
        self.expand = ConvBN(outputs // 2, outputs, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.skip(x) + self.expand(self.conv(self.reduce(x))))


class Backbone(nn.Module):
    """Res2NetLite, stages 0 to 3 (Table 1); gives P1 (stride 16) and P2 (stride 32)."""

    def __init__(self, width: int, *, res2block: bool) -> None:
        super().__init__()
        block = Res2Block if res2block else ResBlock
        self.input_bn = nn.BatchNorm2d(3)
        self.stem = ConvBN(3, 32, 3, stride=2)
        self.channels = (4 * width, 8 * width, 16 * width)
        stages = [
            nn.Sequential(Bottleneck(inputs, outputs), *(block(outputs) for _ in range(blocks)))
            for inputs, outputs, blocks in zip(
                (32, *self.channels), self.channels, STAGE_BLOCKS, strict=False
            )
        ]
        self.stage1, self.stage2, self.stage3 = stages

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(self.input_bn(x))
        x = self.stage1(F.max_pool2d(x, 3, stride=2, padding=1))
        p1 = self.stage2(x)
        return p1, self.stage3(p1)


class RefineDetLite(nn.Module):
    """The whole detector.

    Args:
        num_classes: Foreground classes; background is added as index 0.
        width: The paper's c; 72 gives RefineDetLite72.
        res2block: False puts the classic residual block in place of Res2Block.
        light_head: False puts one plain 3x3 convolution in place of every Light-head.

    Attributes:
        head_channels: Channels of what the predictors read.
    """

    def __init__(
        self, num_classes: int, *, width: int = 72, res2block: bool = True, light_head: bool = True
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = Backbone(width, res2block=res2block)
        _, p1, p2 = self.backbone.channels
        self.head_channels = head_channels(width)
        p3 = p4 = 2 * self.head_channels
        self.extra = nn.ModuleList([Bottleneck(p2, p3), Bottleneck(p3, p4)])
        pyramid = (p1, p2, p3, p4)
        fused = (self.head_channels,) * len(pyramid)
        self.arm = _heads(pyramid, self.head_channels, light_head)
        self.lateral = _heads(pyramid, self.head_channels, light_head)
        self.odm = _heads(fused, self.head_channels, light_head)
        self.arm_loc = _predictors(fused, 4)
        self.arm_conf = _predictors(fused, 2)
        self.odm_loc = _predictors(fused, 4)
        self.odm_conf = _predictors(fused, num_classes + 1)
        initialise(self)

    def forward(self, x: Tensor) -> Outputs:
        """Predict.

        Args:
            x: (B, 3, R, R) float, BGR, 0-255: the first batch normalisation is the input scaling.

        Returns:
            Logits and offsets of every anchor.
        """
        return self.predict(*self.trunks(x))

    def trunks(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Compute what the predictors read.

        Args:
            x: As `forward`.

        Returns:
            (B, `head_channels`, h, w) of each level, finest first: the ARM's and the ODM's.
        """
        pyramid = list(self.backbone(x))
        for extra in self.extra:
            pyramid.append(extra(pyramid[-1]))
        coarse = [head(p) for head, p in zip(self.arm, pyramid, strict=True)]
        refined = [head(p) for head, p in zip(self.odm, self._fuse(pyramid), strict=True)]
        return coarse, refined

    def predict(self, coarse: Sequence[Tensor], refined: Sequence[Tensor]) -> Outputs:
        """Apply the predictors to `trunks`."""
        return Outputs(
            predict_anchors(self.arm_loc, coarse, 4),
            predict_anchors(self.arm_conf, coarse, 2),
            predict_anchors(self.odm_loc, refined, 4),
            predict_anchors(self.odm_conf, refined, self.num_classes + 1),
        )

    def _fuse(self, pyramid: Sequence[Tensor]) -> list[Tensor]:
        """Add the coarser level, enlarged to this level's size, from the top down (Fig. 3b)."""
        fused = [lateral(p) for lateral, p in zip(self.lateral, pyramid, strict=True)]
        for level in range(len(fused) - 2, -1, -1):
            above = F.interpolate(fused[level + 1], size=fused[level].shape[-2:], mode="nearest")
            fused[level] = F.relu(fused[level] + above)
        return fused


def _heads(inputs: Sequence[int], outputs: int, light: bool) -> nn.ModuleList:
    if light:
        return nn.ModuleList(LightHead(channels, outputs) for channels in inputs)
    return nn.ModuleList(ConvBN(channels, outputs, 3) for channels in inputs)


def _predictors(inputs: Sequence[int], values: int) -> nn.ModuleList:
    return nn.ModuleList(nn.Conv2d(channels, ANCHORS_PER_CELL * values, 1) for channels in inputs)


def predict_anchors(predictors: nn.ModuleList, features: Sequence[Tensor], values: int) -> Tensor:
    """Apply each level's predictor: (B, anchors of all levels, `values`)."""
    maps = [predictor(f) for predictor, f in zip(predictors, features, strict=True)]
    return torch.cat([m.permute(0, 2, 3, 1).reshape(m.shape[0], -1, values) for m in maps], dim=1)


def initialise(model: nn.Module) -> None:
    """Draw the weights of a network anew (kaiming; residual blocks begin as the identity)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:  # a predictor: start near zero, so near the anchors
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, Res2Block | ResBlock):
            # Each block starts as the identity: after 170 steps of classification the loss was
            # 4.66 with this and 5.30 without.
            nn.init.zeros_(module.expand.bn.weight)
