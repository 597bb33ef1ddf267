#include <algorithm>
#include <atomic>
#include <vector>

#include "../common/exp.h"
#include "../common/parallel.h"
#include "../common/simd.h"
#include "sinkhorn.h"

namespace ccfast::sinkhorn {
namespace {

constexpr int64_t kLanes = 8;
constexpr int64_t kChunk = 64;  // rows whose column sums are added up separately

struct Nothing {};

// out = exp(row * sharpness), also added to sums; returns whether the whole row is finite.
template <class T>
inline __attribute__((always_inline)) bool exponentiate_row(const T* row, int64_t count, T sharpness, T* out,
                                                            double* sums) {
  int bad = 0;
  for (int64_t j = 0; j < count; ++j) bad |= !(row[j] - row[j] == 0);
  if (bad) return false;
  for (int64_t j = 0; j < count; ++j) out[j] = fast_exp(row[j] * sharpness);
  for (int64_t j = 0; j < count; ++j) sums[j] += out[j];
  return true;
}
CCFAST_CLONES bool exponentiate_of(const float* row, int64_t count, float sharpness, float* out, double* sums) {
  return exponentiate_row(row, count, sharpness, out, sums);
}
CCFAST_CLONES bool exponentiate_of(const double* row, int64_t count, double sharpness, double* out, double* sums) {
  return exponentiate_row(row, count, sharpness, out, sums);
}

template <class T>
inline __attribute__((always_inline)) double scaled_sum(const T* row, const double* factors, int64_t count) {
  double lanes[kLanes] = {};
  int64_t j = 0;
  for (; j + kLanes <= count; j += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) lanes[lane] += row[j + lane] * factors[j + lane];
  for (; j < count; ++j) lanes[0] += row[j] * factors[j];
  double sum = 0;
  for (const double lane : lanes) sum += lane;
  return sum;
}
CCFAST_CLONES double sum_of(const float* row, const double* factors, int64_t count) {
  return scaled_sum(row, factors, count);
}
CCFAST_CLONES double sum_of(const double* row, const double* factors, int64_t count) {
  return scaled_sum(row, factors, count);
}

template <class T>
inline __attribute__((always_inline)) void add_scaled(const T* row, double factor, int64_t count, double* sums) {
  for (int64_t j = 0; j < count; ++j) sums[j] += row[j] * factor;
}
CCFAST_CLONES void add(const float* row, double factor, int64_t count, double* sums) {
  add_scaled(row, factor, count, sums);
}
CCFAST_CLONES void add(const double* row, double factor, int64_t count, double* sums) {
  add_scaled(row, factor, count, sums);
}

// sums[j] = what body(row, sums of the row's chunk) adds over all rows, chunk by chunk: the same bits for any number of
// threads.
template <class Body>
void sum_over_rows(int64_t rows, int64_t columns, double* sums, const Body& body) {
  std::vector<double> partial((rows + kChunk - 1) / kChunk * columns, 0.0);
  parallel_chunks(
      rows, kChunk, [] { return Nothing{}; },
      [&](Nothing&, int64_t chunk, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) body(i, partial.data() + chunk * columns);
      });
  std::fill(sums, sums + columns, 0.0);
  for (size_t first = 0; first < partial.size(); first += columns)
    for (int64_t j = 0; j < columns; ++j) sums[j] += partial[first + j];
}

}  // namespace

template <class T>
int64_t exponentiate(const ExpParams<T>& params) {
  std::atomic<int64_t> first_bad{params.rows};
  const T sharpness = static_cast<T>(1 / params.epsilon);
  sum_over_rows(params.rows, params.columns, params.sums, [&](int64_t i, double* sums) {
    const int64_t begin = i * params.columns;
    if (exponentiate_of(params.scores + begin, params.columns, sharpness, params.exponentials + begin, sums)) return;
    int64_t seen = first_bad;
    while (i < seen && !first_bad.compare_exchange_weak(seen, i)) {
    }
  });
  return first_bad == params.rows ? -1 : first_bad.load();
}

template <class T>
void column_sums(const ScaledParams<T>& params, double* sums) {
  sum_over_rows(params.rows, params.columns, sums, [&](int64_t i, double* partial) {
    const T* row = params.exponentials + i * params.columns;
    add(row, 1 / sum_of(row, params.factors, params.columns), params.columns, partial);
  });
}

template <class T>
void assign(const ScaledParams<T>& params, T* assignment) {
  parallel_for(params.rows, kChunk, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const T* row = params.exponentials + i * params.columns;
      T* out = assignment + i * params.columns;
      const double factor = 1 / sum_of(row, params.factors, params.columns);
      for (int64_t j = 0; j < params.columns; ++j) out[j] = static_cast<T>(row[j] * params.factors[j] * factor);
    }
  });
}

template int64_t exponentiate(const ExpParams<float>&);
template int64_t exponentiate(const ExpParams<double>&);
template void column_sums(const ScaledParams<float>&, double*);
template void column_sums(const ScaledParams<double>&, double*);
template void assign(const ScaledParams<float>&, float*);
template void assign(const ScaledParams<double>&, double*);

}  // namespace ccfast::sinkhorn
