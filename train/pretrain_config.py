"""Everything a classification pre-training is told, in one place."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rdlite.errors import OptionError
from train.config import parse_resolution

MIN_RESOLUTION = 32
"""Below it the last stage's strided 3x3 convolution sees a single cell; there the bfloat16 weight
gradient of PyTorch 2.13 on a CPU holds uninitialised memory. (The detector's extra levels halve
twice more, hence its larger minimum.)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """Settings of `python -m train pretrain`; every field is an option of the same name."""

    images: str
    """Folder with one folder of images per class, at any depth below it."""
    out: str
    """Folder for the checkpoint, curves and backbone.safetensors; a run found there is
    continued."""
    val: str | None = None
    """Folder like `images` to measure accuracy on; None holds out a share of each class."""
    holdout: float = 0.05
    """Share of each class kept for accuracy when there is no `val`; 0 measures none."""
    init: str | None = None
    """Weights to start the backbone from (.safetensors, .pt, .onnx or "default"); None starts at
    random."""
    cache: str = "runs/cache"
    """Folder for the decoded images, of at most twice the largest resolution."""

    width: int = 72
    """The paper's c."""
    res2block: bool = True
    """False: classic residual blocks (Table 3, row a)."""

    batch: int = 64
    """Images a step."""
    epochs: float = 20.0
    """Length of the schedule, unless `minutes` is given."""
    minutes: float | None = None
    """Length of the schedule in minutes of wall-clock time, resumed parts included."""
    resolution: str = "64"
    """Input side, or sides and the share of the schedule up to which each is used, such as
    64:0.8,96:1."""
    label_smoothing: float = 0.1
    """Share of the label that is spread over all classes."""

    optimizer: str = "adamw"
    """"adamw" or "sgd" (momentum 0.9)."""
    lr: float = 2e-3
    """Peak learning rate."""
    weight_decay: float = 0.05
    """On convolution kernels."""
    warmup: int = 200
    """Steps of linear warm-up; at most a tenth of the schedule, where its steps are known."""
    schedule: str = "cosine"
    """"cosine" to zero, or "step": a tenth from 60 % and a hundredth from 80 %."""
    clip: float = 10.0
    """Largest gradient norm; 0 turns clipping off."""
    ema: float = 0.999
    """Decay of the averaged weights, which are measured and written; 0 averages nothing. The
    average begins anew when the resolution changes."""

    precision: str = "bf16"
    """"bf16" autocast or "fp32"."""
    device: str = "auto"
    """"cpu", "cuda", or "auto": a GPU when there is one."""
    workers: int = 1
    """Processes that prepare batches."""
    threads: int = 0
    """CPU threads of the arithmetic; 0 leaves PyTorch's choice."""
    seed: int = 0
    """Order of the images, augmentation and what is held out."""
    save_every: int = 500
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        parse_resolution(self.resolution, least=MIN_RESOLUTION)
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise OptionError(
                    f"{name} must be one of {', '.join(allowed)}, got {getattr(self, name)!r}"
                )
        for name in ("width", "epochs", "lr", "save_every"):
            if getattr(self, name) <= 0:
                raise OptionError(f"{name} must be above 0, got {getattr(self, name)}")
        for name in ("warmup", "clip", "weight_decay", "workers", "threads"):
            if getattr(self, name) < 0:
                raise OptionError(f"{name} must be 0 or more, got {getattr(self, name)}")
        for name in ("holdout", "label_smoothing", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise OptionError(
                    f"{name} must be at least 0 and below 1, got {getattr(self, name)}"
                )
        if self.minutes is not None and self.minutes <= 0:
            raise OptionError(f"minutes must be above 0, got {self.minutes}")
        if self.batch < 2:
            raise OptionError(
                f"batch must be 2 or more, as batch normalisation needs a spread, got {self.batch}"
            )

    @property
    def largest_side(self) -> int:
        """The largest input side of the schedule, in pixels."""
        return max(side for side, _ in parse_resolution(self.resolution, least=MIN_RESOLUTION))

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON types."""
        return asdict(self)


_CHOICES = {
    "optimizer": ("adamw", "sgd"),
    "schedule": ("cosine", "step"),
    "precision": ("bf16", "fp32"),
    "device": ("auto", "cpu", "cuda"),
}
