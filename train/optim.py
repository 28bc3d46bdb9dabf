"""Device, optimiser and averaged weights, shared by every kind of training."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from rdlite.errors import OptionError, RdliteError
from train.config import RunConfig


class NonFiniteLossError(RdliteError, ArithmeticError):
    """The loss became NaN or infinite."""


def pick_device(name: str) -> torch.device:
    """The device that "cpu", "cuda" or "auto" stand for.

    Raises:
        OptionError: "cuda" is asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise OptionError("device is cuda, but PyTorch sees no GPU here; use --device cpu")
    return torch.device(name)


def make_optimizer(module: nn.Module, config: RunConfig) -> torch.optim.Optimizer:
    """AdamW, or SGD with momentum 0.9, over the parameters that learn.

    Only kernels (tensors of two or more dimensions) decay.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9)
    # Not fused: on a CPU (PyTorch 2.13) that steps the wrong elements of a channels_last kernel
    # whose gradient is contiguous, and saves 5 % of a step.
    return torch.optim.AdamW(groups, lr=config.lr)


def average_of(model: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of a model's weights and statistics.

    The decay rises to its value over the first updates, `min(decay, (1 + n) / (10 + n))`; otherwise
    a short run would export its starting weights. `n_averaged.zero_()` begins anew.
    """
    return AveragedModel(model, multi_avg_fn=functools.partial(_average, decay), use_buffers=True)


def _average(
    decay: float, averaged: Sequence[Tensor], current: Sequence[Tensor], updates: Tensor
) -> None:
    count = int(updates)
    rate = 1 - min(decay, (1 + count) / (10 + count))
    for ours, theirs in zip(averaged, current, strict=True):
        if ours.is_floating_point():
            ours.lerp_(theirs, rate)
        else:
            ours.copy_(theirs)  # counters
