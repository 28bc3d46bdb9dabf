"""From network outputs to boxes in pixels: decode, suppress overlaps, scale to the image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from rdlite import defaults
from rdlite.errors import ModelError
from rdlite.modelfile import Floats, ModelSpec, Outputs

try:
    from rdlite import _core
except ImportError as error:
    raise ImportError(
        f"the kernels of rdlite have not been built, or not for this Python ({error}); in a source "
        "tree run `pip install -e .`, elsewhere `rdlite check` says what helps"
    ) from error

Candidates: TypeAlias = tuple[Floats, Floats, npt.NDArray[np.int32], int]
"""Boxes `(n, 4)` x1 y1 x2 y2, fractions of the input; scores, labels `(n,)`; anchors removed."""


def postprocess(
    outputs: Outputs,
    spec: ModelSpec,
    *,
    image_size: tuple[int, int],
    conf: float,
    iou: float,
    nms: str,
    max_det: int,
    class_mask: npt.NDArray[np.uint8],
    objectness: float = 0.01,
    sigma: float = defaults.SIGMA,
    top_k: int = 400,
) -> tuple[Floats, Floats, npt.NDArray[np.int64], int]:
    """Turn what the network gave for one image into detections in pixels.

    The steps of RefineDet (arXiv 1711.06897): gate the anchors by objectness, refine them twice,
    keep the `top_k` best of each class and suppress within each class.

    Args:
        outputs: Float32 arrays `arm_loc (A, 4)`, `arm_conf (A, 2)`, `odm_loc (A, 4)` and
            `odm_conf (A, K)`: encoded offsets and logits, background first.
        spec: The model's metadata: anchors, variances and decoder are used.
        image_size: Width and height of the upright image, pixels.
        conf: Lowest score kept, from 0 to 1.
        iou: Overlap above which `hard` and `linear` suppression act, from 0 to 1.
        nms: `hard`, or soft-NMS (arXiv 1704.04503) as `linear` or `gaussian`.
        max_det: Most detections returned, the best over all classes.
        class_mask: uint8 `(K - 1,)`, non-zero for each foreground class wanted.
        objectness: Anchors whose object probability is lower are not decoded.
        sigma: Width of `gaussian` suppression; larger values suppress less.
        top_k: Most candidates of one class that enter suppression.

    Returns:
        `xyxy` float32 `(n, 4)` in pixels, x1 y1 x2 y2, clipped to the image and never empty;
        `confidence` float32 `(n,)`, descending; `class_id` int64 `(n,)`, index into `spec.names`;
        and the number of anchors removed because the network gave NaN or infinity.

    Raises:
        ModelError: This release has no decoder of the name in `spec`.
        ValueError: A shape does not fit the others, or an option is out of range.
    """
    decode = _DECODERS.get(spec.decoder)
    if decode is None:
        raise ModelError(
            f"the model needs the decoder {spec.decoder!r}, this release of rdlite has "
            f"{', '.join(_DECODERS)}; install a newer rdlite or export the model again"
        )
    boxes, scores, labels, dropped_nonfinite = decode(
        outputs, spec, class_mask, objectness=objectness, conf=conf, top_k=top_k
    )
    picked, confidence = _core.suppress(
        boxes, scores, labels, method=nms, iou=iou, sigma=sigma, conf=conf, max_det=max_det
    )
    xyxy, confidence, class_id = _core.place(boxes, labels, picked, confidence, *image_size)
    return xyxy, confidence, class_id, dropped_nonfinite


def _decode_refinedet(
    outputs: Outputs, spec: ModelSpec, class_mask: npt.NDArray[np.uint8], **thresholds: Any
) -> Candidates:
    variance_xy, variance_wh = spec.variances
    return _core.decode_refinedet(
        *outputs,
        spec.anchors,
        class_mask,
        variance_xy=variance_xy,
        variance_wh=variance_wh,
        **thresholds,
    )


_DECODERS: Final[Mapping[str, Callable[..., Candidates]]] = {"refinedet": _decode_refinedet}
