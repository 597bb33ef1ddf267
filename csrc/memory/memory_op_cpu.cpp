// Glue of ccfast::cluster_centroids and ccfast::update_memory_ for CPU tensors.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>

#include <cmath>

#include "../common/checks.h"
#include "arguments.h"
#include "memory.h"

namespace ccfast {
namespace {

at::Tensor cluster_centroids_cpu(const at::Tensor& features, const at::Tensor& labels) {
  memory::check_rows_and_labels(features, labels);
  check_finite_rows("features", features);
  const at::Tensor x = features.contiguous(), y = labels.contiguous();
  const int64_t clusters = y.max().item<int64_t>() + 1;
  check_labels("labels", y, clusters, -1);
  const at::Tensor centroids = at::empty({clusters, x.size(1)}, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "cluster_centroids", [&] {
    const int64_t missing =
        memory::centroids<scalar_t>({x.const_data_ptr<scalar_t>(), y.const_data_ptr<int64_t>(), x.size(0), x.size(1),
                                     clusters, centroids.mutable_data_ptr<scalar_t>()});
    TORCH_CHECK_VALUE(missing < 0, "labels: expected a member for each of the clusters 0 to ", clusters - 1,
                      ", got none for ", missing);
  });
  return centroids;
}

// The factor of every sample: 1 / norm, or 1 where rows must come normalised; non-finite rows are refused either way.
std::vector<double> sample_scales(const at::Tensor& features, bool normalize) {
  std::vector<double> scale(features.size(0));
  AT_DISPATCH_FLOATING_TYPES(features.scalar_type(), "update_memory_", [&] {
    memory::row_norms(features.const_data_ptr<scalar_t>(), features.size(0), features.size(1), scale.data());
  });
  bool unit = true;
  for (double& value : scale) {
    unit &= std::isfinite(value) && (normalize || std::abs(value - 1) <= kUnitNormTolerance);
    value = normalize ? 1 / std::max(value, memory::kSmallestNorm) : 1;
  }
  if (!unit && normalize) check_finite_rows("features", features);
  if (!unit && !normalize) check_unit_rows("features", features);
  return scale;
}

void update_memory_cpu_(at::Tensor& memory, const at::Tensor& features, const at::Tensor& labels, double momentum,
                        const std::string& rule, bool normalize) {
  memory::check_update(memory, features, labels, momentum);
  const memory::Mode update_mode = memory::mode_of(rule);
  const at::Tensor x = features.contiguous(), y = labels.contiguous();
  check_labels("labels", y, memory.size(0), -1);
  const std::vector<double> scale = sample_scales(x, normalize);
  const at::Tensor rows = memory.contiguous();
  AT_DISPATCH_FLOATING_TYPES(rows.scalar_type(), "update_memory_", [&] {
    memory::update<scalar_t>({rows.mutable_data_ptr<scalar_t>(), x.const_data_ptr<scalar_t>(), scale.data(),
                              y.const_data_ptr<int64_t>(), x.size(0), x.size(1), static_cast<scalar_t>(momentum),
                              update_mode});
  });
  memory::finish_update(memory, rows);
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CPU, m) {
  m.impl("cluster_centroids", cluster_centroids_cpu);
  m.impl("update_memory_", update_memory_cpu_);
}

}  // namespace ccfast
