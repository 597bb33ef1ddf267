// Checks of the memory ops' arguments that every device shares.
#pragma once

#include <ATen/ATen.h>

#include <numeric>
#include <optional>
#include <string>
#include <utility>

#include "../common/checks.h"
#include "memory.h"

namespace ccfast::memory {

inline Mode mode_of(const std::string& mode) {
  if (mode == "sequential") return Mode::kSequential;
  if (mode == "hardest") return Mode::kHardest;
  if (mode == "mean") return Mode::kMean;
  if (mode == "last") return Mode::kLast;
  if (mode == "replace") return Mode::kReplace;
  if (mode == "group_first") return Mode::kGroupFirst;
  if (mode == "group_hardest") return Mode::kGroupHardest;
  if (mode == "group_mean") return Mode::kGroupMean;
  TORCH_CHECK_VALUE(mode == "group_harmonic",
                    "mode: expected one of 'sequential', 'hardest', 'mean', 'last', 'replace', 'group_first', "
                    "'group_hardest', 'group_mean', 'group_harmonic', got '",
                    mode, "'");
  return Mode::kGroupHarmonic;
}

// Whether two elements of a matrix share memory: then two updates would write to the same place.
inline bool overlaps_itself(const at::Tensor& matrix) {
  const int64_t rows = matrix.size(0), columns = matrix.size(1), down = matrix.stride(0), across = matrix.stride(1);
  if (matrix.numel() < 2) return false;
  if (rows == 1) return across == 0;
  if (columns == 1) return down == 0;
  if (down == 0 || across == 0) return true;
  const int64_t common = std::gcd(down, across);
  return across / common < rows && down / common < columns;
}

// [first, last) byte that a tensor may touch.
inline std::pair<const char*, const char*> bytes_of(const at::Tensor& value) {
  const char* first = static_cast<const char*>(value.const_data_ptr());
  int64_t last = 0;
  for (int64_t d = 0; d < value.dim(); ++d) last += (value.size(d) - 1) * value.stride(d);
  return {first, first + (value.numel() ? (last + 1) * static_cast<int64_t>(value.itemsize()) : 0)};
}

// `value` made contiguous, and copied if it shares memory with the tensor that will change.
inline at::Tensor apart_from(const at::Tensor& changing, const at::Tensor& value) {
  const auto [first, last] = bytes_of(changing);
  const auto [begin, end] = bytes_of(value);
  return begin < last && first < end ? value.clone(at::MemoryFormat::Contiguous) : value.contiguous();
}
inline at::Tensor apart_from(const at::Tensor& changing, const std::optional<at::Tensor>& value) {
  return value ? apart_from(changing, *value) : at::Tensor();
}

inline void check_rows_and_labels(const at::Tensor& features, const at::Tensor& labels) {
  CCFAST_CHECK_DIM(features, 2);
  CCFAST_CHECK_DTYPE(labels, at::kLong);
  TORCH_CHECK_VALUE(labels.dim() == 1 && labels.size(0) == features.size(0) && labels.size(0) > 0,
                    "labels: expected a non-empty [", features.size(0), "], got ", labels.sizes());
}

// Arguments that only some modes need.
struct Extras {
  const std::optional<at::Tensor>& reference;  // [C, D]
  const std::optional<at::Tensor>& groups;     // [B]
};

inline void check_extras(const at::Tensor& memory, const at::Tensor& labels, Mode mode, const std::string& name,
                         const Extras& extras) {
  if (extras.reference) {
    TORCH_CHECK_VALUE(mode == Mode::kHardest, "reference: expected None for mode '", name, "', got a tensor");
    CCFAST_CHECK_DTYPE(*extras.reference, memory.scalar_type());
    TORCH_CHECK_VALUE(extras.reference->sizes() == memory.sizes(), "reference: expected shape ", memory.sizes(),
                      " as of memory, got ", extras.reference->sizes());
  }
  TORCH_CHECK_VALUE(extras.groups.has_value() == needs_groups(mode), "groups: expected ",
                    needs_groups(mode) ? "a tensor" : "None", " for mode '", name, "', got ",
                    extras.groups ? "a tensor" : "None");
  if (!extras.groups) return;
  CCFAST_CHECK_DTYPE(*extras.groups, at::kLong);
  TORCH_CHECK_VALUE(extras.groups->sizes() == labels.sizes(), "groups: expected shape ", labels.sizes(),
                    " as of labels, got ", extras.groups->sizes());
}

inline void check_update(const at::Tensor& memory, const at::Tensor& features, const at::Tensor& labels) {
  CCFAST_CHECK_DIM(memory, 2);
  TORCH_CHECK_VALUE(!overlaps_itself(memory),
                    "memory: expected elements that do not overlap in memory, because they are changed, got shape ",
                    memory.sizes(), " with strides ", memory.strides());
  check_rows_and_labels(features, labels);
  CCFAST_CHECK_DTYPE(features, memory.scalar_type());
  TORCH_CHECK_VALUE(features.size(1) == memory.size(1), "features: expected ", memory.size(1),
                    " columns as in memory, got ", features.size(1));
}

// Copies the updated rows to the memory if it was not contiguous; otherwise tells autograd that the memory changed.
inline void finish_update(at::Tensor& memory, const at::Tensor& rows) {
  if (!rows.is_same(memory)) {
    memory.copy_(rows);
  } else if (!memory.is_inference()) {
    memory.unsafeGetTensorImpl()->bump_version();
  }
}

}  // namespace ccfast::memory
