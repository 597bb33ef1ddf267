// Glue of the exact distances of given pairs for CUDA tensors.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "../common/device.h"
#include "pairs.h"

namespace ccfast {
namespace {

at::Tensor pair_distances_cuda(const at::Tensor& queries, const at::Tensor& features, const at::Tensor& indices) {
  const DeviceScope device(features);
  const knn::PairDistances pairs(queries, features, indices);
  knn::pair_distances_cuda(pairs.params(), device.stream());
  return pairs.distances;
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CCFAST_DEVICE_KEY, m) { m.impl("pair_distances", pair_distances_cuda); }

}  // namespace ccfast
