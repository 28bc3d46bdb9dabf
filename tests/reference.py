"""What the kernels of rdlite._core must compute, in NumPy, written from the definitions.

Probabilities are computed in float64 here, so comparing them needs a tolerance. Boxes and the
running scores of suppression are float32 after every step, as these decide what is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
HOSTILE = (np.nan, np.inf, -np.inf, 1e30, -1e30, 3e38, -0.0, 0.0, 1e-45)


def softmax(logits: Array) -> Array:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def decode_offsets(boxes: Array, offsets: Array, variances: tuple[float, float]) -> Array:
    """Applies encoded offsets to centre-size boxes (n, 4), in float32 like the network."""
    xy, wh = np.float32(variances[0]), np.float32(variances[1])
    centre = boxes[:, :2] + offsets[:, :2] * xy * boxes[:, 2:]
    return np.hstack([centre, boxes[:, 2:] * np.exp(offsets[:, 2:] * wh)])


def corners(boxes: Array) -> Array:
    return np.hstack([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2])


def decode(
    outputs: Sequence[Array],
    anchors: Array,
    class_mask: Array,
    *,
    variances: tuple[float, float],
    objectness: float,
    conf: float,
    top_k: int,
) -> tuple[Array, Array, Array, int]:
    """Boxes, scores, labels by class and anchor; and how many were removed."""
    arm_loc, arm_conf, odm_loc, odm_conf = outputs
    valid = np.isfinite(arm_conf).all(axis=1)
    with np.errstate(all="ignore"):
        background, thing = arm_conf.astype(np.float64).T
        least = float(np.float32(objectness))
        passed = valid & (thing - background >= np.log(least) - np.log1p(-least))
        finite = np.isfinite(np.hstack([arm_loc, odm_loc, odm_conf, anchors])).all(axis=1)
        refined = decode_offsets(anchors, arm_loc, variances)
        boxes = corners(decode_offsets(refined, odm_loc, variances))
        scores = softmax(odm_conf.astype(np.float64))[:, 1:]
        candidate = (scores >= np.float32(conf)) & class_mask.astype(bool)
    candidate &= (passed & finite)[:, None]
    overflowed = candidate.any(axis=1) & ~np.isfinite(boxes).all(axis=1)
    candidate[overflowed] = False
    dropped = int((~valid).sum() + (passed & ~finite).sum() + overflowed.sum())
    rows = []
    for label in range(candidate.shape[1]):
        mine = np.flatnonzero(candidate[:, label])
        best = np.argsort(-scores[mine, label], kind="stable")[:top_k]
        rows.append(mine[np.sort(best)])
    row, labels = np.concatenate(rows), np.repeat(np.arange(len(rows)), [len(r) for r in rows])
    return boxes[row], scores[row, labels].astype(np.float32), labels.astype(np.int32), dropped


def iou_with(box: Array, boxes: Array) -> Array:
    """IoU of one x1 y1 x2 y2 box with others (n, 4); 0 where an area is not positive."""
    box, boxes = box.astype(np.float64), boxes.astype(np.float64)
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=1)
    area = np.clip(box[2:] - box[:2], 0, None).prod()
    areas = np.clip(boxes[:, 2:] - boxes[:, :2], 0, None).prod(axis=1)
    union = area + areas - shared
    return np.divide(shared, union, out=np.zeros(len(boxes)), where=shared > 0)


def weakened(scores: Array, iou: Array, method: str, threshold: float, sigma: float) -> Array:
    """Scores after one pick (Bodla et al., arXiv 1704.04503); hard suppression gives -1."""
    if method == "gaussian":
        factor = np.exp(-(iou**2) / np.float64(np.float32(sigma)))
        return (scores * factor).astype(np.float32)
    over = iou > np.float32(threshold)
    reduced = scores * (1 - iou) if method == "linear" else np.full(len(scores), -1.0)
    return np.where(over, reduced, scores).astype(np.float32)


def suppress(
    boxes: Array,
    scores: Array,
    labels: Array,
    *,
    method: str,
    iou: float,
    sigma: float,
    conf: float,
    max_det: int,
) -> tuple[Array, Array]:
    """Indices and final scores; all remaining scores are brought up to date after every pick."""
    conf32 = np.float32(conf)
    usable = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
    picked, final = [], []
    for label in np.unique(labels):
        left = np.flatnonzero(usable & (labels == label) & (scores >= conf32))
        running = scores[left]
        while len(left):
            best = int(np.argmax(running))
            picked.append(left[best])
            final.append(running[best])
            overlap = iou_with(boxes[left[best]], boxes[left])
            running = weakened(running, overlap, method, iou, sigma)
            keep = running >= conf32
            keep[best] = False
            left, running = left[keep], running[keep]
    index, score = np.array(picked, np.int32), np.array(final, np.float32)
    order = np.lexsort((index, -score))[:max_det]
    return index[order], score[order]


def onnxruntime_nms(
    boxes: Any, scores: Any, iou: float, *, conf: float = 0.01, most: int = 300
) -> Callable[[], set[tuple[int, int]]]:
    """A call that gives the pairs of class and box that onnxruntime's NonMaxSuppression selects.

    `scores` is (classes, boxes); of each class at most `most` boxes are selected.
    """
    import onnxruntime as ort
    from onnx import TensorProto, helper

    inputs = ["boxes", "scores", "max_output", "iou", "score"]
    kinds = [TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT64, TensorProto.FLOAT]
    graph = helper.make_graph(
        [helper.make_node("NonMaxSuppression", inputs, ["selected"])],
        "nms",
        [
            helper.make_tensor_value_info(name, kind, None)
            for name, kind in zip(inputs, [*kinds, TensorProto.FLOAT], strict=True)
        ],
        [helper.make_tensor_value_info("selected", TensorProto.INT64, [None, 3])],
    )
    opset = [helper.make_opsetid("", 11)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = [boxes[None], scores[None].astype(np.float32)]
    values += [np.array([most]), np.array([iou], np.float32), np.array([conf], np.float32)]
    feed = dict(zip(inputs, values, strict=True))

    def select() -> set[tuple[int, int]]:
        (selected,) = session.run(None, feed)
        return {(label, box) for _, label, box in np.asarray(selected).tolist()}

    return select


def scale(boxes: Array, width: float, height: float) -> tuple[Array, Array]:
    """Pixels clipped to the image, and which boxes are finite with a positive area."""
    size = np.array([width, height, width, height], np.float32)
    with np.errstate(all="ignore"):
        pixels = np.clip(boxes * size, 0, size)
        solid = (pixels[:, 2:] > pixels[:, :2]).all(axis=1)
    return pixels, solid & np.isfinite(boxes).all(axis=1)


def grid_anchors() -> Array:
    """The 3,204 anchors of the 320-pixel network: 20, 10, 5 and 3 cells a side, six a cell."""
    sizes = (28, 68, 136, 216, 300)
    levels = []
    for grid, size, larger in zip((20, 10, 5, 3), sizes, sizes[1:], strict=False):
        centres = (np.indices((grid, grid)).reshape(2, -1).T[:, ::-1] + 0.5) / grid
        shapes = [
            (s * ratio**0.5 / 320, s / ratio**0.5 / 320)
            for s in (size, (size * larger) ** 0.5)
            for ratio in (0.4, 0.8, 1.6)
        ]
        levels.append(np.hstack([np.repeat(centres, 6, axis=0), np.tile(shapes, (grid * grid, 1))]))
    return np.concatenate(levels).astype(np.float32)


def network_outputs(
    seed: int, *, objects: int = 12, classes: int = 81
) -> tuple[list[Array], Array]:
    """Logits and offsets shaped like a trained network's on a busy image, with their anchors.

    About 1,000 of the 3,204 anchors pass an objectness of 0.01. Anchors near one of `objects`
    centres agree on a class, the more surely the closer they are, and point at the same box.
    """
    rng = np.random.default_rng(seed)
    anchors = grid_anchors()
    count = len(anchors)
    arm_conf = np.stack([np.zeros(count), rng.normal(-6.0, 1.8, count)], axis=1)
    odm_conf = rng.normal(0.0, 0.7, (count, classes))
    odm_conf[:, 0] += 7.0
    arm_loc, odm_loc = rng.normal(0, 0.5, (count, 4)), rng.normal(0, 0.3, (count, 4))
    common = rng.permutation(np.arange(1, classes))[: max(objects // 3, 1)]
    for _ in range(objects):
        centre, size = rng.uniform(0.15, 0.85, 2), rng.uniform(0.12, 0.5, 2)
        away = np.abs((anchors[:, :2] - centre) / size).max(axis=1)
        away += 0.5 * np.abs(np.log(anchors[:, 2:] / size)).max(axis=1)
        near = np.flatnonzero(away < 1.0)
        certainty = (1 - away[near]) * 9 + rng.normal(0, 1, len(near))
        arm_conf[near, 1] += certainty
        odm_conf[near, rng.choice(common)] += certainty
        arm_loc[near, :2] += (centre - anchors[near, :2]) / anchors[near, 2:] / 0.1
        arm_loc[near, 2:] += np.log(size / anchors[near, 2:]) / 0.2
    outputs = [x.astype(np.float32) for x in (arm_loc, arm_conf, odm_loc, odm_conf)]
    return outputs, anchors


def plain_outputs(count: int = 4, classes: int = 4) -> tuple[list[Array], Array]:
    """Every anchor is surely an object of class 0, and all offsets are 0."""
    arm_conf = np.tile(np.float32([-5, 5]), (count, 1))
    odm_conf = np.zeros((count, classes), np.float32)
    odm_conf[:, 1] = 8
    zeros = np.zeros((count, 4), np.float32)
    centres = (np.arange(count) + 0.5) / count
    anchors = np.stack([centres, centres, np.full(count, 0.2), np.full(count, 0.1)], axis=1)
    return [zeros, arm_conf, zeros.copy(), odm_conf], anchors.astype(np.float32)


def random_outputs(rng: np.random.Generator, count: int, classes: int) -> tuple[list[Array], Array]:
    """Logits and offsets without any sense."""
    widths = (4, 2, 4, classes)
    outputs = [rng.normal(0, 2, (count, width)).astype(np.float32) for width in widths]
    return outputs, rng.uniform(0.05, 1, (count, 4)).astype(np.float32)


def spoil(rng: np.random.Generator, array: Array, times: int) -> None:
    """Writes values that networks should not give over random elements."""
    for _ in range(times if array.size else 0):
        array.reshape(-1)[rng.integers(array.size)] = rng.choice(HOSTILE)
