/* From network outputs to candidates: objectness gate, two-step box decoding, lazy softmax. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "rdlite_core.h"

/* Compiled for wider vectors as well, chosen when the library is loaded: the softmax of a thousand
 * anchors takes half the time. The sanitizers cannot follow such a choice. */
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define FOR_EACH_CPU __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_CPU
#endif

/* The pragmas (-fopenmp-simd, no OpenMP runtime) allow the steps of one reduction to be reordered;
 * without that compilers must run it one element at a time. */
static inline float max_of(const float *x, int32_t n)
{
    float best = -INFINITY;
#pragma omp simd reduction(max : best)
    for (int32_t k = 0; k < n; k++)
        best = x[k] > best ? x[k] : best;
    return best;
}

static inline float sum_of(const float *x, int32_t n)
{
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int32_t k = 0; k < n; k++)
        sum += x[k];
    return sum;
}

/* x - x is 0 for a finite x and NaN for any other; the sum of such differences keeps the NaN. */
static inline bool all_finite(const float *x, int32_t n)
{
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int32_t k = 0; k < n; k++)
        sum += x[k] - x[k];
    return sum == 0.0f;
}

static inline bool four_finite(const float x[4])
{
    return isfinite(x[0]) && isfinite(x[1]) && isfinite(x[2]) && isfinite(x[3]);
}

/* exp(x) for x <= 0: within 1 ulp for every float in [-87, 0]; below -87 it is exp(-87), 1.6e-38.
 * libm's expf is a call per element; this is straight-line arithmetic that compilers vectorise.
 * x = n ln 2 + r with |r| <= ln 2 / 2; polynomial of exp(r) - 1 - r from Cephes (S. Moshier). */
static inline float exp_nonpositive(float x)
{
    const float to_integer = 12582912.0f; /* 1.5 * 2^23: adding it rounds to the nearest integer */
    x = x < -87.0f ? -87.0f : x;
    float shifted = x * 1.44269504f + to_integer;
    float n = shifted - to_integer;
    float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127u) << 23; /* the low bits of `shifted` hold n: this is 2^n */
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

static inline void exps_below(float top, const float *restrict x, int32_t n, float *restrict out)
{
    for (int32_t k = 0; k < n; k++)
        out[k] = exp_nonpositive(x[k] - top);
}

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
    for (int32_t a = 0; a < net->anchors; a++) {
        const float *logits = net->arm_conf + 2 * (int64_t)a;
        if (!isfinite(logits[0]) || !isfinite(logits[1]))
            ++*nonfinite;
        else if ((double)logits[1] - logits[0] >= threshold)
            survivors[(*count)++] = a;
    }
    return RDL_OK;
}

/* One step of centre-size decoding (SSD, arXiv 1512.02325, section 2.2, inverted). */
static void apply_offsets(const rdl_refinedet *net, const float *offsets, float box[4])
{
    for (int32_t axis = 0; axis < 2; axis++) {
        box[axis] += offsets[axis] * net->variance_xy * box[axis + 2];
        box[axis + 2] *= expf(offsets[axis + 2] * net->variance_wh);
    }
}

static void decode_box(const rdl_refinedet *net, int64_t anchor, float corners[4])
{
    float box[4];
    memcpy(box, net->priors + 4 * anchor, sizeof box);
    apply_offsets(net, net->arm_loc + 4 * anchor, box);
    apply_offsets(net, net->odm_loc + 4 * anchor, box);
    for (int32_t axis = 0; axis < 2; axis++) {
        corners[axis] = box[axis] - 0.5f * box[axis + 2];
        corners[axis + 2] = box[axis] + 0.5f * box[axis + 2];
    }
}

enum { BLOCK = 16 };

/* Writes the candidates of one anchor; returns how many. `bound`: no probability reaches conf where
 * the best class's logit exceeds the background's by less, as p <= sigmoid(difference). */
static inline int32_t classify(const rdl_refinedet *net, const float *logits, float conf, float bound,
                        float *exps, float *scores, int32_t *labels)
{
    const int32_t foreground = net->classes - 1;
    const float best = max_of(logits + 1, foreground);
    if (best - logits[0] < bound)
        return 0;
    const float top = best > logits[0] ? best : logits[0];
    exps_below(top, logits, net->classes, exps);
    const float scale = 1.0f / sum_of(exps, net->classes);
    if (max_of(exps + 1, foreground) * scale < conf)
        return 0;
    int32_t added = 0;
    for (int32_t block = 0; block < foreground; block += BLOCK) {
        const int32_t size = foreground - block < BLOCK ? foreground - block : BLOCK;
        if (max_of(exps + 1 + block, size) * scale < conf)
            continue; /* most blocks hold no class that is likely enough */
        for (int32_t c = block; c < block + size; c++) {
            const float score = exps[c + 1] * scale;
            if (score >= conf && net->allowed[c]) {
                scores[added] = score;
                labels[added++] = c;
            }
        }
    }
    return added;
}

static inline bool inputs_finite(const rdl_refinedet *net, int64_t anchor)
{
    return all_finite(net->odm_conf + anchor * net->classes, net->classes) &&
           four_finite(net->arm_loc + 4 * anchor) && four_finite(net->odm_loc + 4 * anchor) &&
           four_finite(net->priors + 4 * anchor);
}

FOR_EACH_CPU
rdl_status rdl_decode(const rdl_refinedet *net, const int32_t *survivors, int32_t count, float conf,
                      float *boxes, rdl_candidates out, int32_t *candidates, float *exps,
                      int32_t *nonfinite)
{
    *candidates = *nonfinite = 0;
    if (count < 0 || net->classes < 2)
        return RDL_BAD_COUNT;
    if (!is_probability(conf))
        return RDL_BAD_THRESHOLD;
    /* From a shade below conf: rounding in the softmax must not keep what the bound rejects. */
    const float bound = (float)logit(conf * (1.0 - 1e-4));
    for (int32_t row = 0; row < count; row++) {
        const int64_t anchor = survivors[row];
        if (!inputs_finite(net, anchor)) {
            ++*nonfinite;
            continue;
        }
        const int32_t end = *candidates;
        const float *logits = net->odm_conf + anchor * net->classes;
        const int32_t added =
            classify(net, logits, conf, bound, exps, out.scores + end, out.labels + end);
        if (added == 0)
            continue;
        float *box = boxes + 4 * (int64_t)row;
        decode_box(net, anchor, box);
        if (!four_finite(box)) {
            ++*nonfinite;
            continue;
        }
        for (int32_t i = 0; i < added; i++)
            out.rows[end + i] = row;
        *candidates += added;
    }
    return RDL_OK;
}
