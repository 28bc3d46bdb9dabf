/* Decoding and suppression of detections, in plain C.
 *
 * Every function is pure: it reads its inputs, writes only where its arguments point, keeps no
 * state and allocates nothing, so any number of threads may call it at once. Arrays are
 * C-contiguous and may be NULL only where their length is 0. The caller passes all scratch memory.
 *
 * A, K: anchors and classes of the network, class 0 being background. C = K - 1: foreground
 * classes. Boxes are x1 y1 x2 y2. "Finite" means neither NaN nor infinite.
 */
#ifndef RDLITE_CORE_H
#define RDLITE_CORE_H

#include <stddef.h>
#include <stdint.h>

typedef enum {
    RDL_OK = 0,
    RDL_BAD_THRESHOLD, /* a probability or IoU outside [0, 1], or NaN */
    RDL_BAD_SIGMA,     /* sigma not positive, or not finite */
    RDL_BAD_COUNT,     /* a negative size, or fewer than two classes */
    RDL_BAD_INDEX,     /* outside the array that it points into */
} rdl_status;

/* What a network gave for one image, as logits and encoded offsets. */
typedef struct {
    int32_t anchors;        /* A */
    int32_t classes;        /* K >= 2 */
    const float *arm_loc;   /* (A, 4) offsets from anchor to refined anchor: x y w h */
    const float *arm_conf;  /* (A, 2) logits: background, object */
    const float *odm_loc;   /* (A, 4) offsets from refined anchor to box */
    const float *odm_conf;  /* (A, K) class logits */
    const float *priors;    /* (A, 4) anchors: cx cy w h, as fractions of the input */
    const uint8_t *allowed; /* (C) non-zero: the class may become a candidate */
    float variance_xy;
    float variance_wh;
} rdl_refinedet;

/* Candidates, one per (box, class) pair, as parallel arrays. */
typedef struct {
    float *scores;   /* in [0, 1] */
    int32_t *labels; /* foreground class, 0 .. C-1 */
    int32_t *rows;   /* row of the box in the table that came with the candidates */
} rdl_candidates;

typedef enum { RDL_HARD = 0, RDL_LINEAR = 1, RDL_GAUSSIAN = 2 } rdl_method;

/* What an overlap with a better box does to a score, see rdl_suppress. */
typedef struct {
    rdl_method method;
    float iou;   /* in [0, 1]; hard and linear */
    float sigma; /* > 0; gaussian */
} rdl_overlap_rule;

/* Lists the anchors whose object probability reaches `objectness`, in ascending order.
 * The probability is never computed: sigmoid(d) >= p exactly when d >= ln(p / (1 - p)).
 * An anchor with a non-finite objectness logit is not listed but counted in *nonfinite.
 * survivors: room for A. */
rdl_status rdl_gate(const rdl_refinedet *net, float objectness, int32_t *survivors, int32_t *count,
                    int32_t *nonfinite);

/* Decodes the listed anchors in RefineDet's two steps and writes a candidate for every allowed
 * class whose softmax probability reaches `conf`, by anchor and then by class.
 * An anchor with a non-finite input (anchor, offsets, any class logit) gives no candidate and adds
 * one to *nonfinite; so does one that has a candidate and a non-finite box.
 * survivors: the `count` anchors; afterwards those that have a row in `boxes`.
 * boxes: room for (count, 4), a row for each anchor with a candidate.
 * out: room for count * C, which must fit int32. scratch: rdl_decode_bytes, aligned for float. */
rdl_status rdl_decode(const rdl_refinedet *net, int32_t *survivors, int32_t count, float conf,
                      float *boxes, rdl_candidates out, int32_t *candidates, void *scratch,
                      int32_t *nonfinite);
size_t rdl_decode_bytes(int32_t classes);

/* Lists the `top_k` best candidates of each class in *order: by class, then by ascending index.
 * Of equal ones at the limit, those with the lower index are kept. Scores are finite and >= 0,
 * labels lie in [0, classes).
 * order: room for n. scores: scratch, room for n. starts: scratch, room for classes + 1. */
rdl_status rdl_top_k(rdl_candidates candidates, int32_t n, int32_t classes, int32_t top_k,
                     int32_t *order, int32_t *kept, float *scores, int32_t *starts);

/* Copies the n candidates listed in `order`: boxes (n, 4), scores (n), labels (n). */
void rdl_take(const float *boxes, rdl_candidates from, const int32_t *order, int32_t n,
              float *out_boxes, float *out_scores, int32_t *out_labels);

/* Greedy suppression within each class; keeps the best `max_det` over all classes.
 *
 * Again and again the best remaining candidate (ties: the lower index) is picked, and every
 * remaining one of its class is weakened by its overlap with the pick:
 *   hard:     dropped               where IoU > iou
 *   linear:   s <- s * (1 - IoU)    where IoU > iou    (Bodla et al., arXiv 1704.04503, section 3)
 *   gaussian: s <- s * exp(-IoU^2 / sigma)             (same)
 * and dropped where s < conf. Candidates below conf or not finite are left out from the start.
 * Boxes may be reversed or empty: their area, and any overlap with them, is 0.
 * Overlaps and factors are computed in double, scores rounded to float after every pick.
 *
 * labels: any; quickest where equal ones lie together.
 * picked, final: room for min(n, max_det): indices and final scores, by descending final score.
 * scratch: `bytes`, which rdl_suppress_bytes gives, aligned for double. */
rdl_status rdl_suppress(const float *boxes, const float *scores, const int32_t *labels, int32_t n,
                        rdl_overlap_rule rule, float conf, int32_t max_det, int32_t *picked,
                        float *final, int32_t *count, void *scratch, size_t bytes);
size_t rdl_suppress_bytes(const int32_t *labels, int32_t n);

/* Multiplies the boxes of n picks, finite fractions of the image, by its size, clips them to the
 * image and leaves out those without width or height; *kept is how many are written.
 * boxes, labels: of all candidates. scores: of the picks. Outputs: room for n each.
 * RDL_BAD_INDEX where a pick is no candidate. */
rdl_status rdl_place(const float *boxes, const float *scores, const int32_t *labels,
                     int32_t candidates, const int32_t *picked, int32_t n, float width,
                     float height, float *out_boxes, float *out_scores, int64_t *out_labels,
                     int32_t *kept);

#endif
