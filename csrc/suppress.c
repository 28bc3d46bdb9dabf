/* From candidates to detections: best per class, suppression of overlaps, scaling to the image. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "rdlite_core.h"
#include "vector.h"

/* The k-th largest of n scores, all finite and >= 0, k <= n. The bits of such floats sort like the
 * floats, so the answer is found bit by bit: counting vectorises where sorting does not. */
INLINE float kth_largest(const float *scores, int32_t n, int32_t k)
{
    uint32_t found = 0;
    for (uint32_t bit = 1u << 30; bit; bit >>= 1) {
        const uint32_t trial = found | bit;
        float limit;
        memcpy(&limit, &trial, sizeof limit);
        int32_t reached = 0;
        for (int32_t i = 0; i < n; i++)
            reached += scores[i] >= limit;
        found = reached >= k ? trial : found;
    }
    float score;
    memcpy(&score, &found, sizeof score);
    return score;
}

/* Keeps the k best of n candidates, ties in favour of the first, in the order they have; k < n.
 * scores: theirs. */
INLINE void keep_best(const float *scores, int32_t n, int32_t k, const int32_t *from,
                             int32_t *to)
{
    const float limit = kth_largest(scores, n, k);
    int32_t ties = k, kept = 0;
    for (int32_t i = 0; i < n; i++)
        ties -= scores[i] > limit;
    for (int32_t i = 0; i < n && kept < k; i++) {
        to[kept] = from[i];
        if (scores[i] > limit || (scores[i] == limit && ties-- > 0))
            kept++;
    }
}

FOR_EACH_CPU
rdl_status rdl_top_k(rdl_candidates candidates, int32_t n, int32_t classes, int32_t top_k,
                     int32_t *order, int32_t *kept, float *scores, int32_t *starts)
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
    for (int32_t i = n; i-- > 0;) {
        const int32_t place = --starts[candidates.labels[i]];
        order[place] = i;
        scores[place] = candidates.scores[i];
    }
    for (int32_t c = 0; c < classes; c++) {
        const int32_t start = starts[c], size = starts[c + 1] - start;
        const int32_t wanted = size < top_k ? size : top_k;
        if (wanted < size && wanted > 0)
            keep_best(scores + start, size, wanted, order + start, order + *kept);
        else
            memmove(order + *kept, order + start, (size_t)wanted * sizeof *order);
        *kept += wanted;
    }
    return RDL_OK;
}

void rdl_take(const float *boxes, rdl_candidates from, const int32_t *order, int32_t n,
              float *out_boxes, float *out_scores, int32_t *out_labels)
{
    for (int64_t i = 0; i < n; i++) {
        const int32_t candidate = order[i];
        memcpy(out_boxes + 4 * i, boxes + 4 * (int64_t)from.rows[candidate], 4 * sizeof *boxes);
        out_scores[i] = from.scores[candidate];
        out_labels[i] = from.labels[candidate];
    }
}

/* A score below every conf; no factor brings it back. */
static const float DROPPED = -INFINITY;

enum { LANES = 16 };

/* Some neighbours of one label, as columns: a pick meets all of them at once. Lanes that hold no
 * usable candidate are DROPPED and have an empty box, which overlaps with nothing. Areas and
 * overlaps are in double, where a product of finite floats cannot overflow. */
typedef struct {
    double area[LANES];
    float x1[LANES], y1[LANES], x2[LANES], y2[LANES];
    float score[LANES];
    int32_t first; /* index of lane 0 */
    int32_t label;
    int32_t seen; /* how many picks the scores have met */
} block;

/* One integer orders blocks: a higher score first, then a lower index. The bits of non-negative
 * floats sort like the floats themselves. */
