"""Everything a training run is told, in one place."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from rdlite.errors import OptionError
from train.anchors import STRIDE, AnchorShapes


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Settings that every training has; each command has its own defaults of the first ones."""

    batch: int
    epochs: float
    resolution: str
    lr: float
    holdout: float

    out: str
    """Folder for the checkpoint, curves and exported weights; a run found there is continued."""
    init: str | None = None
    """Weights to start from (.safetensors, .pt, .onnx or "default"); None starts at random. `fit`
    matches classes by name and takes the strongest channels of a wider network, `pretrain` takes
    the backbone alone, of the same width."""
    cache: str = "runs/cache"
    """Folder for the decoded images."""

    width: int = 72
    """The paper's c."""
    res2block: bool = True
    """False: classic residual blocks (Table 3, row a)."""

    accumulate: int = 1
    """Parts that a step's batch is computed in, one after the other, to need less memory; batch
    normalisation and the losses' normalisers see one part."""
    minutes: float | None = None
    """Length of the schedule in minutes of wall-clock time, all parts of a run that was resumed
    together; while its one process is stopped (SIGSTOP, Ctrl-Z) none pass."""

    optimizer: str = "adamw"
    """"adamw" or "sgd" (momentum 0.9)."""
    weight_decay: float = 0.05
    """On convolution kernels; 5e-4 in the paper, for SGD."""
    warmup: int = 200
    """Steps of linear warm-up; at most a tenth of the schedule."""
    schedule: str = "cosine"
    """"cosine" to zero, or "step": a tenth from 60 % and a hundredth from 80 % (the paper's
    150/50/50 epochs)."""
    clip: float = 10.0
    """Largest gradient norm; 0 turns clipping off."""
    ema: float = 0.999
    """Decay of the averaged weights, which are evaluated and exported; 0 averages nothing. The
    average begins anew when the resolution changes: one that reached over the change, 400 steps
    before the end, had AP50 24.4 where the last weights themselves had 29.4."""

    precision: str = "bf16"
    """"bf16" autocast or "fp32"."""
    device: str = "auto"
    """"cpu", "cuda", or "auto": a GPU when there is one."""
    workers: int = 1
    """Processes that prepare batches."""
    threads: int = 0
    """CPU threads of the arithmetic; 0 leaves PyTorch's choice."""
    seed: int = 0
    """Order of the images and augmentation."""
    save_every: int = 500
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        numbers = [name for name, value in self.to_dict().items() if isinstance(value, float)]
        self.require(numbers, math.isfinite, "a finite number")
        self.require(("width", "accumulate", "minutes", "save_every"), lambda v: v > 0, "above 0")
        zero = (
            "batch",
            "epochs",
            "lr",
            "weight_decay",
            "warmup",
            "clip",
            "workers",
            "threads",
            "seed",
        )
        self.require(zero, lambda v: v >= 0, "0 or more")
        self.require(("holdout", "ema"), lambda v: 0 <= v < 1, "at least 0 and below 1")
        for field in fields(self):
            if field.default is None and getattr(self, field.name) == "":
                raise OptionError(f"{field.name} is empty; is a variable of the shell not set?")
        self.require_one_of("optimizer", ("adamw", "sgd"))
        self.require_one_of("schedule", ("cosine", "step"))
        self.require_one_of("precision", ("bf16", "fp32"))
        self.require_one_of("device", ("auto", "cpu", "cuda"))

    def require(self, names: Iterable[str], holds: Callable[[Any], bool], wanted: str) -> None:
        """Refuse a setting that is out of range; None, one that was not made, is in it.

        Raises:
            OptionError: `holds` is false for the value of a name.
        """
        for name in names:
            value = getattr(self, name)
            if value is not None and not holds(value):
                raise OptionError(f"{name} must be {wanted}, got {value!r}")

    def require_one_of(self, name: str, allowed: Collection[str]) -> None:
        """Refuse a word that is not among the allowed ones; errors as `require`."""
        self.require((name,), allowed.__contains__, f"one of {', '.join(allowed)}")

    def to_dict(self) -> dict[str, Any]:
        """All fields, JSON types."""
        return asdict(self)


