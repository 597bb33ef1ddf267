// Glue of ccfast::dbscan for CUDA tensors.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <cmath>
#include <limits>

#include "../common/checks.h"
#include "../common/device.h"
#include "dbscan.h"

namespace ccfast {
namespace {

void check_size(int64_t rows) {
  TORCH_CHECK_VALUE(rows < std::numeric_limits<int32_t>::max(), "distances: expected fewer than 2^31 rows");
}

at::Tensor labels_of(const dbscan::DeviceDistances& distances, int64_t min_samples, const at::Tensor& like,
                     void* stream) {
  const at::TensorOptions options = like.options();
  const at::Tensor core = at::empty({distances.rows}, options.dtype(at::kBool));
  const at::Tensor root = at::empty({distances.rows}, options.dtype(at::kInt));
  const at::Tensor is_root = at::empty({distances.rows}, options.dtype(at::kLong));
  const at::Tensor labels = at::empty_like(is_root);
  dbscan::find_cores_cuda(distances, min_samples, core.mutable_data_ptr<bool>(), stream);
  dbscan::join_cores_cuda(distances, core.const_data_ptr<bool>(), root.mutable_data_ptr<int32_t>(),
                          is_root.mutable_data_ptr<int64_t>(), stream);
  // Clusters are numbered by their lowest core, which is their root.
  const at::Tensor roots_up_to = is_root.cumsum(0);
  dbscan::label_cuda(distances, core.const_data_ptr<bool>(), root.const_data_ptr<int32_t>(),
                     roots_up_to.const_data_ptr<int64_t>(), labels.mutable_data_ptr<int64_t>(), stream);
  return labels;
}

at::Tensor dbscan_cuda(const at::Tensor& distances, double eps, int64_t min_samples) {
  CCFAST_CHECK_DIM(distances, 2);
  TORCH_CHECK_VALUE(distances.size(0) == distances.size(1), "distances: expected a square matrix, got shape ",
                    distances.sizes());
  check_size(distances.size(0));
  const DeviceScope device(distances);
  const at::Tensor matrix = distances.to(at::kFloat).contiguous();
  const at::Tensor nan = matrix.sum(1).isnan();  // inf - inf cannot occur: distances are not -inf
  TORCH_CHECK_VALUE(!nan.any().item<bool>(), "distances: expected numbers, got NaN in row ",
                    nan.to(at::kByte).argmax().item<int64_t>());
  return labels_of({matrix.size(0), nullptr, nullptr, matrix.const_data_ptr<float>(), dbscan::radius(eps)}, min_samples,
                   matrix, device.stream());
}

at::Tensor dbscan_sparse_cuda(const at::Tensor& crow, const at::Tensor& col, const at::Tensor& values, double eps,
                              int64_t min_samples) {
  CCFAST_CHECK_DTYPE(crow, at::kLong);
  CCFAST_CHECK_DTYPE(col, at::kLong);
  CCFAST_CHECK_DTYPE(values, at::kFloat);
  check_size(crow.numel() - 1);
  TORCH_CHECK_VALUE(
      crow.is_contiguous() && col.is_contiguous() && values.is_contiguous() && values.sizes() == col.sizes(),
      "crow, col, values: expected contiguous tensors of one length");
  const DeviceScope device(values);
  TORCH_CHECK_VALUE(values.numel() == 0 || !std::isnan(values.amax().item<float>()),
                    "distances: expected numbers, got NaN");
  return labels_of({crow.numel() - 1, crow.const_data_ptr<int64_t>(), col.const_data_ptr<int64_t>(),
                    values.const_data_ptr<float>(), dbscan::radius(eps)},
                   min_samples, values, device.stream());
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CCFAST_DEVICE_KEY, m) {
  m.impl("dbscan", dbscan_cuda);
  m.impl("dbscan_sparse", dbscan_sparse_cuda);
}

}  // namespace ccfast
