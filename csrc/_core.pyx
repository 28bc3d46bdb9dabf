"""Compiled kernels on numpy arrays: decoding, suppression, scaling.

csrc/rdlite_core.h says what they compute. Every function checks shapes, allocates its results,
releases the GIL around the C code and keeps no state. A wrong dtype, number of dimensions or memory
layout is a ValueError from the buffer protocol itself.
"""

from libc.stdint cimport int32_t, uint8_t, uint64_t

import numpy as np

cdef extern from "rdlite_core.h" nogil:
    ctypedef enum rdl_status:
        RDL_OK
        RDL_BAD_THRESHOLD
        RDL_BAD_SIGMA
        RDL_BAD_COUNT
    ctypedef enum rdl_method:
        RDL_HARD
        RDL_LINEAR
        RDL_GAUSSIAN
    ctypedef struct rdl_refinedet:
        int32_t anchors
        int32_t classes
        const float *arm_loc
        const float *arm_conf
        const float *odm_loc
        const float *odm_conf
        const float *priors
        const uint8_t *allowed
        float variance_xy
        float variance_wh
    ctypedef struct rdl_candidates:
        float *scores
        int32_t *labels
        int32_t *rows
    ctypedef struct rdl_overlap_rule:
        rdl_method method
        float iou
        float sigma
    rdl_status rdl_gate(const rdl_refinedet *net, float objectness, int32_t *survivors,
                        int32_t *count, int32_t *nonfinite) noexcept
    rdl_status rdl_decode(const rdl_refinedet *net, const int32_t *survivors, int32_t count,
                          float conf, float *boxes, rdl_candidates out, int32_t *candidates,
                          float *exps, int32_t *nonfinite) noexcept
    rdl_status rdl_top_k(rdl_candidates candidates, int32_t n, int32_t classes, int32_t top_k,
                         int32_t *order, int32_t *kept, uint64_t *keys, int32_t *starts) noexcept
    rdl_status rdl_suppress(const float *boxes, const float *scores, const int32_t *labels,
                            int32_t n, rdl_overlap_rule rule, float conf, int32_t max_det,
                            int32_t *picked, float *final, int32_t *count, uint64_t *heap,
                            int32_t *seen) noexcept
    void rdl_scale(const float *boxes, int32_t n, float width, float height, float *out,
                   uint8_t *keep) noexcept

_METHODS = {"hard": RDL_HARD, "linear": RDL_LINEAR, "gaussian": RDL_GAUSSIAN}
_INT32_MAX = 2**31 - 1
_STATUS = {
    RDL_BAD_THRESHOLD: "objectness, conf and iou must be in [0, 1]",
    RDL_BAD_SIGMA: "sigma must be positive and finite",
    RDL_BAD_COUNT: "top_k and max_det must not be negative, and odm_conf needs two classes or more",
}


def _check(status, **given):
    if status != RDL_OK:
        values = ", ".join(f"{name}={value}" for name, value in given.items())
        raise ValueError(f"{_STATUS[status]}; got {values}")


def _check_shape(name, shape, wanted):
    if shape != wanted:
        raise ValueError(f"{name} must have shape {wanted}, got {shape}")


def _at_most_int32(value):
    """Clamps a count, so that "no limit" may be any large integer."""
    return min(int(value), _INT32_MAX)


