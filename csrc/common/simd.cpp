#include "simd.h"

namespace ccfast {
namespace {

constexpr int64_t kLanes = 16;

// Sum of term(d) over d in [0, dim): term d goes to lane d % kLanes, and the lanes are added in order.
template <class Term>
inline __attribute__((always_inline)) double sum_in_lanes(int64_t dim, const Term& term) {
  double lanes[kLanes] = {};
  int64_t d = 0;
  for (; d + kLanes <= dim; d += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += term(d + lane);
  for (int64_t lane = 0; d < dim; ++d, ++lane) lanes[lane] += term(d);
  double sum = 0;
  for (int64_t lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
  return sum;
}

// Adds the upper half of 2 kHalf lanes to the lower one.
template <int64_t kHalf>
inline __attribute__((always_inline)) void fold(double* lanes) {
  for (int64_t lane = 0; lane < kHalf; ++lane) lanes[lane] += lanes[lane + kHalf];
}

template <class T>
inline __attribute__((always_inline)) double dot_in_lanes(const T* a, const T* b, int64_t dim) {
  return sum_in_lanes(dim, [=](int64_t d) { return static_cast<double>(a[d]) * static_cast<double>(b[d]); });
}

template <class T>
inline __attribute__((always_inline)) double mix_in_lanes(T* row, const T* x, T a, T b, int64_t dim) {
  return sum_in_lanes(dim, [=](int64_t d) {
    const T mixed = a * row[d] + b * x[d];
    row[d] = mixed;
    return static_cast<double>(mixed) * static_cast<double>(mixed);
  });
}

}  // namespace

CCFAST_CLONES double squared_distance(const float* a, const float* b, int64_t dim) {
  const auto square = [=](int64_t d) {
    const double difference = static_cast<double>(a[d]) - static_cast<double>(b[d]);
    return difference * difference;
  };
  double lanes[kDistanceLanes];
  const int64_t width = dim > 64 ? 128 : dim > 32 ? 64 : 32;  // the other lanes are 0
  for (int64_t first = 0; first < width; first += kLanes) {   // as many at a time as stay in registers
    double sums[kLanes] = {};
    int64_t d = first;
    for (; d + kLanes <= dim; d += kDistanceLanes)
      for (int64_t lane = 0; lane < kLanes; ++lane) sums[lane] += square(d + lane);
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[first + lane] = sums[lane];
    for (int64_t lane = 0; d + lane < dim; ++lane) lanes[first + lane] += square(d + lane);
  }
  if (width > 64) fold<64>(lanes);
  if (width > 32) fold<32>(lanes);
  fold<16>(lanes);
  fold<8>(lanes);
  fold<4>(lanes);
  return ((lanes[0] + lanes[1]) + lanes[2]) + lanes[3];
}

CCFAST_CLONES double dot(const float* a, const float* b, int64_t dim) { return dot_in_lanes(a, b, dim); }
CCFAST_CLONES double dot(const double* a, const double* b, int64_t dim) { return dot_in_lanes(a, b, dim); }

CCFAST_CLONES double mix(float* row, const float* x, float a, float b, int64_t dim) {
  return mix_in_lanes(row, x, a, b, dim);
}
CCFAST_CLONES double mix(double* row, const double* x, double a, double b, int64_t dim) {
  return mix_in_lanes(row, x, a, b, dim);
}

}  // namespace ccfast
