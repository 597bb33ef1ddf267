// The ops of the neighbour search as other ops call them (common/dispatch.h); the schemas are in bindings.cpp.
#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <string_view>
#include <tuple>

namespace ccfast {

struct KnnOp {
  static constexpr const char* kName = "ccfast::knn";
  using Signature = std::tuple<at::Tensor, at::Tensor>(const at::Tensor& features,
                                                       const std::optional<at::Tensor>& queries, int64_t k,
                                                       std::string_view precision, std::optional<int64_t> row_begin);
};

struct SquaredNormsOp {
  static constexpr const char* kName = "ccfast::squared_norms";
  using Signature = at::Tensor(const at::Tensor& features);
};

}  // namespace ccfast
