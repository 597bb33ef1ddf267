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

std::vector<double> norms_of(const at::Tensor& features) {
  std::vector<double> norms(features.size(0));
  AT_DISPATCH_FLOATING_TYPES(features.scalar_type(), "update_memory_", [&] {
    memory::row_norms(features.const_data_ptr<scalar_t>(), features.size(0), features.size(1), norms.data());
  });
  return norms;
}

// The factor of every sample: 1 / norm, or 1 if rows must have unit norm; non-finite rows are an error in both cases.
// Rows of huge norm are scaled down first.
std::vector<double> sample_scales(at::Tensor& features, bool normalize) {
  std::vector<double> scale = norms_of(features);
  bool unit = true, huge = false;
  for (const double norm : scale) {
    unit &= std::isfinite(norm) && (normalize || std::abs(norm - 1) <= kUnitNormTolerance);
    huge |= !(norm <= memory::kLargestNorm);
  }
  if (!unit && normalize) check_finite_rows("features", features);
  if (!unit && !normalize) check_unit_rows("features", features);
  if (huge) {
    features = features / features.abs().amax(1, /*keepdim=*/true).clamp_min(1);
    scale = norms_of(features);
  }
  for (double& value : scale) value = normalize ? 1 / std::max(value, memory::kSmallestNorm) : 1;
  return scale;
}

// Raises an error for non-finite values in the rows of the batch's clusters.
void check_rows_of_labels(const char* name, const at::Tensor& rows, const at::Tensor& labels) {
  const int64_t* label = labels.const_data_ptr<int64_t>();
  const int64_t dim = rows.size(1);
  AT_DISPATCH_FLOATING_TYPES(rows.scalar_type(), "update_memory_", [&] {
    const scalar_t* row = rows.const_data_ptr<scalar_t>();
    for (int64_t i = 0; i < labels.numel(); ++i) {
      if (label[i] < 0 || (i > 0 && label[i] == label[i - 1])) continue;
      double norm = 0;
      memory::row_norms(row + label[i] * dim, 1, dim, &norm);
      if (std::isfinite(norm)) continue;
      TORCH_CHECK_VALUE(at::isfinite(rows.select(0, label[i])).all().item<bool>(), name,
                        ": expected finite values, got a non-finite value in row ", label[i]);
    }
  });
}

void update_memory_cpu_(at::Tensor& memory, const at::Tensor& features, const at::Tensor& labels, double momentum,
                        const std::string& update_mode, bool normalize, const std::optional<at::Tensor>& reference,
                        const std::optional<at::Tensor>& groups) {
  memory::check_update(memory, features, labels);
  const memory::Mode mode = memory::mode_of(update_mode);
  memory::check_extras(memory, labels, mode, update_mode, {reference, groups});
  const at::Tensor rows = memory.contiguous();
  at::Tensor x = memory::apart_from(rows, features);
  const at::Tensor y = memory::apart_from(rows, labels), other = memory::apart_from(rows, reference),
                   g = memory::apart_from(rows, groups);
  check_labels("labels", y, memory.size(0), -1);
  const std::vector<double> scale = sample_scales(x, normalize);
  if (mode != memory::Mode::kReplace) check_rows_of_labels("memory", rows, y);
  if (other.defined()) check_rows_of_labels("reference", other, y);
  AT_DISPATCH_FLOATING_TYPES(rows.scalar_type(), "update_memory_", [&] {
    memory::update<scalar_t>({rows.mutable_data_ptr<scalar_t>(), x.const_data_ptr<scalar_t>(), scale.data(),
                              y.const_data_ptr<int64_t>(), x.size(0), x.size(1), static_cast<scalar_t>(momentum), mode,
                              other.defined() ? other.const_data_ptr<scalar_t>() : nullptr,
                              g.defined() ? g.const_data_ptr<int64_t>() : nullptr});
  });
  memory::finish_update(memory, rows);
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CPU, m) {
  m.impl("cluster_centroids", cluster_centroids_cpu);
  m.impl("update_memory_", update_memory_cpu_);
}

}  // namespace ccfast