HEADS = ("refinedet", "ssdlite", "ssd")
"""Heads of other detectors; see `train.heads`."""
WITHOUT_ARM = ("ssdlite", "ssd")
"""Those that predict from the anchors at once, without refining them first."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(RunConfig):
    """Settings of `python -m train fit`; every field is an option of the same name.

    The paper's basic configuration (arXiv 1911.08855 §5.1) is SGD at 4e-3 with weight decay 5e-4,
    batch 128 and 250 epochs. The defaults here are what learns most in hours, not weeks, on a CPU.
    """

    data: str
    """Training boxes: COCO json, a folder of VOC XML files, or a YOLO folder."""
    images: str
    """Folder of the images, or of tar shards with them."""
    val: str | None = None
    """Boxes to measure AP on at the end, in any format that `data` takes; None holds out a share of
    the training images."""
    val_images: str | None = None
    """Folder of the images of `val`; None takes `images`."""
    holdout: float = 0.1
    """Share of the training images kept for AP when there is no `val`; 0 measures no AP."""
    freeze: str | None = None
    """"backbone": leave the backbone's weights and statistics as they are."""

    light_head: bool = True
    """False: plain 3x3 convolutions in place of Light-heads (Table 3, rows a and b)."""

    backbone: str | None = None
    """Train another detector for comparison: its backbone, a model of timm such as
    mobilenetv3_large_100, or torchvision's shufflenet_v2_x1_0. None is RefineDetLite."""
    head: str | None = None
    """The head on `backbone`: refinedet, ssdlite or ssd, with anchors of its own."""

    giou: bool = False
    """GIoU loss on decoded boxes in place of smooth-L1 (paper §4.1)."""
    iou_guided: bool = False
    """Labels softened and anchors weighted by the IoU of their box (Eq. 2-4)."""
    class_weights: bool = False
    """Weights against class imbalance, from the counts in `data` (Eq. 5)."""
    multi_task: bool = False
    """The four terms balanced by trained variances (Eq. 6)."""
    soft_nms: bool = False
    """Measure AP with Gaussian soft-NMS in place of hard NMS."""
    score_weights: bool = False
    """Weight every box by its `score`, where the annotations carry one."""
    min_score: float | None = None
    """Boxes that carry a `score` are objects from this one on and ignore regions below it, whatever
    their "iscrowd" says; None leaves it to that. Goes with `score_weights`."""
    repeat: float = 0.0
    """Images of a class that is in less than this share of them are shown more often, by the square
    root of what it lacks (repeat factor sampling, arXiv 1908.03195 §4.1); 0 shows all alike."""
    zoom_out: float = 4.0
    """How many times as wide as the image its canvas may become when it is made smaller, as half of
    all samples are; SSD's 4 is for long schedules, 1 leaves it out."""
    mosaic: float = 0.0
    """Share of the samples that are put together from four images (arXiv 2004.10934), until the
    last side of `resolution`, which sees whole pictures only."""

    mimic: str | None = None
    """Detector whose features the ODM is drawn towards; see `train.mimic`. A RefineDetLite: a run's
    folder or checkpoint, an .onnx file or a name; or with `mimic_features` any other, as ONNX."""
    mimic_features: str = ""
    """Of another detector, the names of its feature tensors for strides 16, 32 and 64, separated by
    commas."""
    mimic_scores: str = ""
    """Names of its class score tensors (probabilities) of the same strides."""
    mimic_color: str = "bgr"
    """Order of its input channels, "bgr" or "rgb"."""
    mimic_mean: str = "0,0,0"
    """What it wants subtracted from the channels of 0-255, in that order."""
    mimic_std: str = "1,1,1"
    """What it wants them divided by."""
    mimic_weight: float = 2.0
    """Weight of the term."""
    distil: float = 0.0
    """Share of the ODM's class labels that `mimic` decides, where it sees an object; see
    `train.distil`. Its classes must be those of `data`, in that order."""
    distil_scores: str = ""
    """Names of its class score tensors, of every level."""
    distil_boxes: str = ""
    """Names of the tensors of its boxes' distances, as distributions, of the same levels."""

    anchor_sizes: str = "28,68,136,216,300"
    """Anchor size of each level and one more, in pixels of a 320-pixel input; `anchors --search`
    finds those that suit your boxes."""
    anchor_ratios: str = "0.4,0.8,1.6"
    """Width over height of the anchors, three of them."""

    batch: int = 0
    """Images a step, of all processes together; 0 takes 16, which on two cores learns more per
    minute than 32, or fewer for a tiny set."""
    epochs: float = 0.0
    """Length of the schedule, unless `minutes` is given; 0 chooses by the number of images."""
    resolution: str = "auto"
    """Input sides and the share of the schedule up to which each is used, such as
    192:0.55,256:0.82,320:1: a step at 192 pixels is 2.7 times and at 256 1.5 times as fast as one
    at 320. "auto" starts at 192 from random weights, at 256 from others."""
    lr: float = 0.0
    """Peak learning rate; 0 takes 1e-3 from random weights, 5e-4 from others."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(
            ("min_score", "repeat", "mosaic", "distil"), lambda v: 0 <= v <= 1, "from 0 to 1"
        )
        self.require(("zoom_out",), lambda v: v >= 1, "1 or more")
        self.anchor_shapes()
        self._check_head()
        if self.resolution != "auto":
            sides = [side for side, _ in parse_resolution(self.resolution)]
            if self.mosaic and min(sides) == sides[-1]:
                raise OptionError(
                    f"mosaic ends before the last side of resolution, and {self.resolution!r} has "
                    "none below it; give such as 256:0.7,320:1, or leave out --mosaic"
                )
        self.require_one_of("freeze", ("backbone",))
        if self.freeze and not self.init:
            raise OptionError(
                f"freeze {self.freeze} would keep random weights; give --init, such as default"
            )
        self.require(("mimic_weight",), lambda v: v >= 0, "0 or more")
        if self.distil and not self.mimic:
            raise OptionError("distil needs a teacher; give --mimic, or leave out --distil")
        if self.distil and self.iou_guided:
            raise OptionError("distil and iou_guided both make soft labels; leave out one of them")
        if not self.distil and (self.distil_scores or self.distil_boxes):
            raise OptionError("distil_scores and distil_boxes need a share; give --distil 0.5")
        self.require_one_of("mimic_color", ("bgr", "rgb"))
        if self.mimic and not self.mimic_features:
            others = ("mimic_scores", "mimic_color", "mimic_mean", "mimic_std")
            for name in (*others, "distil_scores", "distil_boxes"):
                if getattr(self, name) != getattr(TrainConfig, name):
                    raise OptionError(
                        f"{name} describes another detector than RefineDetLite, whose features "
                        "have to be named too; give --mimic-features, or leave it out"
                    )

    def anchor_shapes(self) -> AnchorShapes:
        """The anchors: as the options say, or those of another detector's head."""
        shapes = AnchorShapes.parse(self.anchor_sizes, self.anchor_ratios)
        if self.head is None or self.backbone is None:
            return shapes
        from train.heads import head_shapes

        return head_shapes(self.head, self.backbone)

    def _check_head(self) -> None:
        """Refuse what would be ignored beside `head`."""
        if (self.head is None) != (self.backbone is None):
            raise OptionError(
                f"backbone and head belong together, got {self.backbone} and {self.head}; give "
                "both, or neither for RefineDetLite"
            )
        if self.head is None:
            return
        self.require_one_of("head", HEADS)
        ours = ("width", "res2block", "light_head", "anchor_sizes", "anchor_ratios", "mimic")
        balance = ("multi_task",) if self.head in WITHOUT_ARM else ()
        for name in (*ours, *balance):
            if getattr(self, name) != getattr(TrainConfig, name):
                raise OptionError(f"{name} has no meaning for head {self.head}; leave it out")