static uint64_t make_key(float score, int32_t index)
{
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

static int32_t piece_end(const int32_t *labels, int32_t n, int32_t start)
{
    int32_t end = start + 1;
    while (end < n && end - start < LANES && labels[end] == labels[start])
        end++;
    return end;
}

static int32_t count_pieces(const int32_t *labels, int32_t n)
{
    int32_t count = 0;
    for (int32_t start = 0; start < n; start = piece_end(labels, n, start))
        count++;
    return count;
}

size_t rdl_suppress_bytes(const int32_t *labels, int32_t n)
{
    return (size_t)count_pieces(labels, n) * (sizeof(block) + sizeof(uint64_t));
}

INLINE double extent(double low, double high)
{
    return high > low ? high - low : 0.0;
}

INLINE double area_of(const float box[4])
{
    return extent(box[0], box[2]) * extent(box[1], box[3]);
}

INLINE void set_lane(block *to, int32_t lane, const float box[4], float score)
{
    to->x1[lane] = box[0];
    to->y1[lane] = box[1];
    to->x2[lane] = box[2];
    to->y2[lane] = box[3];
    to->area[lane] = area_of(box);
    to->score[lane] = score + 0.0f; /* -0.0, which sorts differently, becomes 0.0 */
}

INLINE void fill(block *to, const float *boxes, const float *scores, int32_t n, float conf)
{
    static const float nowhere[4] = {0};
    for (int32_t lane = 0; lane < LANES; lane++) {
        const bool usable = lane < n && scores[lane] >= conf && isfinite(scores[lane]) &&
                            box_finite(boxes + 4 * lane);
        set_lane(to, lane, usable ? boxes + 4 * lane : nowhere, usable ? scores[lane] : DROPPED);
    }
}

INLINE float best_of(const block *of)
{
    int32_t best = -1; /* the bits of scores sort like scores, those of DROPPED are negative */
#pragma omp simd reduction(max : best)
    for (int32_t lane = 0; lane < LANES; lane++) {
        int32_t bits;
        memcpy(&bits, of->score + lane, sizeof bits);
        best = bits > best ? bits : best;
    }
    float score;
    memcpy(&score, &best, sizeof score);
    return best < 0 ? DROPPED : score;
}

static int32_t first_with(const block *of, float score)
{
    int32_t lane = 0;
    while (of->score[lane] != score)
        lane++;
    return lane;
}

/* Whether a box overlaps with any of a block. */
INLINE bool touches(const block *of, const float box[4])
{
    const float x1 = box[0], y1 = box[1], x2 = box[2], y2 = box[3];
    int32_t touching = 0;
#pragma omp simd reduction(| : touching)
    for (int32_t i = 0; i < LANES; i++)
        touching |= (of->x1[i] < x2) & (of->x2[i] > x1) & (of->y1[i] < y2) & (of->y2[i] > y1);
    return touching;
}

INLINE void overlaps(const block *of, const float box[4], double iou[LANES])
{
    const float x1 = box[0], y1 = box[1], x2 = box[2], y2 = box[3];
    const double area = area_of(box);
#pragma omp simd
    for (int32_t i = 0; i < LANES; i++) {
        const float left = of->x1[i] > x1 ? of->x1[i] : x1;
        const float right = of->x2[i] < x2 ? of->x2[i] : x2;
        const float top = of->y1[i] > y1 ? of->y1[i] : y1;
        const float bottom = of->y2[i] < y2 ? of->y2[i] : y2;
        const double shared = extent(left, right) * extent(top, bottom);
        iou[i] = shared > 0.0 ? shared / (area + of->area[i] - shared) : 0.0;
    }
}

INLINE void weaken(float score[LANES], const double iou[LANES], const rdl_overlap_rule *rule)
{
    const double per_sigma = 1.0 / rule->sigma, limit = rule->iou;
    if (rule->method == RDL_GAUSSIAN) {
#pragma omp simd
        for (int32_t i = 0; i < LANES; i++)
            score[i] = (float)(score[i] * exp_nonpositive(-(iou[i] * iou[i]) * per_sigma));
    } else if (rule->method == RDL_LINEAR) {
#pragma omp simd
        for (int32_t i = 0; i < LANES; i++)
            score[i] = iou[i] > limit ? (float)(score[i] * (1.0 - iou[i])) : score[i];
    } else {
#pragma omp simd
        for (int32_t i = 0; i < LANES; i++)
            score[i] = iou[i] > limit ? DROPPED : score[i];
    }
}

/* Brings the scores of a block up to date with one pick of its label. */
INLINE void meet(block *of, const float box[4], const rdl_overlap_rule *rule, float conf)
{
    if (!touches(of, box))
        return;
    double iou[LANES];
    overlaps(of, box, iou);
    weaken(of->score, iou, rule);
#pragma omp simd
    for (int32_t i = 0; i < LANES; i++)
        of->score[i] = of->score[i] >= conf ? of->score[i] : DROPPED;
}

static rdl_status check(int32_t n, const rdl_overlap_rule *rule, float conf, int32_t max_det)
{
    if (n < 0 || max_det < 0)
        return RDL_BAD_COUNT;
    if (!(rule->iou >= 0.0f && rule->iou <= 1.0f) || !(conf >= 0.0f && conf <= 1.0f))
        return RDL_BAD_THRESHOLD;
    return rule->sigma > 0.0f && isfinite(rule->sigma) ? RDL_OK : RDL_BAD_SIGMA;
}

/* Makes the blocks that hold anything usable, and their heap; returns how many. */
INLINE int32_t make_blocks(const float *boxes, const float *scores, const int32_t *labels,
                           int32_t n, float conf, block *blocks, uint64_t *heap, int32_t room)
{
    int32_t count = 0;
    /* Labels that another thread changes meanwhile may lie in more pieces than there is room. */
    for (int32_t start = 0, end; start < n && count < room; start = end) {
        end = piece_end(labels, n, start);
        block *now = blocks + count;
        fill(now, boxes + 4 * (int64_t)start, scores + start, end - start, conf);
        now->first = start;
        now->label = labels[start];
        now->seen = 0;
        const float best = best_of(now);
        if (best >= conf) {
            heap[count] = make_key(best, count);
            count++;
        }
    }
    for (int32_t i = count / 2; i-- > 0;)
        sift_down(heap, count, i);
    return count;
}

/* Scores only fall, so a stale score is an upper bound. The block with the best score is brought up
 * to date with the picks it has not seen; if its score stands it holds the next pick, exactly as if
 * all had been updated after every pick. What does not come to the top before max_det is reached is
 * never compared with anything. */
FOR_EACH_CPU
rdl_status rdl_suppress(const float *boxes, const float *scores, const int32_t *labels, int32_t n,
                        rdl_overlap_rule rule, float conf, int32_t max_det, int32_t *picked,
                        float *final, int32_t *count, void *scratch, size_t bytes)
{
    *count = 0;
    const rdl_status status = check(n, &rule, conf, max_det);
    if (status != RDL_OK)
        return status;
    block *blocks = scratch;
    const int32_t room = (int32_t)(bytes / (sizeof *blocks + sizeof(uint64_t)));
    uint64_t *heap = (uint64_t *)(blocks + room);
    int32_t left = make_blocks(boxes, scores, labels, n, conf, blocks, heap, room);
    while (left > 0 && *count < max_det) {
        const int32_t index = key_index(heap[0]);
        block *top = blocks + index;
        for (; top->seen < *count; top->seen++) {
            const int32_t pick = picked[top->seen];
            if (labels[pick] == top->label)
                meet(top, boxes + 4 * (int64_t)pick, &rule, conf);
        }
        float best = best_of(top);
        if (best == key_score(heap[0])) {
            const int32_t lane = first_with(top, best);
            picked[*count] = top->first + lane;
            final[(*count)++] = best;
            top->score[lane] = DROPPED;
            best = best_of(top);
        }
        heap[0] = best >= conf ? make_key(best, index) : heap[--left];
        if (left > 0)
            sift_down(heap, left, 0);
    }
    return RDL_OK;
}

INLINE float clip(float x, float limit)
{
    return x < 0.0f ? 0.0f : x > limit ? limit : x;
}

rdl_status rdl_place(const float *boxes, const float *scores, const int32_t *labels,
                     int32_t candidates, const int32_t *picked, int32_t n, float width,
                     float height, float *out_boxes, float *out_scores, int64_t *out_labels,
                     int32_t *kept)
{
    *kept = 0;
    for (int32_t i = 0; i < n; i++) {
        const int32_t pick = picked[i]; /* read once: another thread may change it */
        if (pick < 0 || pick >= candidates)
            return RDL_BAD_INDEX;
        const float *in = boxes + 4 * (int64_t)pick;
        float *box = out_boxes + 4 * (int64_t)*kept;
        for (int32_t j = 0; j < 4; j++) {
            const float limit = j % 2 ? height : width;
            box[j] = clip(in[j] * limit, limit);
        }
        out_scores[*kept] = scores[i];
        out_labels[*kept] = labels[pick];
        *kept += box[2] > box[0] && box[3] > box[1];
    }
    return RDL_OK;
}
