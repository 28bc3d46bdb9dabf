"""From network outputs to detections in pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rdlite import defaults
from rdlite.errors import ModelError
from rdlite.modelfile import DECODERS, ModelSpec
from rdlite.postprocess import postprocess
from tests import reference


def spec_for(anchors: Any, classes: int) -> ModelSpec:
    names = tuple(f"thing {n}" for n in range(1, classes))
    return ModelSpec(
        names=names,
        category_ids=tuple(range(1, classes)),
        anchors=anchors,
        variances=(0.1, 0.2),
        input_size=(320, 320),
    )


def run(outputs: Any, anchors: Any, **changes: Any) -> Any:
    classes = outputs[3].shape[1]
    options: dict[str, Any] = {"image_size": (640, 480), "conf": 0.25, "iou": 0.5, "max_det": 100}
    options |= {"nms": "gaussian", "class_mask": np.ones(classes - 1, np.uint8)} | changes
    return postprocess(tuple(outputs), spec_for(anchors, classes), **options)


@pytest.mark.parametrize("nms", ["hard", "linear", "gaussian"])
def test_postprocess_matches_the_definition_from_logits_to_pixels(nms: str) -> None:
    outputs, anchors = reference.network_outputs(11)
    mask = np.ones(80, np.uint8)
    boxes, scores, labels, _ = reference.decode(
        outputs, anchors, mask, variances=(0.1, 0.2), objectness=0.01, conf=0.25, top_k=400
    )
    index, final = reference.suppress(
        boxes, scores, labels, method=nms, iou=0.45, sigma=defaults.SIGMA, conf=0.25, max_det=30
    )
    pixels, keep = reference.scale(boxes[index], 640, 480)
    xyxy, confidence, class_id, dropped = run(outputs, anchors, nms=nms, iou=0.45, max_det=30)
    assert len(xyxy) > 5
    np.testing.assert_allclose(xyxy, pixels[keep], atol=1e-2)
    np.testing.assert_allclose(confidence, final[keep], atol=1e-5)
    np.testing.assert_array_equal(class_id, labels[index][keep])
    assert (xyxy.dtype, confidence.dtype, class_id.dtype) == (np.float32, np.float32, np.int64)
    assert dropped == 0


def test_postprocess_places_a_box_in_pixels_of_the_image() -> None:
    outputs, anchors = reference.plain_outputs(count=1)
    anchors[0] = 0.5, 0.25, 0.4, 0.3
    xyxy, _, class_id, _ = run(outputs, anchors, image_size=(1000, 100))
    np.testing.assert_allclose(xyxy, [[300, 10, 700, 40]], rtol=1e-5)
    assert class_id.tolist() == [0]


def test_postprocess_clips_to_the_image_and_drops_what_lies_outside() -> None:
    outputs, anchors = reference.plain_outputs(count=2)
    anchors[:] = [[0, 1, 0.5, 0.5], [0.5, 0.5, 0.2, 0.2]]
    outputs[0][1, 0] = 60  # 0.5 + 60 * 0.1 * 0.2: far right of the image
    xyxy, confidence, class_id, dropped = run(outputs, anchors, image_size=(64, 48))
    np.testing.assert_allclose(xyxy, [[0, 36, 16, 48]])
    assert len(confidence) == len(class_id) == 1
    assert dropped == 0


def test_postprocess_returns_only_the_classes_wanted() -> None:
    outputs, anchors = reference.network_outputs(11)
    found = np.unique(run(outputs, anchors)[2])
    assert len(found) > 1
    mask = np.zeros(80, np.uint8)
    mask[found[0]] = 1
    assert np.unique(run(outputs, anchors, class_mask=mask)[2]).tolist() == [found[0]]


def test_postprocess_counts_what_was_not_finite() -> None:
    outputs, anchors = reference.plain_outputs(count=4)
    outputs[3][1, 2], outputs[1][2, 0] = np.nan, np.inf
    xyxy, _, _, dropped = run(outputs, anchors)
    assert (len(xyxy), dropped) == (2, 2)


def test_postprocess_of_an_empty_scene_has_empty_arrays() -> None:
    outputs, anchors = reference.plain_outputs(count=4)
    outputs[1][:] = 5, -5
    xyxy, confidence, class_id, dropped = run(outputs, anchors)
    assert xyxy.shape == (0, 4)
    assert confidence.shape == class_id.shape == (0,)
    assert dropped == 0


def test_postprocess_is_bounded_when_every_anchor_is_every_class() -> None:
    outputs, anchors = reference.network_outputs(11)
    outputs[1][:], outputs[3][:] = (-9, 9), 0
    xyxy, _, _, _ = run(outputs, anchors, conf=0.0, max_det=50)
    assert len(xyxy) == 50


def test_postprocess_has_every_decoder_that_model_files_may_name() -> None:
    outputs, anchors = reference.plain_outputs(count=1)
    spec = spec_for(anchors, 4)
    options: dict[str, Any] = {"image_size": (64, 64), "conf": 0.25, "iou": 0.5, "max_det": 10}
    options |= {"nms": "hard", "class_mask": np.ones(3, np.uint8)}
    for decoder in DECODERS:
        object.__setattr__(spec, "decoder", decoder)
        assert len(postprocess(tuple(outputs), spec, **options)[0]) == 1
    object.__setattr__(spec, "decoder", "yolo")
    with pytest.raises(ModelError, match=r"decoder 'yolo'.*refinedet.*newer rdlite"):
        postprocess(tuple(outputs), spec, **options)


def test_postprocess_gives_the_same_bits_twice() -> None:
    outputs, anchors = reference.network_outputs(11)
    for one, other in zip(run(outputs, anchors), run(outputs, anchors), strict=True):
        np.testing.assert_array_equal(one, other)
