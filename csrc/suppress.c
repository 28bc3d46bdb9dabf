/* From candidates to detections: best per class, suppression of overlaps, scaling to the image. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "rdlite_core.h"

/* One integer orders candidates: a higher score first, then a lower index. The bits of non-negative
 * floats sort like the floats themselves; adding 0 turns -0.0, the one exception, into 0.0. */
static uint64_t make_key(float score, int32_t index)
{
    score += 0.0f;
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    return (uint64_t)bits << 32 | (UINT32_MAX - (uint32_t)index);
}

static float key_score(uint64_t key)
{
    const uint32_t bits = (uint32_t)(key >> 32);
    float score;
    memcpy(&score, &bits, sizeof score);
    return score;
}

static int32_t key_index(uint64_t key)
{
    return (int32_t)(UINT32_MAX - (uint32_t)key);
}

/* Max-heap of keys: selects and sorts in place, where libc's qsort may allocate. */
static void sift_down(uint64_t *heap, int32_t n, int32_t hole)
{
    const uint64_t key = heap[hole];
    for (;;) {
        int64_t child = 2 * (int64_t)hole + 1;
        if (child >= n)
            break;
        if (child + 1 < n && heap[child + 1] > heap[child])
            child++;
        if (heap[child] <= key)
            break;
        heap[hole] = heap[child];
        hole = (int32_t)child;
    }
    heap[hole] = key;
}

static void make_heap(uint64_t *heap, int32_t n)
{
    for (int32_t i = n / 2; i-- > 0;)
        sift_down(heap, n, i);
}

static void pop(uint64_t *heap, int32_t *n)
{
    heap[0] = heap[--*n];
    if (*n > 0)
        sift_down(heap, *n, 0);
}

rdl_status rdl_top_k(rdl_candidates candidates, int32_t n, int32_t classes, int32_t top_k,
                     int32_t *order, int32_t *kept, uint64_t *keys, int32_t *starts)
{
    *kept = 0;
    if (n < 0 || classes < 0 || top_k < 0)
        return RDL_BAD_COUNT;
    /* Counting sort by class: starts[c] is the end of class c and, filled backwards, its start. */
    memset(starts, 0, ((size_t)classes + 1) * sizeof *starts);
    for (int32_t i = 0; i < n; i++)
        starts[candidates.labels[i]]++;
    for (int32_t c = 1; c <= classes; c++)
        starts[c] += starts[c - 1];
    for (int32_t i = n; i-- > 0;)
        keys[--starts[candidates.labels[i]]] = make_key(candidates.scores[i], i);
    for (int32_t c = 0; c < classes; c++) {
        uint64_t *heap = keys + starts[c];
        int32_t size = starts[c + 1] - starts[c];
        make_heap(heap, size);
        for (int32_t taken = 0; taken < top_k && size > 0; taken++) {
            order[(*kept)++] = key_index(heap[0]);
            pop(heap, &size);
        }
    }
    return RDL_OK;
}

static double extent(double low, double high)
{
    return high > low ? high - low : 0.0;
}

static double area(const float box[4])
{
    return extent(box[0], box[2]) * extent(box[1], box[3]);
}

/* In double, where a product of finite floats cannot overflow: never NaN, always in [0, 1]. */
static double overlap(const float a[4], const float b[4])
{
    const double width = extent(fmax(a[0], b[0]), fmin(a[2], b[2]));
    const double height = extent(fmax(a[1], b[1]), fmin(a[3], b[3]));
    const double shared = width * height;
    return shared > 0.0 ? shared / (area(a) + area(b) - shared) : 0.0;
}

static const float DROPPED = -1.0f; /* below every conf */

static float weaken(float score, double iou, const rdl_overlap_rule *rule)
{
    if (iou == 0.0)
        return score;
    if (rule->method == RDL_GAUSSIAN)
        return (float)(score * exp(-iou * iou / rule->sigma));
    if (iou <= rule->iou)
        return score;
    return rule->method == RDL_LINEAR ? (float)(score * (1.0 - iou)) : DROPPED;
}

static bool box_finite(const float box[4])
{
    return isfinite(box[0]) && isfinite(box[1]) && isfinite(box[2]) && isfinite(box[3]);
}

static rdl_status check(int32_t n, const rdl_overlap_rule *rule, float conf, int32_t max_det)
{
    if (n < 0 || max_det < 0)
        return RDL_BAD_COUNT;
    if (!(rule->iou >= 0.0f && rule->iou <= 1.0f) || !(conf >= 0.0f && conf <= 1.0f))
        return RDL_BAD_THRESHOLD;
    return rule->sigma > 0.0f && isfinite(rule->sigma) ? RDL_OK : RDL_BAD_SIGMA;
}

/* Scores only fall, so a stale score is an upper bound. The best of the heap is brought up to date
 * with the picks it has not seen; if its score stands it is the next pick, exactly as if all had
 * been updated after every pick. What does not come to the top before max_det is reached is never
 * compared with anything. */
rdl_status rdl_suppress(const float *boxes, const float *scores, const int32_t *labels, int32_t n,
                        rdl_overlap_rule rule, float conf, int32_t max_det, int32_t *picked,
                        float *final, int32_t *count, uint64_t *heap, int32_t *seen)
{
    *count = 0;
    const rdl_status status = check(n, &rule, conf, max_det);
    if (status != RDL_OK)
        return status;
    int32_t left = 0;
    for (int32_t i = 0; i < n; i++) {
        seen[i] = 0;
        if (scores[i] >= conf && isfinite(scores[i]) && box_finite(boxes + 4 * (int64_t)i))
            heap[left++] = make_key(scores[i], i);
    }
    make_heap(heap, left);
    while (left > 0 && *count < max_det) {
        const int32_t i = key_index(heap[0]);
        const float before = key_score(heap[0]);
        float score = before;
        const float *box = boxes + 4 * (int64_t)i;
        for (; seen[i] < *count && score >= conf; seen[i]++) {
            const int32_t pick = picked[seen[i]];
            if (labels[pick] == labels[i])
                score = weaken(score, overlap(boxes + 4 * (int64_t)pick, box), &rule);
        }
        if (score < conf) {
            pop(heap, &left);
        } else if (score < before) {
            heap[0] = make_key(score, i);
            sift_down(heap, left, 0);
        } else {
            picked[*count] = i;
            final[(*count)++] = score;
            pop(heap, &left);
        }
    }
    return RDL_OK;
}

static float clip(float x, float limit)
{
    return x < 0.0f ? 0.0f : x > limit ? limit : x;
}

void rdl_scale(const float *boxes, int32_t n, float width, float height, float *out, uint8_t *keep)
{
    for (int64_t i = 0; i < n; i++) {
        const float *in = boxes + 4 * i;
        float *box = out + 4 * i;
        for (int32_t j = 0; j < 4; j++) {
            const float limit = j % 2 ? height : width;
            box[j] = clip(in[j] * limit, limit);
        }
        keep[i] = box_finite(in) && box[2] > box[0] && box[3] > box[1];
    }
}
