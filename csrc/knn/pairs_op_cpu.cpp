// Glue of the exact distances of given pairs for CPU tensors.
#include <ATen/ATen.h>
#include <torch/library.h>

#include "pairs.h"

namespace ccfast {
namespace {

at::Tensor pair_distances_cpu(const at::Tensor& queries, const at::Tensor& features, const at::Tensor& indices) {
  const knn::PairDistances pairs(queries, features, indices);
  const int64_t* index = pairs.chosen.const_data_ptr<int64_t>();
  for (int64_t pair = 0; pair < pairs.chosen.numel(); ++pair)
    TORCH_CHECK_VALUE(index[pair] >= 0 && index[pair] < features.size(0), "indices: expected entries in [0, ",
                      features.size(0), "), got ", index[pair]);
  knn::pair_distances(pairs.params());
  return pairs.distances;
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CPU, m) { m.impl("pair_distances", pair_distances_cpu); }

}  // namespace ccfast
