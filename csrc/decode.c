/* From network outputs to candidates: objectness gate, lazy softmax, two-step box decoding. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "rdlite_core.h"
#include "vector.h"

static double logit(double p)
{
    return log(p) - log1p(-p);
}

static bool is_probability(float p)
{
    return p >= 0.0f && p <= 1.0f;
}

rdl_status rdl_gate(const rdl_refinedet *net, float objectness, int32_t *survivors, int32_t *count,
                    int32_t *nonfinite)
{
    *count = *nonfinite = 0;
    if (net->anchors < 0 || net->classes < 2)
        return RDL_BAD_COUNT;
    if (!is_probability(objectness))
        return RDL_BAD_THRESHOLD;
    const double threshold = logit(objectness);
    int32_t passed = 0, finite = 0;
    for (int32_t a = 0; a < net->anchors; a++) {
        const float *logits = net->arm_conf + 2 * (int64_t)a;
        const double evidence = (double)logits[1] - logits[0];
        const bool usable = evidence - evidence == 0.0; /* NaN where a logit is not finite */
        finite += usable;
        survivors[passed] = a; /* overwritten by the next one if this does not pass */
        passed += usable && evidence >= threshold;
    }
    *count = passed;
    *nonfinite = net->anchors - finite;
    return RDL_OK;
}

/* Some anchors at a time go through one step after the other. The branches that no CPU can predict,
 * those on whether a class is likely, then find what they depend on computed long before. */
enum { BATCH = 32, AHEAD = 48 };

typedef struct {
    int32_t n;
    int32_t anchor[BATCH];
    float best[BATCH]; /* foreground logit */
    float sum[BATCH];  /* of exps, and background's */
    float *exps;       /* a row for each anchor: exp(logit - top), top being its best of all logits */
    int64_t stride;    /* of a row, a multiple of 16 */
} batch;

static int64_t stride_of(int64_t classes)
{
    return (classes - 1 + 15) / 16 * 16;
}

size_t rdl_decode_bytes(int32_t classes)
{
    return classes < 2 ? 0 : (size_t)stride_of(classes) * BATCH * sizeof(float);
}

static inline const float *logits_of(const rdl_refinedet *net, int32_t anchor)
{
    return net->odm_conf + (int64_t)anchor * net->classes;
}

/* Asks for logits that are in no cache after the network, long before they are read. */
INLINE void prefetch(const rdl_refinedet *net, int32_t anchor)
{
    for (int32_t k = 0; k < net->classes; k += 16)
        PREFETCH(logits_of(net, anchor) + k);
}

/* Largest of n logits, and whether all are finite: the exponent of a float that is not finite has
 * all bits set. The pragmas (-fopenmp-simd, no OpenMP runtime) allow the steps of a reduction to be
 * reordered; without that compilers must run it one element at a time. */
INLINE float max_of(const float *x, int32_t n, bool *finite)
{
    const int32_t exponent = 0x7f800000;
    float best = -INFINITY;
    int32_t largest = 0;
#pragma omp simd reduction(max : best) reduction(max : largest)
    for (int32_t k = 0; k < n; k++) {
        int32_t bits;
        memcpy(&bits, x + k, sizeof bits);
        bits &= exponent;
        largest = bits > largest ? bits : largest;
        best = x[k] > best ? x[k] : best;
    }
    *finite = largest < exponent;
    return best;
}

/* x - x is 0 for a finite x and NaN for any other; the sum of such differences keeps the NaN. */
INLINE bool offsets_finite(const rdl_refinedet *net, int32_t anchor)
{
    const int64_t at = 4 * (int64_t)anchor;
    const float *first = net->arm_loc + at, *second = net->odm_loc + at, *prior = net->priors + at;
    float nothing = 0.0f;
    for (int32_t k = 0; k < 4; k++)
        nothing += (first[k] - first[k]) + (second[k] - second[k]) + (prior[k] - prior[k]);
    return nothing == 0.0f;
}

/* Takes those of the next anchors, `left` in all, whose best logit exceeds background's by `bound`;
 * returns how many are left out as not finite. */
INLINE int32_t screen(const rdl_refinedet *net, const int32_t *anchors, int32_t left, float bound,
                      batch *to)
{
    const int32_t n = left < BATCH ? left : BATCH;
    int32_t usable = 0;
    to->n = 0;
    for (int32_t i = 0; i < n; i++) {
        if (i + AHEAD < left)
            prefetch(net, anchors[i + AHEAD]);
        const float *logits = logits_of(net, anchors[i]);
        bool finite;
        const float best = max_of(logits + 1, net->classes - 1, &finite);
        finite = finite && isfinite(logits[0]) && offsets_finite(net, anchors[i]);
        usable += finite;
        to->anchor[to->n] = anchors[i];
        to->best[to->n] = best;
        to->n += finite && best - logits[0] >= bound;
    }
    return n - usable;
}

/* exp(x - top), which is exp(-87), 1.6e-38, where it would be less. */
INLINE float exp_below(float x, float top)
{
    const float below = x - top;
    return exp_float(below < -87.0f ? -87.0f : below);
}

INLINE float exps_below(const float *restrict x, int32_t n, float top, float *restrict exps)
{
    for (int32_t k = 0; k < n; k++)
        exps[k] = exp_below(x[k], top);
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int32_t k = 0; k < n; k++)
        sum += exps[k];
    return sum;
}

/* The softmax of each anchor, but for the division by the sum. */
INLINE void exponentiate(const rdl_refinedet *net, batch *of)
{
    for (int32_t i = 0; i < of->n; i++) {
        const float *logits = logits_of(net, of->anchor[i]);
        const float top = of->best[i] > logits[0] ? of->best[i] : logits[0];
        float *exps = of->exps + i * of->stride;
        of->sum[i] = exps_below(logits + 1, net->classes - 1, top, exps);
        of->sum[i] += exp_below(logits[0], top);
    }
}

