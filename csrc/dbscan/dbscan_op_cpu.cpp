// Glue of ccfast::dbscan for CPU tensors.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "../common/checks.h"
#include "../common/csr_tensors.h"
#include "dbscan.h"

namespace ccfast {
namespace {

at::Tensor dbscan_cpu(const at::Tensor& distances, double eps, int64_t min_samples) {
  CCFAST_CHECK_DIM(distances, 2);
  TORCH_CHECK_VALUE(distances.size(0) == distances.size(1), "distances: expected a square matrix, got shape ",
                    distances.sizes());
  const at::Tensor matrix = distances.to(at::kFloat).contiguous();
  const at::Tensor labels = at::empty({matrix.size(0)}, at::kLong);
  const int64_t bad = dbscan::dense(matrix.const_data_ptr<float>(), matrix.size(0), dbscan::radius(eps), min_samples,
                                    labels.mutable_data_ptr<int64_t>());
  TORCH_CHECK_VALUE(bad < 0, "distances: expected numbers, got NaN in row ", bad);
  return labels;
}

at::Tensor dbscan_sparse_cpu(const at::Tensor& crow, const at::Tensor& col, const at::Tensor& values, double eps,
                             int64_t min_samples) {
  const Csr distances = csr_view(crow, col, values);
  TORCH_CHECK_VALUE(!values.isnan().any().item<bool>(), "distances: expected numbers, got NaN");
  const at::Tensor labels = at::empty({distances.rows}, at::kLong);
  dbscan::sparse(distances, dbscan::radius(eps), min_samples, labels.mutable_data_ptr<int64_t>());
  return labels;
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CPU, m) {
  m.impl("dbscan", dbscan_cpu);
  m.impl("dbscan_sparse", dbscan_sparse_cpu);
}

}  // namespace ccfast
