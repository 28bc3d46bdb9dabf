"""Backbones of other detectors, from timm and torchvision, as feature pyramids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rdlite.errors import OptionError

SHUFFLENETS = ("shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5")
"""From torchvision, as timm has none."""

FC_CHANNELS = 1024
"""Of fc6 and fc7, of which SSD makes convolutions (arXiv 1512.02325 §3.1)."""


class Pyramid(nn.Module):
    """A backbone behind the same input scaling as Res2NetLite; random weights.

    Args:
        name: A model of timm whose features have the strides, such as mobilenetv1_100,
            mobilenetv2_100, mobilenetv3_large_100, resnet101 or vgg16_bn; or one of `SHUFFLENETS`.
        strides: Pixels per cell of the features to give, finest first, each twice the one before.
            Of several features of a stride the deepest is given. With 16 as the last one, VGG's
            last pooling and a ResNet's last stage keep the resolution (SSD; arXiv 1701.06659).

    Attributes:
        channels: Of the features.

    Raises:
        OptionError: There is no such model, or it has no such features; or timm or torchvision
            cannot be imported.
    """

    def __init__(self, name: str, strides: Sequence[int]) -> None:
        super().__init__()
        self.input_bn = nn.BatchNorm2d(3)
        if name in SHUFFLENETS:
            self.net = _ShuffleNet(name, len(strides))
        elif name.startswith("vgg"):
            self.net = _VGG(name, strides)
        else:
            self.net = _timm(name, strides)
        with torch.no_grad():
            features = self.eval()(torch.zeros(1, 3, 64, 64))
        self.train()
        self.channels = [feature.shape[1] for feature in features]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Features of the strides, finest first, of (B, 3, R, R) BGR, 0-255."""
        return list(self.net(self.input_bn(x)))


class _VGG(nn.Module):
    """VGG to conv5_3, then fc6 and fc7 as convolutions; strides (8, 16) or (8, 16, 32)."""

    def __init__(self, name: str, strides: Sequence[int]) -> None:
        super().__init__()
        self.features = _timm(name, (8, 16))
        for module in self.features.modules():
            if isinstance(module, nn.MaxPool2d):
                module.ceil_mode = True  # 38 cells of 300 pixels, not 37
        self.halves = strides[-1] == 32
        self.fc6 = _fc(512, kernel_size=3, padding=6, dilation=6)
        self.fc7 = _fc(FC_CHANNELS, kernel_size=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        conv4, conv5 = self.features(x)
        if self.halves:
            pooled = F.max_pool2d(conv5, 2, stride=2, ceil_mode=True)
            return [conv4, conv5, self.fc7(self.fc6(pooled))]
        return [conv4, self.fc7(self.fc6(F.max_pool2d(conv5, 3, stride=1, padding=1)))]


class _ShuffleNet(nn.Module):
    """The last stages of torchvision's ShuffleNetV2, the last one with its 1x1 convolution."""

    def __init__(self, name: str, levels: int) -> None:
        super().__init__()
        try:
            from torchvision import models
        except (ImportError, RuntimeError) as error:
            raise _missing("torchvision", name, error) from error
        net = getattr(models, name)()
        self.levels = levels
        self.stage2 = nn.Sequential(net.conv1, net.maxpool, net.stage2)
        self.stage3 = net.stage3
        self.stage4 = nn.Sequential(net.stage4, net.conv5)

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [self.stage2(x)]
        features.append(self.stage3(features[-1]))
        features.append(self.stage4(features[-1]))
        return features[-self.levels :]


def _timm(name: str, strides: Sequence[int]) -> Any:
    """A timm model that gives the deepest feature of each stride."""
    try:
        import timm
    except (ImportError, RuntimeError) as error:
        raise _missing("timm", name, error) from error
    options: dict[str, Any] = {"features_only": True}
    if name.startswith("resnet"):
        options["output_stride"] = strides[-1]
    try:
        known = timm.create_model(name, **options).feature_info.reduction()
    except (RuntimeError, TypeError) as error:
        raise OptionError(
            f"backbone {name} is no model that timm gives features of ({error}); wanted one such "
            f"as mobilenetv3_large_100 or {SHUFFLENETS[1]}"
        ) from error
    if missing := set(strides) - set(known):
        raise OptionError(
            f"backbone {name} has features of the strides {known}, none of {min(missing)}; "
            "give another"
        )
    deepest = {stride: index for index, stride in enumerate(known)}
    return timm.create_model(name, out_indices=[deepest[s] for s in strides], **options)


def _missing(package: str, name: str, error: Exception) -> OptionError:
    return OptionError(
        f"backbone {name} needs {package}, and a torchvision made for the torch that is installed "
        f'({error}); run `pip install -e ".[bench]"` in a checkout'
    )


def _fc(inputs: int, **convolution: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, FC_CHANNELS, bias=False, **convolution),
        nn.BatchNorm2d(FC_CHANNELS),
        nn.ReLU(inplace=True),
    )
