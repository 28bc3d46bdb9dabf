"""The anchors of RefineDetLite, and the encoding of boxes relative to them.

This is the only definition: the exporter writes the anchors and variances into the model file, and
the run time reads them from there.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from rdlite.errors import OptionError

STRIDE = 16
"""Pixels per cell of the finest level (P1)."""

LEVELS = 4


class AnchorShapes(NamedTuple):
    """Sizes and shapes of the anchors.

    Attributes:
        sizes: Per level, and one more for the last level's second scale; shares of the input.
        ratios: Width over height.
        stride: Pixels per cell of the finest level.
        scales: 2 where each level has its own size and the geometric mean with the next, or 1.
    """

    sizes: tuple[float, ...]
    ratios: tuple[float, ...]
    stride: int = STRIDE
    scales: int = 2

    @property
    def per_cell(self) -> int:
        """Anchors of a cell."""
        return self.scales * len(self.ratios)

    @classmethod
    def parse(cls, sizes: str, ratios: str) -> AnchorShapes:
        """Read "28,68,136,216,300", pixels of a 320-pixel input, and "0.4,0.8,1.6".

        Raises:
            OptionError: There are not five rising sizes up to 320 and three ratios above 0.
        """
        try:
            shapes = cls(
                tuple(float(size) / 320 for size in sizes.split(",")),
                tuple(float(ratio) for ratio in ratios.split(",")),
            )
        except ValueError as error:
            raise OptionError(
                f"anchor_sizes and anchor_ratios must be numbers separated by commas, got "
                f"{sizes!r} and {ratios!r}"
            ) from error
        rising = list(shapes.sizes) == sorted(set(shapes.sizes)) and 0 < shapes.sizes[0]
        if len(shapes.sizes) != LEVELS + 1 or not rising or shapes.sizes[-1] > 1:
            raise OptionError(f"anchor_sizes must be five that rise, up to 320, got {sizes!r}")
        if len(shapes.ratios) != RATIOS or not all(0 < ratio < math.inf for ratio in shapes.ratios):
            raise OptionError(f"anchor_ratios must be three numbers above 0, got {ratios!r}")
        return shapes

    @classmethod
    def of(cls, anchors: Tensor, resolution: int) -> AnchorShapes:
        """The shapes of anchors that `make_anchors` made.

        Args:
            anchors: (A, 4) centre-size.
            resolution: Side of their input.
        """
        firsts = [0]
        for grid in grid_sizes(resolution):
            firsts.append(firsts[-1] + grid * grid * ANCHORS_PER_CELL)
        sides = [anchors[first, 2:].prod().sqrt().item() for first in firsts[:-1]]
        last = anchors[firsts[-2] + RATIOS, 2:].prod().item()  # the square of sqrt(s * s')
        ratios = (anchors[:RATIOS, 2] / anchors[:RATIOS, 3]).tolist()
        pixels = [round(320 * side, 3) for side in (*sides, last / sides[-1])]
        return cls(tuple(side / 320 for side in pixels), tuple(round(r, 4) for r in ratios))

    def same_as(self, other: AnchorShapes) -> bool:
        """Whether these are the same numbers, rounding aside."""
        ours, theirs = (torch.tensor([*s.sizes, *s.ratios, *s[2:]]) for s in (self, other))
        return len(ours) == len(theirs) and torch.allclose(ours, theirs, rtol=1e-3)

    def options(self) -> str:
        """What `fit` must be told to use them."""
        sizes = ",".join(f"{320 * size:.4g}" for size in self.sizes)
        ratios = ",".join(f"{ratio:.3g}" for ratio in self.ratios)
        return f"--anchor-sizes {sizes} --anchor-ratios {ratios}"


RATIOS = 3
DEFAULT_SHAPES = AnchorShapes(
    (28 / 320, 68 / 320, 136 / 320, 216 / 320, 300 / 320),
    (0.4, 0.8, 1.6),  # boxes stretched to a square input have a median of 0.79
)
"""Chosen by recall on the training boxes: `python -m train anchors` prints that table."""

ANCHORS_PER_CELL = 2 * RATIOS
VARIANCES = (0.1, 0.2)
"""Scale of the encoded centre and size offsets (SSD, arXiv 1512.02325)."""


def grid_sizes(resolution: int, shapes: AnchorShapes = DEFAULT_SHAPES) -> list[int]:
    """Cells per side of each level, finest first; 320 gives [20, 10, 5, 3]."""
    grids = [math.ceil(resolution / shapes.stride)]
    while len(grids) < len(shapes.sizes) - 1:
        grids.append(math.ceil(grids[-1] / 2))
    return grids


def make_anchors(resolution: int, shapes: AnchorShapes = DEFAULT_SHAPES) -> Tensor:
    """All anchors of a square input.

    Args:
        resolution: Side of the input in pixels.
        shapes: Their sizes and ratios.

    Returns:
        float32 (A, 4), centre x, centre y, width, height as shares of the input. Levels from fine
        to coarse, cells row by row, and in each cell three ratios of the level's size, then, with
        two scales, three of the geometric mean of its size and the next level's.
    """
    grids = enumerate(grid_sizes(resolution, shapes))
    return torch.cat([_level_anchors(shapes, level, grid) for level, grid in grids])


def _level_anchors(shapes: AnchorShapes, level: int, grid: int) -> Tensor:
    size, next_size = shapes.sizes[level], shapes.sizes[level + 1]
    sides = torch.tensor(
        [
            (scale * math.sqrt(ratio), scale / math.sqrt(ratio))
            for scale in (size, math.sqrt(size * next_size))[: shapes.scales]
            for ratio in shapes.ratios
        ]
    )
    centres = (torch.arange(grid) + 0.5) / grid
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    cells = torch.stack([x, y], dim=-1).reshape(-1, 1, 2)
    return torch.cat(
        [cells.expand(-1, len(sides), -1), sides.expand(len(cells), -1, -1)], dim=-1
    ).reshape(-1, 4)


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Offsets that turn anchors into boxes.

    `t_xy = (g_xy - a_xy) / (0.1 a_wh)` and `t_wh = ln(g_wh / a_wh) / 0.2` (SSD, arXiv 1512.02325
    Eq. 2).

    Args:
        boxes: (..., 4) centre-size.
        anchors: (..., 4) centre-size.

    Returns:
        (..., 4) encoded offsets.
    """
    centre, size = VARIANCES
    return torch.cat(
        [
            (boxes[..., :2] - anchors[..., :2]) / (centre * anchors[..., 2:]),
            torch.log(boxes[..., 2:] / anchors[..., 2:]) / size,
        ],
        dim=-1,
    )


def decode(offsets: Tensor, anchors: Tensor) -> Tensor:
    """Boxes from anchors and offsets, (..., 4) centre-size: the inverse of `encode`."""
    centre, size = VARIANCES
    return torch.cat(
        [
            anchors[..., :2] + offsets[..., :2] * centre * anchors[..., 2:],
            anchors[..., 2:] * torch.exp(offsets[..., 2:] * size),
        ],
        dim=-1,
    )


def to_corners(boxes: Tensor) -> Tensor:
    """(..., 4) centre-size to (..., 4) x1 y1 x2 y2."""
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], dim=-1)


def to_centre_size(boxes: Tensor) -> Tensor:
    """(..., 4) x1 y1 x2 y2 to (..., 4) centre-size."""
    return torch.cat(
        [(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], dim=-1
    )