def decode_refinedet(
    const float[:, ::1] arm_loc not None,
    const float[:, ::1] arm_conf not None,
    const float[:, ::1] odm_loc not None,
    const float[:, ::1] odm_conf not None,
    const float[:, ::1] anchors not None,
    const uint8_t[::1] class_mask not None,
    *,
    float variance_xy,
    float variance_wh,
    float objectness,
    float conf,
    top_k,
):
    """Decodes what a RefineDet network gave for one image (arXiv 1711.06897) into candidates.

    Args:
        arm_loc: float32 (A, 4), encoded offsets from anchor to refined anchor.
        arm_conf: float32 (A, 2), logits of background and object.
        odm_loc: float32 (A, 4), encoded offsets from refined anchor to box.
        odm_conf: float32 (A, K), class logits, background first.
        anchors: float32 (A, 4), cx cy w h as fractions of the input.
        class_mask: uint8 (K - 1,), non-zero for each foreground class wanted.
        variance_xy: Scale of the encoded centre offsets.
        variance_wh: Scale of the encoded logarithms of size.
        objectness: Anchors with a lower object probability are left out.
        conf: Lowest class probability that makes a candidate.
        top_k: Most candidates kept per class, the best; ties go to the earlier anchor.

    Returns:
        Boxes float32 (n, 4), x1 y1 x2 y2 as fractions of the input, not clipped; scores float32
        (n,); labels int32 (n,), foreground class from 0; all sorted by class, then by descending
        score. And the number of anchors removed as something they need was NaN or infinite.

    Raises:
        ValueError: A shape does not fit, or a threshold is outside [0, 1].
    """
    n, k = odm_conf.shape[0], odm_conf.shape[1]
    for name, view, width in (("arm_loc", arm_loc, 4), ("arm_conf", arm_conf, 2),
                              ("odm_loc", odm_loc, 4), ("anchors", anchors, 4)):
        _check_shape(name, (view.shape[0], view.shape[1]), (n, width))
    _check_shape("class_mask", (class_mask.shape[0],), (max(k - 1, 0),))
    if n * k > _INT32_MAX:
        raise ValueError(f"odm_conf must have at most {_INT32_MAX} values, got {n} x {k}")

    cdef rdl_refinedet net
    net.anchors = n
    net.classes = k
    net.variance_xy = variance_xy
    net.variance_wh = variance_wh
    net.arm_loc = &arm_loc[0, 0] if n else NULL
    net.arm_conf = &arm_conf[0, 0] if n else NULL
    net.odm_loc = &odm_loc[0, 0] if n else NULL
    net.odm_conf = &odm_conf[0, 0] if n and k else NULL
    net.priors = &anchors[0, 0] if n else NULL
    net.allowed = &class_mask[0] if k > 1 else NULL

    cdef rdl_status status
    cdef int32_t count = 0, gate_nonfinite = 0, nonfinite = 0, found = 0, kept = 0
    # One element more than needed: an address can then be taken when there are none.
    cdef int32_t[::1] survivors = np.empty(n + 1, np.int32)
    with nogil:
        status = rdl_gate(&net, objectness, &survivors[0], &count, &gate_nonfinite)
    _check(status, objectness=objectness, classes=k)

    boxes_array = np.empty((count + 1, 4), np.float32)
    capacity = count * (k - 1) + 1
    scores_array, labels_array = np.empty(capacity, np.float32), np.empty(capacity, np.int32)
    rows_array = np.empty(capacity, np.int32)
    cdef float[:, ::1] boxes = boxes_array
    cdef float[::1] scores = scores_array, exps = np.empty(k, np.float32)
    cdef int32_t[::1] labels = labels_array, rows = rows_array
    cdef rdl_candidates out
    out.scores, out.labels, out.rows = &scores[0], &labels[0], &rows[0]
    with nogil:
        status = rdl_decode(&net, &survivors[0], count, conf, &boxes[0, 0], out, &found, &exps[0],
                            &nonfinite)
    _check(status, conf=conf)

    order_array = np.empty(found + 1, np.int32)
    cdef int32_t[::1] order = order_array, starts = np.empty(k, np.int32)
    cdef uint64_t[::1] keys = np.empty(found + 1, np.uint64)
    cdef int32_t limit = _at_most_int32(top_k)
    with nogil:
        status = rdl_top_k(out, found, net.classes - 1, limit, &order[0], &kept, &keys[0],
                           &starts[0])
    _check(status, top_k=top_k)
    best = order_array[:kept]
    return (boxes_array[rows_array[best]], scores_array[best], labels_array[best],
            gate_nonfinite + nonfinite)


