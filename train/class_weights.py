"""Weights against the imbalance of classes, from the boxes of a training set (paper Eq. 5)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rdlite.errors import OptionError
from rdlite.evaluate.dataset import DataError
from train.coco import CocoImage, load_coco

GAMMA = 0.75
LARGEST = 10.0
"""The paper's gamma and W, found on COCO (arXiv 1911.08855 §5.1, appendix A)."""


def count_boxes(images: Iterable[CocoImage], classes: int) -> np.ndarray:
    """Count the boxes of each class that a detector learns from.

    Ignore regions are not among them: no anchor is ever their positive.

    Args:
        images: Annotated images.
        classes: C, without background.

    Returns:
        int64 (C,).
    """
    labels = [image.targets.labels[~image.targets.ignore] for image in images]
    counts: np.ndarray = np.bincount(np.concatenate(labels), minlength=classes + 1)
    return counts[1:]


def class_weights(
    counts: Sequence[int] | np.ndarray, *, gamma: float = GAMMA, largest: float = LARGEST
) -> Tensor:
    """Weigh classes by their rarity (Eq. 5).

    `w = (W - 1) (r^gamma - 1) / (r_max^gamma - 1) + 1` with `r = M_max / M`: 1 for the class of
    most boxes, W for that of fewest. Where all have equally many, all weigh 1.

    W is found for COCO, where r_max is 1,308; no class weighs more than it is rarer, so that
    1,000 boxes against 990 do not become 1 against 10: W is at most r_max.

    A class without boxes gets W, the end that Eq. 5 goes to as boxes become few, and the fewest is
    taken over the others: an r_max without bound would make all other weights 1. No anchor is its
    positive, so its weight only scales the small share that soft labels give it.

    Args:
        counts: Boxes of each of the C classes, M.
        gamma: Above 0; nearer to 0, the weights of middling classes rise.
        largest: W, at least 1.

    Returns:
        float32 (C + 1,); the first is the background's, 1.

    Raises:
        OptionError: gamma or largest is out of its range.
        DataError: There is no box at all.
    """
    if not (0 < gamma < math.inf and 1 <= largest < math.inf):
        raise OptionError(
            "class weights need gamma above 0 and largest of 1 or more, both finite, "
            f"got gamma {gamma} and largest {largest}"
        )
    boxes = np.asarray(counts, dtype=np.float64)
    seen = boxes > 0
    if not seen.any():
        raise DataError(
            f"none of the {len(boxes)} classes has a box to weigh it by; annotate some or turn "
            "class_weights off"
        )
    ratio = boxes.max() / np.where(seen, boxes, boxes[seen].min())
    rarity = ratio**gamma - 1
    weights = 1 + (min(largest, ratio.max()) - 1) * rarity / (rarity.max() or 1)
    weights[~seen] = largest
    return torch.tensor([1.0, *weights], dtype=torch.float32)


def write_class_weights(*, data: str, images: str | None = None, output: str) -> str:
    """Draw the weights of a set's classes, and list them.

    Args:
        data: Annotations, in any format that `train.coco.load_coco` reads.
        images: Folder of the images; COCO does not need it.
        output: PNG to write.

    Returns:
        A table of classes, their boxes and weights, from the most frequent class down.

    Raises:
        DataError: The file is unusable, or holds no box.
        OptionError: `output` is no name of a PNG file.
    """
    if Path(output).suffix.lower() != ".png":
        raise OptionError(f"the chart is a PNG file; got {output!r}, give a name that ends in .png")
    coco = load_coco(data, images)
    counts = count_boxes(coco.images, len(coco.names))
    weights = class_weights(counts)[1:].numpy()
    plot_class_weights(counts, weights, output, names=coco.names)
    width = max(5, *map(len, coco.names))
    rows = [f"{'class':{width}} {'boxes':>9} {'weight':>7}"]
    for k in np.argsort(-counts, kind="stable"):
        rows.append(f"{coco.names[k]:{width}} {counts[k]:9,} {weights[k]:7.2f}")
    empty = int((counts == 0).sum())
    if empty:
        rows.append(f"{empty} of {len(counts)} classes have no boxes: they get the largest weight")
    return "\n".join(rows)


def plot_class_weights(
    counts: np.ndarray, weights: np.ndarray, path: str | Path, *, names: Sequence[str]
) -> None:
    """Draw weights against numbers of boxes, the paper's Fig. 5.

    Classes without boxes have no place on the logarithmic axis; the title counts them.

    Args:
        counts: (C,) boxes of each class.
        weights: (C,) their weights, without the background's.
        path: PNG to write.
        names: The C class names; the most frequent and the rarest are written beside their points.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    order = [k for k in np.argsort(counts) if counts[k]]
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    axes.plot(counts[order], weights[order], marker="o", linewidth=1)
    for k, side, offset in ((order[0], "left", (8, -4)), (order[-1], "right", (0, 8))):
        axes.annotate(
            f"{names[k]}: {counts[k]:,}, weight {weights[k]:.3g}",
            (counts[k], weights[k]),
            xytext=offset,
            textcoords="offset points",
            ha=side,
        )
    empty = len(counts) - len(order)
    title = f"{len(order)} classes" + (f", {empty} more without boxes" if empty else "")
    axes.set(xscale="log", xlabel="boxes", ylabel="weight in the loss", title=title)
    axes.grid(alpha=0.3, which="both")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
