// Inner loops over contiguous rows. Reductions run in a fixed number of lanes that are added in a fixed order, so that
// a result does not depend on the vector width the compiler or the machine chose. The build turns fused multiply-adds
// off (-ffp-contract=off), because not all machines have them.
#pragma once

#include <cstdint>

// Compiles a function once per instruction set and picks one at load time: a package built on one machine runs on any.
// By features, not by "arch=", which matches one processor model only: all others would run the default.
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__)
#define CCFAST_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CCFAST_CLONES
#endif

namespace ccfast {

// Sum over d of (a[d] - b[d])^2 in float64, added in the order that docs/exactness.md defines for all devices:
// dimension d goes to lane d % kDistanceLanes; the upper half of the lanes is added to the lower one until four are
// left; these are added in order. Each operation is rounded once, never fused.
constexpr int64_t kDistanceLanes = 128;
double squared_distance(const float* a, const float* b, int64_t dim);
// Sum over d of a[d] * b[d], accumulated in float64.
double dot(const float* a, const float* b, int64_t dim);
double dot(const double* a, const double* b, int64_t dim);
// row = a * row + b * x; returns the new sum of squares, accumulated in float64.
double mix(float* row, const float* x, float a, float b, int64_t dim);
double mix(double* row, const double* x, double a, double b, int64_t dim);

}  // namespace ccfast
