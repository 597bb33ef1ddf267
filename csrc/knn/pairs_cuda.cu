// Exact distances of given pairs; the contract is in knn.h.
#include "../common/cuda.cuh"
#include "knn.h"

namespace ccfast::knn {
namespace {

constexpr int kPairThreads = 256;
constexpr int kLanesOfThread = 4;  // of the 128 lanes in which a distance is added up

// One warp per pair: thread t has the lanes t, t + 32, t + 64 and t + 96.
__global__ void pair_distances_kernel(PairDistancesParams params) {
  const int64_t pair = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  if (pair >= params.num_queries * params.width) return;
  const float* query = params.queries + pair / params.width * params.dim;
  const float* target = params.features + params.indices[pair] * params.dim;
  double lanes[kLanesOfThread] = {};
  for (int lane = 0; lane < kLanesOfThread; ++lane)
    for (int64_t d = threadIdx.x % kWarp + lane * kWarp; d < params.dim; d += kLanesOfThread * kWarp) {
      const double difference = static_cast<double>(query[d]) - static_cast<double>(target[d]);
      lanes[lane] = __dadd_rn(lanes[lane], __dmul_rn(difference, difference));
    }
  double sum = (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
  for (int distance = kWarp / 2; distance >= 4; distance /= 2) sum += __shfl_xor_sync(kFullMask, sum, distance);
  double total = __shfl_sync(kFullMask, sum, 0);
  for (int lane = 1; lane < 4; ++lane) total += __shfl_sync(kFullMask, sum, lane);
  if (threadIdx.x % kWarp == 0) params.distances[pair] = total;
}

}  // namespace

void pair_distances_cuda(const PairDistancesParams& params, void* stream) {
  const int64_t warps = params.num_queries * params.width;
  if (warps == 0) return;
  launch("knn pair_distances", pair_distances_kernel, blocks_for(warps * kWarp, kPairThreads), kPairThreads, 0, stream,
         params);
}

}  // namespace ccfast::knn
