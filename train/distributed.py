"""Several processes that train one model: data parallel, started by `torchrun`.

`batch` is the batch of all processes together. Batch normalisation and the losses' normalisers are
taken over all of them, so a run with two processes computes what one process would with the whole
batch, up to rounding.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rdlite.errors import OptionError
from train.config import RunConfig


def join(device: torch.device) -> torch.device:
    """Join the group that `torchrun` started; without one, do nothing.

    Args:
        device: What the run was told; "cuda" becomes this process's GPU.

    Returns:
        The device of this process.
    """
    if "LOCAL_RANK" not in os.environ:
        return device
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        # The first process decodes the images while the others wait.
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo", timeout=timedelta(hours=2)
        )
    return device


def size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def average(value: Tensor) -> Tensor:
    """The mean of a tensor over all processes, without gradient."""
    if size() == 1:
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value / size()


def wait() -> None:
    """Wait for all processes."""
    if size() > 1:
        dist.barrier()


def check_parts(config: RunConfig) -> None:
    """Check that a batch divides evenly, and that processes agree on every step.

    Raises:
        OptionError: They do not.
    """
    parts = size() * config.accumulate
    if config.batch % parts:
        raise OptionError(
            f"batch must be a multiple of processes x accumulate, got {config.batch} and "
            f"{size()} x {config.accumulate}"
        )
    if config.minutes and size() > 1:
        raise OptionError(
            "minutes cannot be used with several processes, whose clocks differ; give epochs"
        )


def leave() -> None:
    """Leave the group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def distribute(module: nn.Module, device: torch.device) -> nn.Module:
    """A module whose gradients are averaged over all processes; itself where there is only one."""
    if size() == 1:
        return module
    ids: dict[str, Any] = {"device_ids": [device]} if device.type == "cuda" else {}
    return DistributedDataParallel(module, **ids)


def synchronise_norms(module: nn.Module, device: torch.device) -> nn.Module:
    """Make every batch normalisation see the batches of all processes, in place on a CPU.

    `torch.nn.SyncBatchNorm` exists for GPUs only. A group of one changes too, so that it computes
    what two do: PyTorch's own on a CPU has variances off by 1e-4 in channels_last (2.13), and at
    the start of a training that turns gradients by a fifth.
    """
    if not dist.is_initialized():
        return module
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for child in module.modules():
        if type(child) is nn.BatchNorm2d:
            child.__class__ = _SyncBatchNorm
    return module


class _AverageWithGradient(torch.autograd.Function):
    """The mean of a tensor over all processes; its gradient is the mean of theirs."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return average(value)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return average(gradient)


class _SyncBatchNorm(nn.BatchNorm2d):
    """Batch normalisation over all processes, each with as many images, in plain operations."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x = input.float()
        mean = _AverageWithGradient.apply(x.mean(dim=(0, 2, 3)))
        centred = x - mean[:, None, None]
        # In two passes: the difference of E[x^2] and E[x]^2 loses four digits on 0-255 pixels.
        variance = _AverageWithGradient.apply(centred.square().mean(dim=(0, 2, 3)))
        self._remember(mean.detach(), variance.detach(), x.numel() // x.shape[1] * size())
        scale = (variance + self.eps).rsqrt() * self.weight
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None or self.momentum is None:
            return
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * count / max(count - 1, 1), self.momentum)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
