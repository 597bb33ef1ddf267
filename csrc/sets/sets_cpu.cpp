#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "../common/exp.h"
#include "../common/parallel.h"
#include "../common/simd.h"
#include "sets.h"

namespace ccfast::sets {
namespace {

constexpr int64_t kLanes = 16;
constexpr int64_t kSerialWork = 1 << 14;

int64_t row_grain(int64_t columns) { return std::max<int64_t>(1, kSerialWork / std::max<int64_t>(columns, 1)); }

// How often each column of row i counts in the sum: 0 where it is not kept.
template <class T>
void fill_shares(const Columns<T>& in, int64_t i, T* shares) {
  const int64_t offset = i * in.columns;
  if (in.multiplicity)
    for (int64_t j = 0; j < in.columns; ++j) shares[j] = static_cast<T>(in.multiplicity[offset + j]);
  else
    std::fill(shares, shares + in.columns, T{1});
  if (in.keep)
    for (int64_t j = 0; j < in.columns; ++j) shares[j] = in.keep[offset + j] ? shares[j] : T{0};
}

template <class T>
inline __attribute__((always_inline)) T highest_in_lanes(const T* row, const T* shares, int64_t count) {
  constexpr T kLowest = -std::numeric_limits<T>::infinity();
  T lanes[kLanes];
  for (T& lane : lanes) lane = kLowest;
  int64_t j = 0;
  for (; j + kLanes <= count; j += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const T value = shares[j + lane] > 0 ? row[j + lane] : kLowest;
      lanes[lane] = lanes[lane] < value ? value : lanes[lane];
    }
  for (; j < count; ++j) lanes[0] = shares[j] > 0 && lanes[0] < row[j] ? row[j] : lanes[0];
  return *std::max_element(lanes, lanes + kLanes);
}

// share * exp(value - highest); columns that are not kept may be above the highest of the kept ones.
template <class T>
inline __attribute__((always_inline)) T term(T value, T share, T highest) {
  const T below = value - highest;
  return share * exp_of_negative(below < 0 ? below : T{0});
}

template <class T>
inline __attribute__((always_inline)) double sum_in_lanes(const T* row, const T* shares, int64_t count, T highest) {
  T lanes[kLanes] = {};
  int64_t j = 0;
  for (; j + kLanes <= count; j += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += term(row[j + lane], shares[j + lane], highest);
  for (; j < count; ++j) lanes[0] += term(row[j], shares[j], highest);
  double sum = 0;
  for (const T lane : lanes) sum += lane;
  return sum;
}

CCFAST_CLONES float highest_of(const float* row, const float* shares, int64_t count) {
  return highest_in_lanes(row, shares, count);
}
CCFAST_CLONES double highest_of(const double* row, const double* shares, int64_t count) {
  return highest_in_lanes(row, shares, count);
}
CCFAST_CLONES double sum_of(const float* row, const float* shares, int64_t count, float highest) {
  return sum_in_lanes(row, shares, count, highest);
}
CCFAST_CLONES double sum_of(const double* row, const double* shares, int64_t count, double highest) {
  return sum_in_lanes(row, shares, count, highest);
}

// out = factor * (softmax - positive / count), row by row, in two loops that compilers turn into vector code.
template <class T>
inline __attribute__((always_inline)) void gradient_in_lanes(const T* row, const T* shares, const bool* positives,
                                                             int64_t count, T log_sum, T factor, T pull, T* out) {
  for (int64_t j = 0; j < count; ++j) out[j] = term(row[j], shares[j], log_sum) * factor;
  for (int64_t j = 0; j < count; ++j) out[j] -= positives[j] ? pull : T{0};
}

CCFAST_CLONES void gradient_of(const float* row, const float* shares, const bool* positives, int64_t count,
                               float log_sum, float factor, float pull, float* out) {
  gradient_in_lanes(row, shares, positives, count, log_sum, factor, pull, out);
}
CCFAST_CLONES void gradient_of(const double* row, const double* shares, const bool* positives, int64_t count,
                               double log_sum, double factor, double pull, double* out) {
  gradient_in_lanes(row, shares, positives, count, log_sum, factor, pull, out);
}

template <class T>
void row_loss(const LossParams<T>& params, int64_t i, T* shares) {
  const Columns<T>& in = params.in;
  const T* row = in.logits + i * in.columns;
  const bool* positives = in.positives + i * in.columns;
  fill_shares(in, i, shares);
  const T highest = highest_of(row, shares, in.columns);
  const bool kept = std::any_of(shares, shares + in.columns, [](T share) { return share > 0; });
  int64_t count = 0;
  double sum = 0;
  for (int64_t j = 0; j < in.columns; ++j)
    if (positives[j]) {
      ++count;
      sum += row[j];
    }
  const bool counts = kept && count > 0;
  const double log_sum = kept ? highest + std::log(sum_of(row, shares, in.columns, highest)) : 0;
  params.log_sums[i] = log_sum;
  params.counts[i] = counts ? count : 0;
  params.losses[i] = counts ? static_cast<T>(log_sum - sum / static_cast<double>(count)) : T{0};
}

template <class T>
void row_backward(const BackwardParams<T>& params, int64_t i, T* shares) {
  const Columns<T>& in = params.in;
  T* out = params.gradient + i * in.columns;
  if (params.counts[i] == 0) {
    std::fill(out, out + in.columns, T{0});
    return;
  }
  fill_shares(in, i, shares);
  const T factor = params.upstream[i], pull = factor / static_cast<T>(params.counts[i]);
  gradient_of(in.logits + i * in.columns, shares, in.positives + i * in.columns, in.columns,
              static_cast<T>(params.log_sums[i]), factor, pull, out);
}

template <class Params, class Row>
void for_each_row(const Params& params, const Row& row) {
  parallel_for(params.in.rows, row_grain(params.in.columns), [&](int64_t begin, int64_t end) {
    std::vector<std::remove_const_t<std::remove_pointer_t<decltype(params.in.logits)>>> shares(params.in.columns);
    for (int64_t i = begin; i < end; ++i) row(params, i, shares.data());
  });
}

}  // namespace

template <class T>
void loss(const LossParams<T>& params) {
  for_each_row(params, row_loss<T>);
}

template <class T>
void backward(const BackwardParams<T>& params) {
  for_each_row(params, row_backward<T>);
}

template void loss(const LossParams<float>&);
template void loss(const LossParams<double>&);
template void backward(const BackwardParams<float>&);
template void backward(const BackwardParams<double>&);

}  // namespace ccfast::sets
