"""Compiled kernels on numpy arrays: decoding, suppression, scaling.

csrc/rdlite_core.h says what they compute. Every function checks shapes, allocates its results,
releases the GIL around the C code and keeps no state. A wrong dtype, number of dimensions or memory
layout is a ValueError from the buffer protocol itself.

They run just after a network that has pushed everything else out of the caches, so what counts is
how much code one call touches: scratch memory is malloc's, not numpy's.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc

import numpy as np

cdef extern from "rdlite_core.h" nogil:
    ctypedef enum rdl_status:
        RDL_OK
        RDL_BAD_THRESHOLD
        RDL_BAD_SIGMA
        RDL_BAD_COUNT
        RDL_BAD_INDEX
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
    rdl_status rdl_decode(const rdl_refinedet *net, int32_t *survivors, int32_t count, float conf,
                          float *boxes, rdl_candidates out, int32_t *candidates,
                          void *scratch, int32_t *nonfinite) noexcept
    size_t rdl_decode_bytes(int32_t classes) noexcept
    rdl_status rdl_top_k(rdl_candidates candidates, int32_t n, int32_t classes, int32_t top_k,
                         int32_t *order, int32_t *kept, float *scores, int32_t *starts) noexcept
    void rdl_take(const float *boxes, rdl_candidates source, const int32_t *order, int32_t n,
                  float *out_boxes, float *out_scores, int32_t *out_labels) noexcept
    rdl_status rdl_suppress(const float *boxes, const float *scores, const int32_t *labels,
                            int32_t n, rdl_overlap_rule rule, float conf, int32_t max_det,
                            int32_t *picked, float *final, int32_t *count, void *scratch,
                            size_t bytes) noexcept
    size_t rdl_suppress_bytes(const int32_t *labels, int32_t n) noexcept
    rdl_status rdl_place(const float *boxes, const float *scores, const int32_t *labels,
                         int32_t candidates, const int32_t *picked, int32_t n, float width,
                         float height, float *out_boxes, float *out_scores, int64_t *out_labels,
                         int32_t *kept) noexcept

_METHODS = {"hard": RDL_HARD, "linear": RDL_LINEAR, "gaussian": RDL_GAUSSIAN}
_INT32_MAX = 2**31 - 1
_STATUS = {
    RDL_BAD_THRESHOLD: "objectness, conf and iou must be in [0, 1]",
    RDL_BAD_SIGMA: "sigma must be positive and finite",
    RDL_BAD_COUNT: "top_k and max_det must not be negative, and odm_conf needs two classes or more",
}


cdef class _Room:
    """Scratch memory, freed with the object."""

    cdef void *start

    def __cinit__(self, size_t size):
        self.start = malloc(size if size else 1)
        if self.start == NULL:
            raise MemoryError(f"no memory for {size} bytes of scratch")

    def __dealloc__(self):
        free(self.start)


def _check(status, **given):
    if status != RDL_OK:
        values = ", ".join(f"{name}={value}" for name, value in given.items())
        raise ValueError(f"{_STATUS[status]}; got {values}")


def _check_shape(name, shape, wanted):
    if shape != wanted:
        raise ValueError(f"{name} must have shape {wanted}, got {shape}")


def _at_most_int32(value):
    """Clamps a count: "no limit" may be any large integer, -1 stands for all that are refused."""
    return max(min(int(value), _INT32_MAX), -1)


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
        (n,); labels int32 (n,), foreground class from 0; all sorted by class, then by anchor. And
        the number of anchors removed as something they need was NaN or infinite.

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
    cdef _Room survivors = _Room(n * sizeof(int32_t))
    with nogil:
        status = rdl_gate(&net, objectness, <int32_t *>survivors.start, &count, &gate_nonfinite)
    _check(status, objectness=objectness, classes=k)

    cdef Py_ssize_t capacity = count * (k - 1)
    cdef _Room boxes = _Room(sizeof(float) * 4 * count)
    cdef _Room listed = _Room(capacity * (sizeof(float) + 2 * sizeof(int32_t)))
    cdef _Room scratch = _Room(rdl_decode_bytes(net.classes))
    cdef rdl_candidates out
    out.scores = <float *>listed.start
    out.labels = <int32_t *>(out.scores + capacity)
    out.rows = out.labels + capacity
    with nogil:
        status = rdl_decode(&net, <int32_t *>survivors.start, count, conf, <float *>boxes.start,
                            out, &found, scratch.start, &nonfinite)
    _check(status, conf=conf)

    cdef _Room order = _Room(found * sizeof(int32_t)), starts = _Room(k * sizeof(int32_t))
    cdef _Room grouped = _Room(found * sizeof(float))
    cdef int32_t limit = _at_most_int32(top_k)
    with nogil:
        status = rdl_top_k(out, found, net.classes - 1, limit, <int32_t *>order.start, &kept,
                           <float *>grouped.start, <int32_t *>starts.start)
    _check(status, top_k=top_k)

    best = np.empty((kept, 4), np.float32), np.empty(kept, np.float32), np.empty(kept, np.int32)
    cdef float[:, ::1] best_boxes = best[0]
    cdef float[::1] best_scores = best[1]
    cdef int32_t[::1] best_labels = best[2]
    if kept:
        with nogil:
            rdl_take(<float *>boxes.start, out, <int32_t *>order.start, kept, &best_boxes[0, 0],
                     &best_scores[0], &best_labels[0])
    return (*best, gate_nonfinite + nonfinite)


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
        labels: int32 (n,), any integers; boxes of different labels do not meet. Quickest where
            equal ones lie together.
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
    most = min(n, max(limit, 0))
    # One element more than needed: an address can then be taken when there are none.
    picked_array, final_array = np.empty(most + 1, np.int32), np.empty(most + 1, np.float32)
    cdef int32_t[::1] picked = picked_array
    cdef float[::1] final = final_array
    cdef const float *boxes_start = &boxes[0, 0] if n else NULL
    cdef const float *scores_start = &scores[0] if n else NULL
    cdef const int32_t *labels_start = &labels[0] if n else NULL
    cdef int32_t size = n, count = 0
    cdef size_t room = rdl_suppress_bytes(labels_start, size)
    cdef _Room scratch = _Room(room)
    cdef rdl_status status
    with nogil:
        status = rdl_suppress(boxes_start, scores_start, labels_start, size, rule, conf, limit,
                              &picked[0], &final[0], &count, scratch.start, room)
    _check(status, iou=iou, sigma=sigma, conf=conf, max_det=max_det)
    return picked_array[:count], final_array[:count]


def place(
    const float[:, ::1] boxes not None,
    const int32_t[::1] labels not None,
    const int32_t[::1] picked not None,
    const float[::1] scores not None,
    float width,
    float height,
):
    """Puts what suppression picked into the image: pixels, clipped, without empty boxes.

    Args:
        boxes: float32 (n, 4) of the candidates, x1 y1 x2 y2 as fractions of the image, finite
            where picked.
        labels: int32 (n,) of the candidates.
        picked: int32 (m,), indices into both.
        scores: float32 (m,) of the picks.
        width: Of the image, pixels.
        height: Of the image, pixels.

    Returns:
        Boxes float32 (k, 4) in pixels, with positive width and height; scores float32 (k,) and
        labels int64 (k,); in the order of the picks, k <= m.

    Raises:
        ValueError: A shape does not fit, or an index is out of range.
    """
    n, m = labels.shape[0], picked.shape[0]
    _check_shape("boxes", (boxes.shape[0], boxes.shape[1]), (n, 4))
    _check_shape("scores", (scores.shape[0],), (m,))
    if m > _INT32_MAX:
        raise ValueError(f"picked must have at most {_INT32_MAX} values, got {m}")
    if n > _INT32_MAX:
        raise ValueError(f"labels must have at most {_INT32_MAX} values, got {n}")
    cdef int32_t candidates = n, size = m, kept = 0
    cdef rdl_status status
    placed = np.empty((m, 4), np.float32), np.empty(m, np.float32), np.empty(m, np.int64)
    cdef float[:, ::1] xyxy = placed[0]
    cdef float[::1] confidence = placed[1]
    cdef int64_t[::1] class_id = placed[2]
    if m and not n:
        raise ValueError(f"picked must hold indices below {n}, got {picked[0]}")
    if m:
        with nogil:
            status = rdl_place(&boxes[0, 0], &scores[0], &labels[0], candidates, &picked[0], size,
                               width, height, &xyxy[0, 0], &confidence[0], &class_id[0], &kept)
        if status != RDL_OK:
            wrong = np.asarray(picked)
            wrong = wrong[(wrong < 0) | (wrong >= n)].tolist()
            raise ValueError(f"picked must hold indices below {n}, got {wrong}")
    return placed[0][:kept], placed[1][:kept], placed[2][:kept]
