// The arguments of pair_distances, as both devices check and read them.
#pragma once

#include <ATen/ATen.h>

#include "../common/checks.h"
#include "knn.h"

namespace ccfast::knn {

struct PairDistances {
  PairDistances(const at::Tensor& queries, const at::Tensor& features, const at::Tensor& indices) {
    CCFAST_CHECK_DIM(queries, 2);
    CCFAST_CHECK_DIM(features, 2);
    CCFAST_CHECK_DTYPE(queries, at::kFloat);
    CCFAST_CHECK_DTYPE(features, at::kFloat);
    CCFAST_CHECK_DTYPE(indices, at::kLong);
    TORCH_CHECK_VALUE(queries.size(1) == features.size(1),
                      "queries, features: expected the same number of columns, got ", queries.sizes(), " and ",
                      features.sizes());
    TORCH_CHECK_VALUE(indices.dim() == 2 && indices.size(0) == queries.size(0), "indices: expected [", queries.size(0),
                      ", K], got ", indices.sizes());
    rows = queries.contiguous();
    targets = features.contiguous();
    chosen = indices.contiguous();
    distances = at::empty(indices.sizes(), queries.options().dtype(at::kDouble));
  }
  PairDistancesParams params() const {
    return {rows.const_data_ptr<float>(),
            targets.const_data_ptr<float>(),
            chosen.const_data_ptr<int64_t>(),
            chosen.size(0),
            chosen.size(1),
            rows.size(1),
            distances.mutable_data_ptr<double>()};
  }

  at::Tensor rows, targets, chosen, distances;
};

}  // namespace ccfast::knn
