"""Calling the kernels of rdlite._core with usual values, and comparing what they give."""

from __future__ import annotations

from typing import Any

import numpy as np

from rdlite import _core

METHODS = ("hard", "linear", "gaussian")


def decode(outputs: Any, anchors: Any, mask: Any = None, **changes: Any) -> Any:
    options: dict[str, Any] = {"objectness": 0.01, "conf": 0.25, "top_k": 400} | changes
    if mask is None:
        mask = np.ones(max(outputs[3].shape[1] - 1, 0), np.uint8)
    return _core.decode_refinedet(
        *outputs, anchors, mask, variance_xy=0.1, variance_wh=0.2, **options
    )


def suppress(boxes: Any, scores: Any, labels: Any = None, **changes: Any) -> Any:
    options: dict[str, Any] = {"method": "hard", "iou": 0.5, "sigma": 0.5, "conf": 0.01}
    labels = np.zeros(len(scores), np.int32) if labels is None else np.asarray(labels, np.int32)
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    options |= {"max_det": 100} | changes
    return _core.suppress(boxes, np.asarray(scores, np.float32), labels, **options)


def random_boxes(rng: np.random.Generator, count: int) -> Any:
    corner = rng.uniform(0, 1, (count, 2))
    size = rng.uniform(0.05, 0.5, (count, 2))
    scores = rng.permutation(np.linspace(0.05, 0.95, count)).astype(np.float32)
    return np.hstack([corner, corner + size]).astype(np.float32), scores


def assert_same_candidates(got: Any, want: Any, conf: float) -> None:
    """Equal within rounding; a probability within rounding of conf may fall on either side."""
    assert got[3] == want[3]
    for label in np.unique(np.concatenate([got[2], want[2]])):
        fewer, more = sorted(
            (np.sort(one[1][one[2] == label])[::-1] for one in (got, want)), key=len
        )
        np.testing.assert_allclose(fewer, more[: len(fewer)], rtol=1e-5, atol=1e-6)
        assert (more[len(fewer) :] <= conf * (1 + 1e-5)).all()
    for one, other in ((got, want), (want, got)):
        for label in np.unique(one[2]):
            mine, theirs = one[2] == label, other[2] == label
            mine &= one[1] > conf * (1 + 1e-5)
            # Centre and size of hostile boxes may cancel: what is left is as exact as they were.
            size = np.maximum(np.abs(one[0][mine]).max(axis=1), 1)[:, None, None]
            apart = np.abs(one[0][mine][:, None] / size - other[0][theirs][None] / size)
            close = (apart < 1e-5).all(axis=2)
            close &= np.isclose(one[1][mine][:, None], other[1][theirs][None], rtol=1e-5, atol=1e-6)
            assert close.any(axis=1).all()