RESOLUTION = 320
"""Side of the input where nothing else is said, in pixels."""
MIN_RESOLUTION = 96
"""Below it the last level's 3x3 convolution sees a single cell, and there the bfloat16 weight
gradient of PyTorch 2.13 on a CPU holds uninitialised memory."""


def parse_resolution(text: str, *, least: int = MIN_RESOLUTION) -> list[tuple[int, float]]:
    """Read a resolution schedule.

    Args:
        text: Such as "192:0.55,256:0.82,320:1", or a single side such as "320".
        least: Smallest side, in pixels.

    Returns:
        (side, share of the schedule at which it ends) in order; the last share is 1.

    Raises:
        OptionError: A side is no multiple of 16 or below `least`, or the shares do not rise to 1.
    """
    try:
        stages = [
            (int(side), float(end or 1))
            for side, _, end in (s.partition(":") for s in text.split(","))
        ]
    except ValueError as error:
        raise OptionError(
            f"resolution must look like 192:0.55,256:0.82,320:1, got {text!r}"
        ) from error
    sides, ends = zip(*stages, strict=True)
    if any(side < least or side % STRIDE for side in sides):
        raise OptionError(
            f"resolution needs sides that are multiples of {STRIDE} from {least} on, got {text!r}"
        )
    if list(ends) != sorted(set(ends)) or ends[0] <= 0 or ends[-1] != 1:
        raise OptionError(f"resolution needs shares that rise to 1, got {text!r}")
    return stages
