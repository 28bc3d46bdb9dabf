"""The anchors of RefineDetLite, and the encoding of boxes relative to them.

This is the only definition: the exporter writes the anchors and variances into the model file, and
the run time reads them from there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

STRIDE = 16
"""Pixels per cell of the finest level (P1)."""

SIZES = (28 / 320, 68 / 320, 136 / 320, 216 / 320, 300 / 320)
"""Anchor size per level as a share of the input, and one more for the last level's second scale.

Chosen by recall on the training boxes: `python -m train anchors` prints that table.
"""

ASPECT_RATIOS = (0.4, 0.8, 1.6)
"""Width over height. Boxes stretched to a square input have a median ratio of 0.79."""

ANCHORS_PER_CELL = 2 * len(ASPECT_RATIOS)
VARIANCES = (0.1, 0.2)
"""Scale of the encoded centre and size offsets (SSD, arXiv 1512.02325)."""


def grid_sizes(resolution: int) -> list[int]:
    """Cells per side of each level, finest first; 320 gives [20, 10, 5, 3]."""
    grids = [resolution // STRIDE]
    while len(grids) < len(SIZES) - 1:
        grids.append(math.ceil(grids[-1] / 2))
    return grids


def make_anchors(resolution: int) -> Tensor:
    """All anchors of a square input.

    Args:
        resolution: Side of the input in pixels, a multiple of 16.

    Returns:
        float32 (A, 4), centre x, centre y, width, height as shares of the input. Levels from fine
        to coarse, cells row by row, and in each cell three ratios of the level's size, then three
        of the geometric mean of its size and the next level's.
    """
    if resolution % STRIDE:
        raise ValueError(f"resolution must be a multiple of {STRIDE}, got {resolution}")
    return torch.cat([_level_anchors(k, grid) for k, grid in enumerate(grid_sizes(resolution))])


def _level_anchors(level: int, grid: int) -> Tensor:
    size, next_size = SIZES[level], SIZES[level + 1]
    shapes = torch.tensor(
        [
            (scale * math.sqrt(ratio), scale / math.sqrt(ratio))
            for scale in (size, math.sqrt(size * next_size))
            for ratio in ASPECT_RATIOS
        ]
    )
    centres = (torch.arange(grid) + 0.5) / grid
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    cells = torch.stack([x, y], dim=-1).reshape(-1, 1, 2)
    return torch.cat(
        [cells.expand(-1, len(shapes), -1), shapes.expand(len(cells), -1, -1)], dim=-1
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
