#include <algorithm>
#include <cmath>
#include <limits>

#include "../common/exp.h"
#include "../common/parallel.h"
#include "../common/simd.h"
#include "contrastive.h"

namespace ccfast::contrastive {
namespace {

constexpr int64_t kLanes = 16;
constexpr int64_t kSerialWork = 1 << 15;

int64_t row_grain(int64_t columns) { return std::max<int64_t>(1, kSerialWork / std::max<int64_t>(columns, 1)); }

template <class T>
inline __attribute__((always_inline)) T highest_in_lanes(const T* row, int64_t count) {
  T lanes[kLanes];
  for (T& lane : lanes) lane = row[0];
  int64_t j = 0;
  for (; j + kLanes <= count; j += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane)
      lanes[lane] = lanes[lane] < row[j + lane] ? row[j + lane] : lanes[lane];
  for (; j < count; ++j) lanes[0] = lanes[0] < row[j] ? row[j] : lanes[0];
  return *std::max_element(lanes, lanes + kLanes);
}

// row[j] = exp((row[j] - highest) * sharpness); returns the sum.
template <class T>
inline __attribute__((always_inline)) double exponentiate_in_lanes(T* row, int64_t count, T highest, T sharpness) {
  T lanes[kLanes] = {};
  int64_t j = 0;
  for (; j + kLanes <= count; j += kLanes)
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      row[j + lane] = exp_of_negative((row[j + lane] - highest) * sharpness);
      lanes[lane] += row[j + lane];
    }
  for (; j < count; ++j) {
    row[j] = exp_of_negative((row[j] - highest) * sharpness);
    lanes[0] += row[j];
  }
  double sum = 0;
  for (const T lane : lanes) sum += lane;
  return sum;
}

CCFAST_CLONES float highest_of(const float* row, int64_t count) { return highest_in_lanes(row, count); }
CCFAST_CLONES double highest_of(const double* row, int64_t count) { return highest_in_lanes(row, count); }
CCFAST_CLONES double exponentiate(float* row, int64_t count, float highest, float sharpness) {
  return exponentiate_in_lanes(row, count, highest, sharpness);
}
CCFAST_CLONES double exponentiate(double* row, int64_t count, double highest, double sharpness) {
  return exponentiate_in_lanes(row, count, highest, sharpness);
}

template <class T>
double mean_of(const T* row, int64_t count) {
  double sum = 0;
  for (int64_t j = 0; j < count; ++j) sum += row[j];
  return sum / static_cast<double>(count);
}

template <class T>
void row_loss(const SoftmaxParams<T>& params, int64_t i) {
  T* row = params.logits + i * params.stride;
  const int64_t label = params.labels[i];
  if (label == params.ignore_index) {
    params.losses[i] = 0;
    if (params.with_gradient) std::fill(row, row + params.classes, T{0});
    return;
  }
  const double sharpness = 1 / params.temperature, smoothing = params.label_smoothing;
  const T highest = highest_of(row, params.classes);
  double target = (1 - smoothing) * (row[label] - highest);
  if (smoothing > 0) target += smoothing * (mean_of(row, params.classes) - highest);
  const double sum = exponentiate(row, params.classes, highest, static_cast<T>(sharpness));
  params.losses[i] = static_cast<T>(std::log(sum) - target * sharpness);
  if (!params.with_gradient) return;
  const double factor = params.weights[i * params.weight_stride] * sharpness;
  const T scale = static_cast<T>(factor / sum), uniform = static_cast<T>(factor * smoothing / params.classes);
  for (int64_t j = 0; j < params.classes; ++j) row[j] = row[j] * scale - uniform;
  row[label] -= static_cast<T>(factor * (1 - smoothing));
}

// One row of a loss with targets, a mask or a temperature per column.
template <class T>
struct TargetRow {
  const T* targets;
  const T* sharpness;
  const bool* mask;
  int64_t label, classes;

  TargetRow(const SoftmaxParams<T>& params, const TargetParams<T>& extra, int64_t i)
      : targets(extra.targets ? extra.targets + i * params.classes : nullptr),
        sharpness(extra.sharpness),
        mask(extra.mask ? extra.mask + i * params.classes : nullptr),
        label(targets ? -1 : params.labels[i]),
        classes(params.classes) {}

