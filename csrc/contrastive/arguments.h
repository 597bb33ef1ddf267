// Arguments of the loss ops that every device shares.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>
#include <string>

#include "../common/checks.h"
#include "contrastive.h"

namespace ccfast::contrastive {

constexpr int64_t kLogitsAtATime = 1 << 22;  // of the B x C logits are in memory at the same time
constexpr int64_t kFewestRows = 128;         // but at least this number of rows: every block reads the memory twice

struct Options {
  double temperature;
  bool normalize, mean;
  double label_smoothing;
  int64_t ignore_index;
};

inline Options checked_options(double temperature, bool normalize, const std::string& reduction, double label_smoothing,
                               int64_t ignore_index) {
  TORCH_CHECK_VALUE(reduction == "mean" || reduction == "sum" || reduction == "none",
                    "reduction: expected one of 'mean', 'sum', 'none', got '", reduction, "'");
  return {temperature, normalize, reduction == "mean", label_smoothing, ignore_index};
}

// The optional arguments of the loss.
struct Extras {
  const std::optional<at::Tensor>& temperatures;  // [C]
  const std::optional<at::Tensor>& mask;          // [B, C]
  const std::optional<at::Tensor>& weights;       // [B]
};

inline void check_shape(const char* name, const at::Tensor& value, at::IntArrayRef expected) {
  TORCH_CHECK_VALUE(value.sizes() == expected, name, ": expected shape ", expected, ", got ", value.sizes());
}

inline void check_arguments(const at::Tensor& features, const at::Tensor& memory, const at::Tensor& labels,
                            const Extras& extras) {
  CCFAST_CHECK_DIM(features, 2);
  CCFAST_CHECK_DIM(memory, 2);
  TORCH_CHECK_VALUE(features.size(1) == memory.size(1), "memory: expected ", features.size(1),
                    " columns as in features, got ", memory.size(1));
  const int64_t rows = features.size(0), classes = memory.size(0);
  if (labels.is_floating_point()) {
    check_shape("labels", labels, {rows, classes});
  } else {
    CCFAST_CHECK_DTYPE(labels, at::kLong);
    check_shape("labels", labels, {rows});
  }
  if (extras.temperatures) check_shape("temperature", *extras.temperatures, {classes});
  if (extras.mask) {
    TORCH_CHECK_TYPE(extras.mask->scalar_type() == at::kBool, "mask: expected dtype bool, got ",
                     extras.mask->scalar_type());
    check_shape("mask", *extras.mask, {rows, classes});
  }
  if (extras.weights) check_shape("weights", *extras.weights, {rows});
}

inline at::ScalarType compute_type(const at::Tensor& features) {
  return features.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// The tensors behind TargetParams, in the type the loss is computed in.
struct Targets {
  at::Tensor targets, sharpness, mask, row_weights;  // undefined if the loss has none

  Targets(const at::Tensor& labels, const Extras& extras, at::ScalarType dtype) {
    if (labels.is_floating_point()) targets = labels.to(dtype).contiguous();
    if (extras.temperatures) sharpness = extras.temperatures->to(dtype).reciprocal().contiguous();
    if (extras.mask) mask = extras.mask->contiguous();
    if (extras.weights) row_weights = extras.weights->to(at::kDouble).contiguous();
  }
  bool any() const { return targets.defined() || sharpness.defined() || mask.defined() || row_weights.defined(); }

  // For the rows from `first` on.
  template <class T>
  TargetParams<T> params(int64_t first, int64_t classes) const {
    const auto pointer = [](const at::Tensor& value, int64_t offset, auto type) {
      using Value = decltype(type);
      return value.defined() ? value.const_data_ptr<Value>() + offset : nullptr;
    };
    return {pointer(targets, first * classes, T{}), pointer(sharpness, 0, T{}), pointer(mask, first * classes, false),
            pointer(row_weights, first, double{})};
  }
};

// Rows whose logits are computed at a time.
inline int64_t rows_at_a_time(int64_t classes) {
  return std::max(kFewestRows, kLogitsAtATime / std::max<int64_t>(classes, 1));
}

}  // namespace ccfast::contrastive
