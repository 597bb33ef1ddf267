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

// The facts that the host needs before it can allocate the centroids, in one small copy: the highest label,
// and whether anything is wrong with the rows or the labels.
int64_t highest_label(const at::Tensor& features, const at::Tensor& sorted_labels, bool* suspect) {
  const at::Tensor finite = at::isfinite(features.sum(1)).all().to(at::kLong);
  const at::Tensor lowest = sorted_labels.select(0, 0), highest = sorted_labels.select(0, -1);
  const at::Tensor gap = sorted_labels.diff(1, 0, lowest.clamp_max(-1).unsqueeze(0)).max();
  const at::Tensor facts = at::stack({finite, lowest, highest, gap}).cpu();
  const int64_t* fact = facts.const_data_ptr<int64_t>();
  *suspect = fact[0] == 0 || fact[1] < -1 || fact[3] > 1;
  return fact[2];
}

// Raises an error for the first fault, if there is one.
void tell_faults(const at::Tensor& features, const at::Tensor& labels, const at::Tensor& sorted_labels,
                 int64_t clusters) {
  check_finite_rows("features", features);
  check_labels("labels", labels.cpu(), clusters, -1);
  const at::Tensor sorted = sorted_labels.cpu();
  const int64_t* label = sorted.const_data_ptr<int64_t>();
  int64_t next = 0;  // all clusters below it have members
  for (int64_t i = 0; i < sorted.numel(); ++i) {
    TORCH_CHECK_VALUE(label[i] <= next, "labels: expected a member for each of the clusters 0 to ", clusters - 1,
                      ", got none for ", next);
    next += label[i] == next;
  }
}

at::Tensor cluster_centroids_cuda(const at::Tensor& features, const at::Tensor& labels) {
  memory::check_rows_and_labels(features, labels);
  const DeviceScope device(features);
  const at::Tensor x = features.contiguous();
  const auto [sorted, order] = at::sort(labels, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  bool suspect = false;
  const int64_t clusters = highest_label(x, sorted, &suspect) + 1;
  if (suspect) tell_faults(x, labels, sorted, clusters);
  const at::Tensor first = at::searchsorted(sorted, at::arange(clusters + 1, labels.options()));
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
                         const std::string& update_mode, bool normalize, const std::optional<at::Tensor>& reference,
                         const std::optional<at::Tensor>& groups) {
  memory::check_update(memory, features, labels);
  const memory::Mode mode = memory::mode_of(update_mode);
  memory::check_extras(memory, labels, mode, update_mode, {reference, groups});
  const DeviceScope device(memory);
  const at::Tensor rows = memory.contiguous();
  const at::Tensor x = memory::apart_from(rows, features), y = memory::apart_from(rows, labels),
                   other = memory::apart_from(rows, reference), g = memory::apart_from(rows, groups);
  const at::Tensor scratch = g.defined() ? at::empty_like(x) : at::Tensor();
  AT_DISPATCH_FLOATING_TYPES(rows.scalar_type(), "update_memory_", [&] {
    memory::update_cuda<scalar_t>({rows.mutable_data_ptr<scalar_t>(), x.const_data_ptr<scalar_t>(), nullptr,
                                   y.const_data_ptr<int64_t>(), x.size(0), x.size(1), static_cast<scalar_t>(momentum),
                                   mode, other.defined() ? other.const_data_ptr<scalar_t>() : nullptr,
                                   g.defined() ? g.const_data_ptr<int64_t>() : nullptr,
                                   scratch.defined() ? scratch.mutable_data_ptr<scalar_t>() : nullptr},
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