  bool takes_part(int64_t j) const { return !mask || mask[j]; }
  double target(int64_t j) const { return targets ? targets[j] : j == label; }
  bool ignored(int64_t ignore_index) const {
    return targets ? std::all_of(targets, targets + classes, [](T t) { return t == 0; }) : label == ignore_index;
  }
};

// Sums over the columns that take part.
struct TargetSums {
  double target = 0, along = 0, all = 0;  // of t, of t (z - highest), of z - highest
  int64_t columns = 0;
};

template <class T>
TargetSums sums_of(const TargetRow<T>& at, const T* row, T highest, double sharpness) {
  TargetSums sums;
  for (int64_t j = 0; j < at.classes; ++j) {
    const double target = at.target(j);
    if (!at.takes_part(j)) {
      if (target != 0) sums.along = -INFINITY;
      continue;
    }
    const double below = (row[j] - highest) * sharpness;
    sums.target += target;
    if (target != 0) sums.along += target * below;
    sums.all += below;
    ++sums.columns;
  }
  return sums;
}

template <class T>
void row_loss(const SoftmaxParams<T>& params, const TargetParams<T>& extra, int64_t i) {
  T* row = params.logits + i * params.stride;
  const TargetRow<T> at(params, extra, i);
  if (at.ignored(params.ignore_index)) {
    params.losses[i] = 0;
    if (params.with_gradient) std::fill(row, row + params.classes, T{0});
    return;
  }
  const double sharpness = at.sharpness ? 1 : 1 / params.temperature, smoothing = params.label_smoothing;
  if (at.sharpness)
    for (int64_t j = 0; j < at.classes; ++j) row[j] *= at.sharpness[j];
  if (at.mask)
    for (int64_t j = 0; j < at.classes; ++j) row[j] = at.mask[j] ? row[j] : -std::numeric_limits<T>::max();
  const T highest = highest_of(row, at.classes);
  const TargetSums sums = sums_of(at, row, highest, sharpness);
  const double sum = exponentiate(row, at.classes, highest, static_cast<T>(sharpness));
  const double weight = extra.row_weights ? extra.row_weights[i] : 1;
  const double columns = static_cast<double>(std::max<int64_t>(sums.columns, 1));
  const double mass = (1 - smoothing) * sums.target + smoothing, uniform = smoothing / columns;
  const double along = (1 - smoothing) * sums.along + uniform * sums.all;
  params.losses[i] = static_cast<T>(weight * (mass * std::log(sum) - along));
  if (!params.with_gradient) return;
  const double factor = params.weights[i * params.weight_stride] * weight * sharpness;
  for (int64_t j = 0; j < at.classes; ++j) {
    const double by_logit = row[j] * (mass / sum) - (1 - smoothing) * at.target(j) - uniform;
    const double by_product = at.sharpness ? by_logit * at.sharpness[j] : by_logit;
    row[j] = at.takes_part(j) ? static_cast<T>(factor * by_product) : T{0};
  }
}

// out = x / |x| for a row whose norm has no normal reciprocal, or whose squares overflow. Returns the norm.
template <class T>
double normalize_huge_row(const T* x, int64_t dim, T* out) {
  double largest = 0, squares = 0;
  for (int64_t d = 0; d < dim; ++d) largest = std::max(largest, std::abs(static_cast<double>(x[d])));
  for (int64_t d = 0; d < dim; ++d) squares += x[d] / largest * (x[d] / largest);
  const double norm = std::sqrt(squares);
  for (int64_t d = 0; d < dim; ++d) out[d] = static_cast<T>(x[d] / largest / norm);
  return largest * norm;
}

}  // namespace

template <class T>
int64_t normalize_rows(const T* x, int64_t rows, int64_t dim, T* out, double* norms) {
  parallel_for(rows, row_grain(dim), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      norms[i] = std::sqrt(dot(x + i * dim, x + i * dim, dim));
      if (norms[i] > kLargestNorm) {
        norms[i] = normalize_huge_row(x + i * dim, dim, out + i * dim);
        continue;
      }
      const T factor = static_cast<T>(1 / std::max(norms[i], kSmallestNorm));
      for (int64_t d = 0; d < dim; ++d) out[i * dim + d] = x[i * dim + d] * factor;
    }
  });
  const double* bad = std::find_if(norms, norms + rows, [](double norm) { return !std::isfinite(norm); });
  return bad == norms + rows ? -1 : bad - norms;
}

// With n = x / |x|: dL/dx = (g - <g, n> n) / |x|. Below the smallest norm the divisor is a constant.
template <class T>
void normalize_rows_backward(T* gradient, const T* normalized, const double* norms, int64_t rows, int64_t dim) {
  parallel_for(rows, row_grain(dim), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      T* g = gradient + i * dim;
      const T* n = normalized + i * dim;
      const T along = norms[i] < kSmallestNorm ? T{0} : static_cast<T>(dot(g, n, dim));
      const T factor = static_cast<T>(1 / std::max(norms[i], kSmallestNorm));
      for (int64_t d = 0; d < dim; ++d) g[d] = (g[d] - along * n[d]) * factor;
    }
  });
}

template <class T>
void softmax_cross_entropy(const SoftmaxParams<T>& params) {
  parallel_for(params.rows, row_grain(params.classes), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) row_loss(params, i);
  });
}

template <class T>
void softmax_cross_entropy(const SoftmaxParams<T>& params, const TargetParams<T>& targets) {
  parallel_for(params.rows, row_grain(params.classes), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) row_loss(params, targets, i);
  });
}

template int64_t normalize_rows(const float*, int64_t, int64_t, float*, double*);
template int64_t normalize_rows(const double*, int64_t, int64_t, double*, double*);
template void normalize_rows_backward(float*, const float*, const double*, int64_t, int64_t);
template void normalize_rows_backward(double*, const double*, const double*, int64_t, int64_t);
template void softmax_cross_entropy(const SoftmaxParams<float>&);
template void softmax_cross_entropy(const SoftmaxParams<double>&);
template void softmax_cross_entropy(const SoftmaxParams<float>&, const TargetParams<float>&);
template void softmax_cross_entropy(const SoftmaxParams<double>&, const TargetParams<double>&);

}  // namespace ccfast::contrastive
