"""Decoding, gaussian suppression and scaling of one image's network outputs, on one core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rdlite.modelfile import ModelSpec
from rdlite.postprocess import postprocess
from tests import reference
from tests.conftest import street_frame

SEED = 7
TARGET_MS = {0.25: 0.3, 0.01: 0.6}
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
@pytest.mark.parametrize("source", [generated, embedded], ids=lambda source: source.__name__)
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
        target_ms=TARGET_MS[conf],
        oracle=lambda: oracle(outputs, spec, conf, mask),
        anchors=int(objects.sum()),
        candidates=candidates,
    )
    assert len(xyxy) <= OPTIONS["max_det"]
