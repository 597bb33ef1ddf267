// Exact distances of given pairs on the CPU.
#include "../common/parallel.h"
#include "../common/simd.h"
#include "knn.h"

namespace ccfast::knn {

void pair_distances(const PairDistancesParams& params) {
  parallel_for_exact(params.num_queries, 16, [&](int64_t begin, int64_t end) {
    for (int64_t pair = begin * params.width; pair < end * params.width; ++pair)
      params.distances[pair] = squared_distance(params.queries + pair / params.width * params.dim,
                                                params.features + params.indices[pair] * params.dim, params.dim);
  });
}

}  // namespace ccfast::knn
