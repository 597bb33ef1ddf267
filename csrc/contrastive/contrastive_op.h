// The loss and its gradient by the memory as other code calls them (common/dispatch.h); the schemas are in
// bindings.cpp.
#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <string>
#include <tuple>

namespace ccfast {

struct CentroidContrastiveLossOp {
  static constexpr const char* kName = "ccfast::centroid_contrastive_loss";
  using Signature = std::tuple<at::Tensor, at::Tensor>(const at::Tensor& features, const at::Tensor& memory,
                                                       const at::Tensor& labels, double temperature, bool normalize,
                                                       const std::string& reduction, double label_smoothing,
                                                       int64_t ignore_index, bool with_gradient,
                                                       const std::optional<at::Tensor>& temperatures,
                                                       const std::optional<at::Tensor>& mask,
                                                       const std::optional<at::Tensor>& weights);
};

struct CentroidContrastiveLossMemoryGradOp {
  static constexpr const char* kName = "ccfast::centroid_contrastive_loss_memory_grad";
  using Signature = at::Tensor(const at::Tensor& upstream, const at::Tensor& features, const at::Tensor& memory,
                               const at::Tensor& labels, double temperature, bool normalize,
                               const std::string& reduction, double label_smoothing, int64_t ignore_index,
                               const std::optional<at::Tensor>& temperatures, const std::optional<at::Tensor>& mask,
                               const std::optional<at::Tensor>& weights);
};

}  // namespace ccfast