def suppress(
    const float[:, ::1] boxes not None,
    const float[::1] scores not None,
    const int32_t[::1] labels not None,
    *,
    method,
    float iou,
    float sigma,
    float conf,
    max_det,
):
    """Suppresses overlapping boxes within each class: hard or soft-NMS (arXiv 1704.04503).

    Args:
        boxes: float32 (n, 4), x1 y1 x2 y2 in any unit; those with a non-finite value are left out.
        scores: float32 (n,), in [0, 1]; those below conf or not finite are left out.
        labels: int32 (n,), any integers; boxes of different labels do not meet.
        method: "hard" drops a box, "linear" multiplies its score by 1 - IoU, both where IoU > iou;
            "gaussian" multiplies it by exp(-IoU^2 / sigma).
        iou: Overlap above which hard and linear act, in [0, 1].
        sigma: Width of gaussian, > 0.
        conf: Boxes whose score falls below it are dropped.
        max_det: Most boxes returned over all classes, the best.

    Returns:
        Indices int32 (m,) into boxes and final scores float32 (m,), by descending final score,
        ties by index.

    Raises:
        ValueError: A shape does not fit, or an option is unknown or out of range.
    """
    if method not in _METHODS:
        raise ValueError(f"method must be one of {', '.join(_METHODS)}, got {method!r}")
    n = scores.shape[0]
    _check_shape("boxes", (boxes.shape[0], boxes.shape[1]), (n, 4))
    _check_shape("labels", (labels.shape[0],), (n,))
    if n > _INT32_MAX - 1:
        raise ValueError(f"scores must have fewer than {_INT32_MAX} values, got {n}")

    cdef rdl_overlap_rule rule
    rule.method = _METHODS[method]
    rule.iou = iou
    rule.sigma = sigma
    cdef int32_t limit = _at_most_int32(max_det)
    room = min(n, max(limit, 0)) + 1
    picked_array, final_array = np.empty(room, np.int32), np.empty(room, np.float32)
    cdef int32_t[::1] picked = picked_array, seen = np.empty(n + 1, np.int32)
    cdef float[::1] final = final_array
    cdef uint64_t[::1] heap = np.empty(n + 1, np.uint64)
    cdef const float *boxes_start = &boxes[0, 0] if n else NULL
    cdef const float *scores_start = &scores[0] if n else NULL
    cdef const int32_t *labels_start = &labels[0] if n else NULL
    cdef int32_t size = n, count = 0
    cdef rdl_status status
    with nogil:
        status = rdl_suppress(boxes_start, scores_start, labels_start, size, rule, conf, limit,
                              &picked[0], &final[0], &count, &heap[0], &seen[0])
    _check(status, iou=iou, sigma=sigma, conf=conf, max_det=max_det)
    return picked_array[:count].copy(), final_array[:count].copy()


def scale_boxes(const float[:, ::1] boxes not None, float width, float height):
    """Scales boxes given as fractions to pixels and clips them to the image.

    Args:
        boxes: float32 (n, 4), x1 y1 x2 y2 as fractions of the image.
        width: Of the image, pixels.
        height: Of the image, pixels.

    Returns:
        Boxes float32 (n, 4) in pixels, and bool (n,): finite, with positive width and height.

    Raises:
        ValueError: boxes has another shape.
    """
    n = boxes.shape[0]
    _check_shape("boxes", (n, boxes.shape[1]), (n, 4))
    if n > _INT32_MAX:
        raise ValueError(f"boxes must have at most {_INT32_MAX} rows, got {n}")
    out_array, keep_array = np.empty((n, 4), np.float32), np.empty(n, np.uint8)
    cdef float[:, ::1] out = out_array
    cdef uint8_t[::1] keep = keep_array
    cdef int32_t size = n
    if n:
        with nogil:
            rdl_scale(&boxes[0, 0], size, width, height, &out[0, 0], &keep[0])
    return out_array, keep_array.view(bool)
