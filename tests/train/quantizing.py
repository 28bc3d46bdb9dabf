"""A small network to quantise, and a search that is quick on it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import train.model
import train.quantize_calibrate
import train.quantize_error
from train.export import export_onnx
from train.model import RefineDetLite

SIDE = 96
BAD = ("backbone.stage1.0.reduce", "backbone.stage1.0.conv")
LAYERS = ["backbone.stem", *BAD, "backbone.stage1.1.reduce", "lateral.1.expand", "odm_conf.3"]


def save_small(path: Path) -> Path:
    """Write the model file of a small network whose every weight matters."""
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.model, "STAGE_BLOCKS", (1, 1, 1))
        network = RefineDetLite(2, width=8)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.0)
            torch.nn.init.uniform_(module.bias, -0.2, 0.5)
    norm = network.backbone.input_bn  # as after training: the mean and spread of pictures
    norm.running_mean.copy_(torch.tensor([100.0, 112.0, 118.0]))
    norm.running_var.fill_(3400.0)
    export_onnx(
        network.eval(),
        path,
        names=["red", "green"],
        category_ids=[1, 2],
        provenance={"recipe": {"seed": 0}, "results": {"dev": {"ap": 0.5}}, "note": "small"},
        resolution=SIDE,
    )
    return path


@contextlib.contextmanager
def coarse_search() -> Iterator[None]:
    """A coarse search for the least entropy, and few layers to try alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train.quantize_calibrate, "_ENTROPY_BINS", 132)
        patch.setattr(train.quantize_error, "layer_names", lambda proto: LAYERS)
        yield
