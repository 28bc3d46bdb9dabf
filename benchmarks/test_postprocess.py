"""Decoding, suppression and scaling of one image's network outputs, on one core; and others'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pytest

from rdlite import _core
from rdlite.modelfile import ModelSpec
from rdlite.postprocess import postprocess
from tests import reference
from tests.conftest import street_frame

SEED = 7
TARGET_MS = {0.25: 0.15, 0.01: 0.4}
OPTIONS: dict[str, Any] = {"iou": 0.5, "max_det": 100}


def generated() -> tuple[Any, ModelSpec]:
    """Outputs with the statistics of a trained network, the same on every machine."""
    outputs, anchors = reference.network_outputs(SEED)
    names = tuple(f"class {n}" for n in range(80))
    return outputs, ModelSpec(names, tuple(range(1, 81)), anchors, (0.1, 0.2), (320, 320))


def embedded() -> tuple[Any, ModelSpec]:
    """What the embedded model gives for a frame of the street clip."""
    from rdlite.image import resize
    from rdlite.session import Session

    session = Session()
    return session.run(resize(street_frame(), session.spec.input_size)[None]), session.spec


def oracle(outputs: Any, spec: ModelSpec, conf: float, mask: Any) -> Any:
    boxes, scores, labels, _ = reference.decode(
        outputs,
        spec.anchors,
        mask,
        variances=spec.variances,
        objectness=0.01,
        conf=conf,
        top_k=400,
    )
    index, _ = reference.suppress(
        boxes, scores, labels, method="gaussian", sigma=0.5, conf=conf, **OPTIONS
    )
    return reference.scale(boxes[index], 1280, 720), len(scores)


@pytest.mark.parametrize("conf", [0.25, 0.01])
@pytest.mark.parametrize(
    "source",
    [pytest.param(generated, marks=pytest.mark.gate), embedded],
    ids=lambda source: source.__name__,
)
def test_postprocess(
    measure: Callable[..., Any], source: Callable[[], tuple[Any, ModelSpec]], conf: float
) -> None:
    outputs, spec = source()
    mask = np.ones(len(spec.names), np.uint8)
    _, candidates = oracle(outputs, spec, conf, mask)
    objects = outputs[1][:, 1] - outputs[1][:, 0] >= np.log(0.01 / 0.99)
    xyxy, *_ = measure(
        lambda: postprocess(
            outputs,
            spec,
            image_size=(1280, 720),
            conf=conf,
            nms="gaussian",
            class_mask=mask,
            **OPTIONS,
        ),
        kernel="resize",
        target_ms=TARGET_MS[conf],
        oracle=lambda: oracle(outputs, spec, conf, mask),
        anchors=int(objects.sum()),
        candidates=candidates,
    )
    assert len(xyxy) <= OPTIONS["max_det"]


Candidates: TypeAlias = tuple[Any, Any, Any]
Peer: TypeAlias = Callable[[Candidates, float], Callable[[], Any]]
"""Makes a call that suppresses candidates and gives the indices it keeps, best first or not."""


def candidates(conf: float) -> Candidates:
    """Those of the embedded model in the street: boxes, scores, labels."""
    (arm_loc, arm_conf, odm_loc, odm_conf), spec = embedded()
    xy, wh = spec.variances
    mask = np.ones(len(spec.names), np.uint8)
    boxes, scores, labels, _ = _core.decode_refinedet(
        arm_loc,
        arm_conf,
        odm_loc,
        odm_conf,
        spec.anchors,
        mask,
        variance_xy=xy,
        variance_wh=wh,
        objectness=0.01,
        conf=conf,
        top_k=400,
    )
    return boxes, scores, labels


def apart(given: Candidates) -> Any:
    """Boxes in float64, each class far from the others, for those who know no classes."""
    boxes, _, labels = given
    return boxes.astype(np.float64) + labels[:, None] * 8.0


def suppress(given: Candidates, conf: float, method: str) -> tuple[Any, Any]:
    everything = {"iou": 0.5, "sigma": 0.5, "conf": conf, "max_det": len(given[1])}
    return _core.suppress(*given, method=method, **everything)


def rdlite_hard(given: Candidates, conf: float) -> Callable[[], Any]:
    return lambda: suppress(given, conf, "hard")[0]


def rdlite_gaussian(given: Candidates, conf: float) -> Callable[[], Any]:
    return lambda: suppress(given, conf, "gaussian")


def onnxruntime_hard(given: Candidates, conf: float) -> Callable[[], Any]:
    boxes, scores, labels = given
    by_class = np.where(labels == np.arange(labels.max() + 1)[:, None], scores, 0)
    select = reference.onnxruntime_nms(boxes, by_class, 0.5, conf=conf, most=len(scores))
    return lambda: [index for _, index in select()]


def torchvision_hard(given: Candidates, conf: float) -> Callable[[], Any]:
    torch, ops = pytest.importorskip("torch"), pytest.importorskip("torchvision.ops")
    boxes, scores, labels = map(torch.from_numpy, given)
    try:
        ops.nms(boxes, scores, 0.5)
    except RuntimeError as error:
        pytest.skip(f"torchvision was built for another torch: {str(error).split('.')[0]}")
    return lambda: ops.batched_nms(boxes, scores, labels, 0.5).numpy()


def powerboxes_hard(given: Candidates, conf: float) -> Callable[[], Any]:
    powerboxes = pytest.importorskip("powerboxes")
    boxes, scores = apart(given), given[1].astype(np.float64)
    return lambda: powerboxes.nms(boxes, scores, 0.5, conf)


def opencv_gaussian(given: Candidates, conf: float) -> Callable[[], Any]:
    cv2 = pytest.importorskip("cv2")
    boxes = apart(given)
    rects = (
        np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]]) * 1e4
    )  # it wants integers whose areas are such too
    rects, scores = rects.round().astype(int).tolist(), given[1].tolist()
    return lambda: cv2.dnn.softNMSBoxes(rects, scores, conf, 0.5, sigma=0.5)[::-1]


@pytest.mark.parametrize("conf", [0.25, 0.01])
@pytest.mark.parametrize(
    "peer",
    [rdlite_hard, onnxruntime_hard, torchvision_hard, powerboxes_hard],
    ids=lambda p: p.__name__,
)
def test_hard(measure: Callable[..., Any], peer: Peer, conf: float) -> None:
    given = candidates(conf)
    kept = measure(peer(given, conf), kernel="resize", candidates=len(given[1]))
    assert set(np.ravel(kept)) == set(suppress(given, conf, "hard")[0])


@pytest.mark.parametrize("conf", [0.25, 0.01])
@pytest.mark.parametrize("peer", [rdlite_gaussian, opencv_gaussian], ids=lambda p: p.__name__)
def test_gaussian(measure: Callable[..., Any], peer: Peer, conf: float) -> None:
    given = candidates(conf)
    _, final = measure(peer(given, conf), kernel="resize", candidates=len(given[1]))
    ours = np.sort(suppress(given, conf, "gaussian")[1])[::-1]
    theirs = np.sort(np.ravel(final))[::-1]
    # Boxes of nearly one score are picked in either order, so the scores are compared, not indices.
    common = min(len(ours), len(theirs))
    np.testing.assert_allclose(ours[:common], theirs[:common], atol=1e-3)
    assert max([*ours[common:], *theirs[common:], 0]) <= conf + 1e-3
