"""The losses of RefineDetLite++, the paper's advanced configuration (arXiv 1911.08855 §4.2-4.4).

Functions of single anchors or pairs of boxes; `train.loss` decides which anchors they see.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from train.matching import areas

ALPHA = 0.25
"""How far the IoU may soften a label (Eq. 3; value from §5.1)."""
BETA = 0.90
"""How much more a badly placed positive counts (Eq. 4; value from §5.1): 10 times at IoU 0."""
BALANCED = ("arm_loc", "arm_cls", "odm_loc", "odm_cls")
"""The terms in the order of Eq. 6's variances 1 to 4."""
SMALLEST_AREA = 1e-9
"""Divisor for boxes without area, as a share of the image: keeps IoU and gradient finite."""


def iou_of_pairs(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """IoU of each box with its partner, and the area of their union.

    Args:
        a: (..., 4) x1 y1 x2 y2, shares of the image.
        b: Broadcastable to `a`.

    Returns:
        IoU in [0, 1] and union, both (...,); boxes without area have IoU 0.
    """
    corner = torch.maximum(a[..., :2], b[..., :2])
    overlap = areas(torch.cat([corner, torch.minimum(a[..., 2:], b[..., 2:])], dim=-1))
    union = (areas(a) + areas(b) - overlap).clamp(min=SMALLEST_AREA)
    return overlap / union, union


def giou_loss(boxes: Tensor, truth: Tensor) -> Tensor:
    """Generalised IoU loss, `1 - IoU + (C - U) / C` (Rezatofighi, arXiv 1902.09630 Alg. 1).

    C is the area of the smallest box around both, U that of their union. Unlike IoU it has a
    gradient when the boxes are apart.

    Args:
        boxes: (n, 4) x1 y1 x2 y2, shares of the image.
        truth: (n, 4), their ground truth.

    Returns:
        (n,), between 0 (equal boxes) and 2.
    """
    iou, union = iou_of_pairs(boxes, truth)
    corner = torch.minimum(boxes[:, :2], truth[:, :2])
    around = areas(torch.cat([corner, torch.maximum(boxes[:, 2:], truth[:, 2:])], dim=-1))
    around = around.clamp(min=SMALLEST_AREA)
    return 1 - iou + (around - union) / around


def soft_labels(labels: Tensor, iou: Tensor, classes: int) -> Tensor:
    """Labels that admit how badly a box is placed (Eq. 3).

    `1 - ALPHA (1 - IoU)` for the class of a positive, `1 - ALPHA IoU` for the background of a
    negative; the rest is shared equally by the other classes.

    Args:
        labels: int64 (n,), 0 for background.
        iou: (n,), IoU of the predicted box with its ground truth.
        classes: K, the background included.

    Returns:
        (n, K), rows sum to 1.
    """
    key = 1 - ALPHA * torch.where(labels > 0, 1 - iou, iou)
    others = ((1 - key) / (classes - 1))[:, None].repeat(1, classes)
    return others.scatter_(1, labels[:, None], key[:, None])


def anchor_weights(labels: Tensor, iou: Tensor) -> Tensor:
    """η: the worse a positive is placed, the more it counts; negatives count 1 (Eq. 4).

    Args:
        labels: int64 (n,), 0 for background.
        iou: (n,), IoU of the predicted box with its ground truth.

    Returns:
        (n,), from 1 at IoU 1 to 10 at IoU 0.
    """
    return 1 / (1 + BETA * (iou - 1) * (labels > 0))


def kl_loss(logits: Tensor, soft: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Weighted Kullback-Leibler divergence from soft labels, the inner sum of Eq. 2.

    `sum_i w_i y_i log(y_i / softmax(x)_i)`; with a one-hot y and w = 1, the cross-entropy. With
    other weights its minimum, at `softmax(x) = w y / S`, is `sum_i w_i y_i log(w_i / S)` with
    `S = sum_i w_i y_i`, which is negative; it is subtracted. That changes no gradient of the
    network, but Eq. 6 divides the term by a trained variance, which would go to 0 for ever.

    Args:
        logits: (n, K).
        soft: (n, K), rows sum to 1.
        class_weights: (K,), w of Eq. 5; None is 1.

    Returns:
        (n,), 0 or more.
    """
    if class_weights is None:
        return F.kl_div(logits.log_softmax(dim=1), soft, reduction="none").sum(dim=1)
    weighted = soft * class_weights
    total = weighted.sum(dim=1, keepdim=True)
    # sum w y log(y / p) - sum w y log(y / (w y / S)) is S times a plain divergence from w y / S.
    ideal = weighted / total
    return total[:, 0] * F.kl_div(logits.log_softmax(dim=1), ideal, reduction="none").sum(dim=1)


class MultiTaskBalance(nn.Module):
    """Trained weights of the four loss terms (Eq. 6; Kendall, arXiv 1705.07115).

    Each term has a variance σ², trained as its logarithm s: `L e^-s / 2 + s / 2` for localisation,
    `L e^-s + s / 2` for classification. At rest σ² is L and 2 L. A weighted term, and their sum,
    may be negative.

    Attributes:
        log_variance: (4,), s in the order of `BALANCED`; 0 at the start.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(len(BALANCED)))

    def log_variances(self) -> dict[str, Tensor]:
        """Each logarithm, without gradient, as `log_var_<term>`."""
        values = self.log_variance.detach()
        return {f"log_var_{name}": value for name, value in zip(BALANCED, values, strict=True)}

    def forward(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Weight the terms.

        Args:
            terms: Scalars by the names in `BALANCED`, as `train.loss.detection_loss` returns;
                others are not weighted.

        Returns:
            All terms by the same names; the sum of the weighted ones is Eq. 6.
        """
        weighted = dict(terms)
        for name, s in zip(BALANCED, self.log_variance, strict=True):
            half = 0.5 if name.endswith("loc") else 1.0
            weighted[name] = half * torch.exp(-s) * terms[name] + s / 2
        return weighted