/* Writes the candidates of one anchor; returns how many. */
INLINE int32_t list_likely(const rdl_refinedet *net, const batch *of, int32_t i, float conf,
                           float *scores, int32_t *labels)
{
    const float *exps = of->exps + i * of->stride, scale = 1.0f / of->sum[i];
    /* From a shade below, for rounding. */
    const float limit = conf * of->sum[i] * (1.0f - 1e-6f);
    int32_t added = 0;
    for (int32_t first = 0, left = net->classes - 1; left > 0; first += 16, left -= 16) {
        uint32_t likely = reaching_of_16(exps + first, limit);
        likely &= left < 16 ? (1u << left) - 1 : UINT32_MAX;
        for (; likely; likely &= likely - 1) {
            const int32_t c = first + lowest_bit(likely);
            scores[added] = exps[c] * scale;
            labels[added] = c;
            added += scores[added] >= conf && net->allowed[c];
        }
    }
    return added;
}

/* One step of centre-size decoding (SSD, arXiv 1512.02325, section 2.2, inverted). `growth`: the
 * exponentials of the offsets of width and height. */
INLINE void apply_offsets(const float *offsets, float variance_xy, const float *growth,
                                 float box[4])
{
    for (int32_t axis = 0; axis < 2; axis++) {
        box[axis] += offsets[axis] * variance_xy * box[axis + 2];
        box[axis + 2] *= growth[axis];
    }
}

/* exp(x), 0 below -87 and infinity above 88.3, which is next to where floats end. */
INLINE float growth_of(float x)
{
    const float least = -87.0f, most = 88.3f;
    const float growth = exp_float(x < least ? least : x > most ? most : x);
    return x < least ? 0.0f : x > most ? INFINITY : growth;
}

/* Decodes the boxes of the listed anchors. Four exponentials a box, all in one loop first. */
INLINE void decode_boxes(const rdl_refinedet *net, const int32_t *listed, int32_t n,
                                float *boxes)
{
    for (int64_t row = 0; row < n; row++) {
        const int64_t anchor = listed[row];
        for (int32_t axis = 0; axis < 2; axis++) {
            boxes[4 * row + axis] = net->arm_loc[4 * anchor + 2 + axis];
            boxes[4 * row + 2 + axis] = net->odm_loc[4 * anchor + 2 + axis];
        }
    }
    const float variance = net->variance_wh;
    for (int64_t i = 0; i < 4 * (int64_t)n; i++)
        boxes[i] = growth_of(boxes[i] * variance);
    for (int64_t row = 0; row < n; row++) {
        const int64_t anchor = listed[row];
        float *corners = boxes + 4 * row, box[4];
        memcpy(box, net->priors + 4 * anchor, sizeof box);
        apply_offsets(net->arm_loc + 4 * anchor, net->variance_xy, corners, box);
        apply_offsets(net->odm_loc + 4 * anchor, net->variance_xy, corners + 2, box);
        for (int32_t axis = 0; axis < 2; axis++) {
            corners[axis] = box[axis] - 0.5f * box[axis + 2];
            corners[axis + 2] = box[axis] + 0.5f * box[axis + 2];
        }
    }
}

/* Removes the candidates whose box is not finite; returns how many boxes that are. */
INLINE int32_t drop_nonfinite(const float *boxes, int32_t n, rdl_candidates list,
                                     int32_t *candidates)
{
    int32_t bad = 0;
    for (int32_t row = 0; row < n; row++)
        bad += !box_finite(boxes + 4 * (int64_t)row);
    if (bad == 0)
        return 0;
    int32_t kept = 0;
    for (int32_t i = 0; i < *candidates; i++) {
        list.scores[kept] = list.scores[i];
        list.labels[kept] = list.labels[i];
        list.rows[kept] = list.rows[i];
        kept += box_finite(boxes + 4 * (int64_t)list.rows[i]);
    }
    *candidates = kept;
    return bad;
}

FOR_EACH_CPU
rdl_status rdl_decode(const rdl_refinedet *net, int32_t *survivors, int32_t count, float conf,
                      float *boxes, rdl_candidates out, int32_t *candidates, void *scratch,
                      int32_t *nonfinite)
{
    *candidates = *nonfinite = 0;
    if (count < 0 || net->classes < 2)
        return RDL_BAD_COUNT;
    if (!is_probability(conf))
        return RDL_BAD_THRESHOLD;
    /* A probability is exp(x) / sum(exp) <= 1 / (1 + exp(background - x)): it cannot reach conf where
     * x exceeds background by less than this. From a shade below conf, for rounding. */
    const float bound = (float)logit(conf * (1.0 - 1e-4));
    batch now = {.exps = scratch, .stride = stride_of(net->classes)};
    int32_t rows = 0, end = 0;
    for (int32_t first = 0; first < count; first += BATCH) {
        *nonfinite += screen(net, survivors + first, count - first, bound, &now);
        exponentiate(net, &now);
        for (int32_t i = 0; i < now.n; i++) {
            const int32_t added =
                list_likely(net, &now, i, conf, out.scores + end, out.labels + end);
            for (int32_t k = 0; k < added; k++)
                out.rows[end + k] = rows;
            survivors[rows] = now.anchor[i];
            rows += added > 0;
            end += added;
        }
    }
    decode_boxes(net, survivors, rows, boxes);
    *nonfinite += drop_nonfinite(boxes, rows, out, &end);
    *candidates = end;
    return RDL_OK;
}
