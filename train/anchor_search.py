"""Which boxes the anchors reach, and anchors that reach more of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from train.anchors import DEFAULT_SHAPES, AnchorShapes, make_anchors, to_corners
from train.coco import CocoSet
from train.matching import POSITIVE_IOU, areas, intersections

SIDE = 320
BANDS = ((0, 24), (24, 64), (64, 128), (128, SIDE + 1), (0, SIDE + 1))
"""Box sides, in pixels of a 320-pixel input, that recall is listed by; the last is all."""
STEPS = (1.25, 1.1)
"""Factors by which a search changes one number at a time, coarse first."""
MOST_BOXES = 2_000
"""A search looks at no more boxes than these; recall of that many is known to a percent."""


@dataclass(frozen=True, slots=True)
class Recall:
    """Boxes by size and the share that an anchor overlaps by IoU 0.5 or more.

    Attributes:
        boxes: In each of `BANDS`.
        reached: Share of them; NaN where there are none.
    """

    boxes: tuple[int, ...]
    reached: tuple[float, ...]

    def table(self) -> str:
        """The recall as lines of text."""
        rows = ["side, pixels   boxes   recall"]
        for (low, high), count, share in zip(BANDS, self.boxes, self.reached, strict=True):
            text = "-" if math.isnan(share) else f"{share:.2f}"
            rows.append(f"{low:4}-{high - 1:<7} {count:7}   {text}")
        return "\n".join(rows)


def true_boxes(coco: CocoSet) -> Tensor:
    """All boxes to be found, (n, 4) x1 y1 x2 y2 as shares of their image."""
    return torch.from_numpy(
        np.concatenate(
            [
                image.targets.boxes[~image.targets.ignore] / np.array([*image.size] * 2, np.float32)
                for image in coco.images
            ]
        )
    )


def measure_recall(boxes: Tensor, shapes: AnchorShapes = DEFAULT_SHAPES) -> Recall:
    """Measure which boxes have an anchor of IoU 0.5 or more.

    Args:
        boxes: (n, 4) x1 y1 x2 y2, shares of the image.
        shapes: The anchors.
    """
    reached = best_iou(boxes, shapes) >= POSITIVE_IOU
    side = areas(boxes).sqrt() * SIDE
    parts = [(side >= low) & (side < high) for low, high in BANDS]
    return Recall(
        tuple(int(part.sum()) for part in parts),
        tuple(reached[part].float().mean().item() for part in parts),
    )


def best_iou(boxes: Tensor, shapes: AnchorShapes) -> Tensor:
    """IoU of each box (n, 4) with the anchor that overlaps it most, (n,)."""
    anchors = to_corners(make_anchors(SIDE, shapes))[None]
    found = []
    for part in boxes.split(512):
        overlap = intersections(part[None], anchors)[0]
        union = areas(part)[:, None] + areas(anchors) - overlap
        found.append((overlap / union).amax(dim=1))
    return torch.cat(found)


def search_anchors(boxes: Tensor, *, seed: int = 0) -> AnchorShapes:
    """Find sizes and ratios that reach more boxes: one number at a time, as long as it helps.

    Args:
        boxes: (n, 4) x1 y1 x2 y2, shares of the image.
        seed: Which boxes are looked at, where there are very many.

    Returns:
        The best shapes found; the default where nothing is better.
    """
    order = torch.randperm(len(boxes), generator=torch.Generator().manual_seed(seed))
    boxes = boxes[order[:MOST_BOXES]]
    best, score = DEFAULT_SHAPES, _score(boxes, DEFAULT_SHAPES)
    for factor in tqdm(STEPS, desc="anchors", leave=False, disable=None):
        improved = True
        while improved:
            improved = False
            for candidate in _neighbours(best, factor):
                value = _score(boxes, candidate)
                if value > score:
                    best, score, improved = candidate, value, True
    return best


def _score(boxes: Tensor, shapes: AnchorShapes) -> float:
    iou = best_iou(boxes, shapes)
    # Recall decides; the mean leads on where recall does not change.
    return float((iou >= POSITIVE_IOU).float().mean() + 0.1 * iou.mean())


def _neighbours(shapes: AnchorShapes, factor: float) -> list[AnchorShapes]:
    """Shapes with one number changed, sizes still rising and below the whole image."""
    found = []
    for field, values in (("sizes", shapes.sizes), ("ratios", shapes.ratios)):
        for i, value in enumerate(values):
            for changed in (value * factor, value / factor):
                numbers = (*values[:i], changed, *values[i + 1 :])
                if list(numbers) == sorted(numbers) and (field != "sizes" or numbers[-1] <= 1):
                    found.append(shapes._replace(**{field: numbers}))
    return found
