"""Everything a classification pre-training is told, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from train.config import RunConfig, parse_resolution

MIN_RESOLUTION = 32
"""Below it the last stage's strided 3x3 convolution sees a single cell; there the bfloat16 weight
gradient of PyTorch 2.13 on a CPU holds uninitialised memory. (The detector's extra levels halve
twice more, hence its larger minimum.)"""


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(RunConfig):
    """Settings of `python -m train pretrain`; every field is an option of the same name."""

    images: str
    """Folder with one folder of images per class, at any depth below it."""
    val: str | None = None
    """Folder like `images` to measure accuracy on; None holds out a share of each class."""
    holdout: float = 0.05
    """Share of each class kept for accuracy when there is no `val`; 0 measures none."""
    cache: str = "runs/cache"
    """Folder for the decoded images, of at most twice the largest resolution."""

    batch: int = 64
    """Images a step, of all processes together."""
    epochs: float = 20.0
    """Length of the schedule, unless `minutes` is given."""
    resolution: str = "64"
    """Input side, or sides and the share of the schedule up to which each is used, such as
    64:0.8,96:1."""
    label_smoothing: float = 0.1
    """Share of the label that is spread over all classes."""
    lr: float = 2e-3
    """Peak learning rate."""
    seed: int = 0
    """Order of the images, augmentation and what is held out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        parse_resolution(self.resolution, least=MIN_RESOLUTION)
        self.require(("epochs", "lr"), lambda v: v > 0, "above 0")
        self.require(("label_smoothing",), lambda v: 0 <= v < 1, "at least 0 and below 1")
        least = 2 * self.accumulate
        wanted = f"{least} or more, as batch normalisation needs a spread in every part"
        self.require(("batch",), lambda v: v >= least, wanted)

    @property
    def largest_side(self) -> int:
        """The largest input side of the schedule, in pixels."""
        return max(side for side, _ in parse_resolution(self.resolution, least=MIN_RESOLUTION))
