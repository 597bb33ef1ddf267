// Checks of the ops' arguments that both devices share.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "jaccard.h"

namespace ccfast {

// Rows row_begin .. row_end - 1 of `rows`; without an end, up to the last one.
inline jaccard::RowRange row_range(int64_t row_begin, std::optional<int64_t> row_end, int64_t rows) {
  const int64_t end = row_end.value_or(rows);
  TORCH_CHECK_VALUE(0 <= row_begin && row_begin <= end && end <= rows, "row_begin, row_end: expected a range within ",
                    rows, " rows, got ", row_begin, " and ", end);
  return {row_begin, end};
}

// Pairs at distance 1 share nothing and are never listed, even if float32 rounds a limit below 1 up to 1.
inline float distance_limit(double max_distance) {
  return std::min(static_cast<float>(max_distance), std::nextafter(1.0f, 0.0f));
}

// One float32 number per row, or null.
inline const float* optional_data(const std::optional<at::Tensor>& value, const char* name, int64_t rows) {
  if (!value) return nullptr;
  TORCH_CHECK_VALUE(value->dim() == 1 && value->size(0) == rows && value->is_contiguous(), name, ": expected [", rows,
                    "]");
  TORCH_CHECK_TYPE(value->scalar_type() == at::kFloat, name, ": expected dtype float32");
  return value->const_data_ptr<float>();
}

// One int64 number per row, or null. The numbers are checked on the CPU only.
inline const int64_t* optional_rows(const std::optional<at::Tensor>& value, const char* name, int64_t rows) {
  if (!value) return nullptr;
  TORCH_CHECK_VALUE(value->dim() == 1 && value->size(0) == rows && value->is_contiguous(), name, ": expected [", rows,
                    "]");
  TORCH_CHECK_TYPE(value->scalar_type() == at::kLong, name, ": expected dtype int64");
  return value->const_data_ptr<int64_t>();
}

// rank [rows, k1]; distances [range, k1].
inline void check_encoding_shapes(const at::Tensor& rank, const at::Tensor& distances, int64_t rows,
                                  const jaccard::RowRange& range) {
  TORCH_CHECK_VALUE(rank.dim() == 2 && rank.size(0) == rows, "rank: expected [", rows, ", k1], got ", rank.sizes());
  TORCH_CHECK_VALUE(distances.dim() == 2 && distances.size(0) == range.size() && distances.size(1) == rank.size(1),
                    "distances: expected [", range.size(), ", ", rank.size(1), "], got ", distances.sizes());
}

}  // namespace ccfast
