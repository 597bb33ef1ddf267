// Glue of ccfast::cluster_centroids and ccfast::update_memory_ for CUDA tensors.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>

#include "../common/checks.h"
#include "../common/device.h"
#include "arguments.h"
#include "memory.h"

namespace ccfast {
namespace {

at::Tensor cluster_centroids_cuda(const at::Tensor& features, const at::Tensor& labels) {
  memory::check_rows_and_labels(features, labels);
  const DeviceScope device(features);
  check_finite_rows("features", features);
  const at::Tensor x = features.contiguous();
  const int64_t clusters = labels.max().item<int64_t>() + 1;
  check_labels("labels", labels.cpu(), clusters, -1);
  const auto [sorted, order] = at::sort(labels, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  const at::Tensor first = at::searchsorted(sorted, at::arange(clusters + 1, labels.options()));
  const at::Tensor missing = first.diff() == 0;
  TORCH_CHECK_VALUE(clusters == 0 || !missing.any().item<bool>(),
                    "labels: expected a member for each of the clusters 0 to ", clusters - 1, ", got none for ",
                    missing.to(at::kByte).argmax().item<int64_t>());
  const at::Tensor centroids = at::empty({clusters, x.size(1)}, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "cluster_centroids", [&] {
    memory::centroids_cuda<scalar_t>(
        {x.const_data_ptr<scalar_t>(), order.const_data_ptr<int64_t>(), first.const_data_ptr<int64_t>(), x.size(1),
         clusters, centroids.mutable_data_ptr<scalar_t>()},
        device.stream());
  });
  return centroids;
}

void update_memory_cuda_(at::Tensor& memory, const at::Tensor& features, const at::Tensor& labels, double momentum,
                         const std::string& rule, bool normalize) {
  memory::check_update(memory, features, labels, momentum);
  const DeviceScope device(memory);
  const at::Tensor x = features.contiguous(), y = labels.contiguous(), rows = memory.contiguous();
  AT_DISPATCH_FLOATING_TYPES(rows.scalar_type(), "update_memory_", [&] {
    memory::update_cuda<scalar_t>(
        {rows.mutable_data_ptr<scalar_t>(), x.const_data_ptr<scalar_t>(), nullptr, y.const_data_ptr<int64_t>(),
         x.size(0), x.size(1), static_cast<scalar_t>(momentum), memory::mode_of(rule)},
        rows.size(0), normalize, device.stream());
  });
  memory::finish_update(memory, rows);
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CCFAST_DEVICE_KEY, m) {
  m.impl("cluster_centroids", cluster_centroids_cuda);
  m.impl("update_memory_", update_memory_cuda_);
}

}  // namespace ccfast
