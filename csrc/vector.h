/* What lets the compiler turn the kernels' loops into vector instructions. Internal to csrc. */
#ifndef RDLITE_VECTOR_H
#define RDLITE_VECTOR_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#if defined(__SSE2__) || defined(_M_X64)
#define HAS_SSE2
#include <emmintrin.h>
#endif

/* Compiled for wider vectors as well, chosen when the library is loaded: everything takes half the
 * time. The sanitizers cannot follow such a choice. */
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define FOR_EACH_CPU __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_CPU
#endif

/* INLINE: a function that is not inlined would be compiled for the oldest CPU only.
 * PREFETCH: asks for the memory at an address, without waiting. */
#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#define INLINE static __forceinline
#ifdef HAS_SSE2
#define PREFETCH(address) _mm_prefetch((const char *)(address), _MM_HINT_T0)
#else
#define PREFETCH(address) __prefetch(address)
#endif
#else
#define INLINE static inline __attribute__((always_inline))
#define PREFETCH(address) __builtin_prefetch(address)
#endif

/* Index of the lowest bit that is set; one is. */
INLINE int32_t lowest_bit(uint32_t bits)
{
#if defined(_MSC_VER) && !defined(__clang__)
    unsigned long index;
    _BitScanForward(&index, bits);
    return (int32_t)index;
#else
    return __builtin_ctz(bits);
#endif
}

INLINE bool box_finite(const float box[4])
{
    return isfinite(box[0]) && isfinite(box[1]) && isfinite(box[2]) && isfinite(box[3]);
}

/* Bit k: x[k] >= limit, for 16 numbers. Compilers do not find the instruction that does this. */
INLINE uint32_t reaching_of_16(const float *x, float limit)
{
    uint32_t bits = 0;
#ifdef HAS_SSE2
    for (int32_t k = 0; k < 16; k += 4) {
        const __m128 reached = _mm_cmpge_ps(_mm_loadu_ps(x + k), _mm_set1_ps(limit));
        bits |= (uint32_t)_mm_movemask_ps(reached) << k;
    }
#else
    for (int32_t k = 0; k < 16; k++)
        bits |= (uint32_t)(x[k] >= limit) << k;
#endif
    return bits;
}

/* exp(x): within 1 ulp for every float in [-87, 88.3]; not for others.
 * libm's expf is a call per element; this is straight-line arithmetic that compilers vectorise.
 * x = n ln 2 + r with |r| <= ln 2 / 2; polynomial of exp(r) - 1 - r from Cephes (S. Moshier). */
INLINE float exp_float(float x)
{
    const float to_integer = 12582912.0f; /* 1.5 * 2^23: adding it rounds to the nearest integer */
    const float shifted = x * 1.44269504f + to_integer;
    const float n = shifted - to_integer;
    const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
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

/* exp(x) for x <= 0: within 1e-14 of its value for x in [-708, 0]; below -708 it is exp(-708).
 * As exp_float, with the Taylor polynomial of degree 11. */
INLINE double exp_nonpositive(double x)
{
    const double to_integer = 6755399441055744.0; /* 1.5 * 2^52 */
    x = x < -708.0 ? -708.0 : x;
    const double shifted = x * 1.4426950408889634 + to_integer;
    const double n = shifted - to_integer;
    const double r = (x - n * 6.93147180369123816490e-1) - n * 1.90821492927058770002e-10;
    double p = 1.0 / 39916800;
    p = p * r + 1.0 / 3628800;
    p = p * r + 1.0 / 362880;
    p = p * r + 1.0 / 40320;
    p = p * r + 1.0 / 5040;
    p = p * r + 1.0 / 720;
    p = p * r + 1.0 / 120;
    p = p * r + 1.0 / 24;
    p = p * r + 1.0 / 6;
    p = p * r + 0.5;
    p = p * r * r + r + 1.0;
    uint64_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 1023u) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

#endif
