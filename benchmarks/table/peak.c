/* How fast one core multiplies and adds: nothing but independent vector operations on registers.
 *
 * Both functions do `rounds` times LANES operations on LANES accumulators, enough to hide the
 * latency of every core that issues two a cycle (4 cycles x 2 = 8), few enough for 16 registers.
 * Each returns the scalar operations done, a multiply-add being two; 0 when the compiler's target
 * has no such instruction. The empty asm keeps the compiler from computing anything in advance.
 */
#include <stdint.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#endif

#define LANES 12

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif

typedef float floats __attribute__((vector_size(BYTES)));

double fma_operations(int64_t rounds)
{
    floats sums[LANES] = {0}, factor = {0}, term = {0};
    factor += 0.5f;
    term += 1.0f;
    for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
        for (int i = 0; i < LANES; ++i) {
            sums[i] = sums[i] * factor + term;
#if defined(__x86_64__)
            __asm__ volatile("" : "+x"(sums[i]));
#else
            __asm__ volatile("" : "+w"(sums[i]));
#endif
        }
    }
    return 2.0 * (BYTES / 4) * LANES * (double)rounds;
}

/* Dot products of four uint8 (int8 on Arm) with four int8, added to int32: a lane does four. */
#if defined(__AVX512VNNI__)
typedef __m512i words;
#define DOT(sum, a, b) _mm512_dpbusd_epi32(sum, a, b)
#elif defined(__AVXVNNI__)
typedef __m256i words;
#define DOT(sum, a, b) _mm256_dpbusd_avx_epi32(sum, a, b)
#elif defined(__ARM_FEATURE_DOTPROD)
typedef int32x4_t words;
#define DOT(sum, a, b) vdotq_s32(sum, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b))
#endif

double int8_operations(int64_t rounds)
{
#if defined(DOT)
    words sums[LANES] = {0}, a = {1}, b = {1};
    for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 12
        for (int i = 0; i < LANES; ++i) {
            sums[i] = DOT(sums[i], a, b);
#if defined(__x86_64__)
            __asm__ volatile("" : "+x"(sums[i]));
#else
            __asm__ volatile("" : "+w"(sums[i]));
#endif
        }
    }
    return 2.0 * sizeof(words) * LANES * (double)rounds;
#else
    (void)rounds;
    return 0.0;
#endif
}
