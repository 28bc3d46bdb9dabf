"""Other detectors behind the interface of `rdlite.Detector`, so that AP is measured alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from benchmarks.table.session import open_session
from rdlite import Detections, _core, defaults
from rdlite.image import load, resize
from rdlite.session import Session

Floats = npt.NDArray[np.float32]
Found = tuple[Floats, Floats]
"""Boxes (n, 4), x1 y1 x2 y2 in pixels of the network's input, and scores (n, 80)."""

TOP_K = 400
"""Most candidates of one class, as in `rdlite.postprocess`."""


def decode_picodet(outputs: Sequence[Floats], side: int) -> Found:
    """PicoDet (arXiv 2111.00902): scores, and distances to the four sides as shares of 8 bins.

    The distance is the expectation over the bins (generalised focal loss, arXiv 2006.04388 Eq. 6).
    """
    scores, boxes = outputs[:4], []
    for stride, bins in zip((8, 16, 32, 64), outputs[4:], strict=True):
        shares = np.exp(bins.reshape(-1, 4, 8))
        shares /= shares.sum(axis=2, keepdims=True)
        distances = stride * (shares @ np.arange(8, dtype=np.float32))
        centres = stride * (_cells(side // stride) + 0.5)
        boxes.append(np.hstack([centres - distances[:, :2], centres + distances[:, 2:]]))
    return np.vstack(boxes), np.vstack([s[0] for s in scores])


def decode_yolox(outputs: Sequence[Floats], side: int) -> Found:
    """YOLOX (arXiv 2107.08430): centre and size relative to a cell, objectness times class."""
    strides = (8, 16, 32)
    cells = np.vstack([_cells(side // stride) for stride in strides])
    scale = np.repeat(strides, [(side // stride) ** 2 for stride in strides])[:, None]
    raw = outputs[0][0]
    centres, half = (raw[:, :2] + cells) * scale, np.exp(raw[:, 2:4]) * scale / 2
    return np.hstack([centres - half, centres + half]), raw[:, 4:5] * raw[:, 5:]


def decode_fastestdet(outputs: Sequence[Floats], side: int) -> Found:
    """FastestDet: one level without anchors; its code scores objectness^0.6 x class^0.4."""
    raw = outputs[0][0].reshape(85, -1).T
    grid = outputs[0].shape[-1]
    centres = (np.tanh(raw[:, 1:3]) + _cells(grid)) * (side / grid)
    half = side / 2 / (1 + np.exp(-raw[:, 3:5]))
    scores = raw[:, :1] ** 0.6 * raw[:, 5:] ** 0.4
    return np.hstack([centres - half, centres + half]), scores


def _cells(grid: int) -> Floats:
    """Column and row (n, 2) of the cells, row by row."""
    rows, columns = np.divmod(np.arange(grid * grid, dtype=np.float32), grid)
    return np.stack([columns, rows], axis=1)


class Recipe(NamedTuple):
    """How a network is fed and read.

    Attributes:
        decode: Of its outputs and the side of its input.
        rgb: Whether red comes first.
        mean: Subtracted from the colours, 0-255, in their order.
        std: They are divided by it.
        letterbox: Whether the shape is kept, with 114 to the right and below.
    """

    decode: Callable[[Sequence[Floats], int], Found]
    rgb: bool = False
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    letterbox: bool = False


RECIPES: Mapping[str, Recipe] = {
    "picodet_s_320": Recipe(
        decode_picodet, rgb=True, mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)
    ),
    "yolox_nano": Recipe(decode_yolox, letterbox=True),
    "FastestDet": Recipe(decode_fastestdet, std=(255.0, 255.0, 255.0)),
}
"""By the name of the file."""


def constant_weights(path: Path) -> bytes:
    """A model file's content, its weights no longer listed as inputs.

    Weights that a caller might replace cannot be folded or rearranged while loading, which makes
    PicoDet's file take half as long again.
    """
    import onnx

    proto = onnx.load(path)
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    return bytes(proto.SerializeToString())


class Peer:
    """A detector of 80 COCO classes that `rdlite.evaluate` can measure.

    Args:
        path: The .onnx file; its name says the recipe.

    Attributes:
        names: Its classes.
        category_ids: COCO's number of each.
        options: Of calls that give none: there are no such calls.
    """

    options: Mapping[str, Any] = {}

    def __init__(self, path: Path) -> None:
        spec = Session().spec  # COCO's classes, whose order all of them share
        self.category_ids, self.names = zip(
            *sorted(zip(spec.category_ids, spec.names, strict=True)), strict=True
        )
        self._session = open_session(constant_weights(path))
        self._recipe = RECIPES[path.stem]
        self._input = self._session.get_inputs()[0]

    def __call__(
        self,
        source: Any,
        *,
        conf: float,
        nms: str,
        max_det: int,
        classes: Sequence[str],
        iou: float | None = None,
    ) -> Detections:
        """Detect in one image; options as `rdlite.Detector`."""
        image = load(source)
        size = image.shape[1], image.shape[0]
        tensor, shown = self._prepare(image)
        outputs = self._session.run(None, {self._input.name: tensor})
        boxes, scores = self._recipe.decode(outputs, self._input.shape[2])
        scores = scores * np.isin(self.names, classes)
        anchors, labels = _candidates(scores, conf)
        fractions = (boxes[anchors] / np.tile(shown, 2)).astype(np.float32)
        labels = labels.astype(np.int32)
        picked, confidence = _core.suppress(
            fractions,
            scores[anchors, labels].astype(np.float32),
            labels,
            method=nms,
            iou=defaults.IOU if iou is None else iou,
            sigma=defaults.SIGMA,
            conf=conf,
            max_det=max_det,
        )
        return Detections(
            *_core.place(fractions, labels, picked, confidence, *size),
            names=self.names,
            category_ids=self.category_ids,
            image_size=size,
        )

    def _prepare(self, image: npt.NDArray[np.uint8]) -> tuple[Floats, Floats]:
        """The network's input, and the width and height (2,) that the image takes in it."""
        side, recipe = self._input.shape[2], self._recipe
        height, width = image.shape[:2]
        scale = side / max(height, width) if recipe.letterbox else 0
        shown = (round(scale * width), round(scale * height)) if scale else (side, side)
        canvas = np.full((side, side, 3), 114, np.uint8)
        canvas[: shown[1], : shown[0]] = resize(image, shown[::-1])
        if recipe.rgb:
            canvas = canvas[..., ::-1]
        floats = (canvas - np.float32(recipe.mean)) / np.float32(recipe.std)
        return np.ascontiguousarray(floats.transpose(2, 0, 1)[None]), np.float32(shown)


def _candidates(scores: Floats, conf: float) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Anchor and class of the scores from `conf` on, the best `TOP_K` of each class."""
    best = np.argsort(-scores, axis=0, kind="stable")[:TOP_K]
    classes = np.broadcast_to(np.arange(scores.shape[1]), best.shape)
    wanted = np.take_along_axis(scores, best, axis=0) >= conf
    return best[wanted], classes[wanted]
