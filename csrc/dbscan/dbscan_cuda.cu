// CUDA kernels of DBSCAN; the contract is in dbscan.h. One warp per row in every pass.
#include "../common/cuda.cuh"
#include "dbscan.h"

namespace ccfast::dbscan {
namespace {

constexpr int kThreads = 256;

__device__ int64_t row_of_warp() { return (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp; }

// Calls visit(j) for the entries of row i within eps; the lanes share the row.
template <class Visit>
__device__ void for_each_neighbour(const DeviceDistances& distances, int64_t i, const Visit& visit) {
  const int lane = threadIdx.x % kWarp;
  if (distances.crow == nullptr) {
    const float* row = distances.val + i * distances.rows;
    for (int64_t j = lane; j < distances.rows; j += kWarp)
      if (row[j] <= distances.eps) visit(j);
    return;
  }
  for (int64_t e = distances.crow[i] + lane; e < distances.crow[i + 1]; e += kWarp)
    if (distances.val[e] <= distances.eps) visit(distances.col[e]);
}

// Whether row i of sparse distances stores its diagonal entry. (A missing one is 0.)
__device__ bool stores_diagonal(const DeviceDistances& distances, int64_t i) {
  if (distances.crow == nullptr) return true;
  bool found = false;
  for (int64_t e = distances.crow[i] + threadIdx.x % kWarp; e < distances.crow[i + 1]; e += kWarp)
    found |= distances.col[e] == i;
  return __any_sync(kFullMask, found);
}

__global__ void find_cores_kernel(DeviceDistances distances, int64_t min_samples, bool* core) {
  const int64_t i = row_of_warp();
  if (i >= distances.rows) return;
  long long within = 0;
  for_each_neighbour(distances, i, [&](int64_t) { ++within; });
  within = warp_sum(within);
  const bool diagonal = stores_diagonal(distances, i);
  if (threadIdx.x % kWarp == 0) core[i] = within + !diagonal >= min_samples;
}

// For use while trees are joined: also halves the path. Other threads may write other ancestors into it.
__device__ int32_t find_root(int32_t* parent, int32_t i) {
  int32_t up = load_volatile(parent + i);
  while (up != i) {
    const int32_t above = load_volatile(parent + up);
    store_volatile(parent + i, above);
    i = up;
    up = above;
  }
  return i;
}

// Hooks the higher of the two roots under the lower; if another thread has hooked it meanwhile, finds the new one.
__device__ void join(int32_t* parent, int32_t a, int32_t b) {
  while (true) {
    a = find_root(parent, a);
    b = find_root(parent, b);
    if (a == b) return;
    const int32_t high = a > b ? a : b, low = a > b ? b : a;
    if (atomicCAS(&parent[high], high, low) == high) return;
  }
}

__global__ void start_kernel(int64_t rows, int32_t* parent) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < rows) parent[i] = static_cast<int32_t>(i);
}

__global__ void join_kernel(DeviceDistances distances, const bool* core, int32_t* parent) {
  const int64_t i = row_of_warp();
  if (i >= distances.rows || !core[i]) return;
  for_each_neighbour(distances, i, [&](int64_t j) {
    if (j < i && core[j]) join(parent, static_cast<int32_t>(i), static_cast<int32_t>(j));
  });
}

// A thread writes the root to its own entry and to no other. Paths are not halved here: that could replace a root,
// which another thread has written, by another ancestor.
__global__ void flatten_kernel(int64_t rows, const bool* core, int32_t* parent, int64_t* is_root) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= rows) return;
  int32_t root = static_cast<int32_t>(i);
  for (int32_t up = load_volatile(parent + root); up != root; up = load_volatile(parent + root)) root = up;
  store_volatile(parent + i, root);
  is_root[i] = core[i] && root == i;
}

__global__ void label_kernel(DeviceDistances distances, const bool* core, const int32_t* root,
                             const int64_t* roots_up_to, int64_t* labels) {
  const int64_t i = row_of_warp();
  if (i >= distances.rows) return;
  if (core[i]) {
    if (threadIdx.x % kWarp == 0) labels[i] = roots_up_to[root[i]] - 1;
    return;
  }
  long long lowest = INT64_MAX;  // from 1 on
  for_each_neighbour(distances, i, [&](int64_t j) {
    if (core[j] && roots_up_to[root[j]] < lowest) lowest = roots_up_to[root[j]];
  });
  lowest = -warp_max(-lowest);
  if (threadIdx.x % kWarp == 0) labels[i] = lowest == INT64_MAX ? -1 : lowest - 1;
}

}  // namespace

void find_cores_cuda(const DeviceDistances& distances, int64_t min_samples, bool* core, void* stream) {
  launch("dbscan find_cores", find_cores_kernel, blocks_for(distances.rows * kWarp, kThreads), kThreads, 0, stream,
         distances, min_samples, core);
}

void join_cores_cuda(const DeviceDistances& distances, const bool* core, int32_t* root, int64_t* is_root,
                     void* stream) {
  launch("dbscan start", start_kernel, blocks_for(distances.rows, kThreads), kThreads, 0, stream, distances.rows, root);
  launch("dbscan join", join_kernel, blocks_for(distances.rows * kWarp, kThreads), kThreads, 0, stream, distances, core,
         root);
  launch("dbscan flatten", flatten_kernel, blocks_for(distances.rows, kThreads), kThreads, 0, stream, distances.rows,
         core, root, is_root);
}

void label_cuda(const DeviceDistances& distances, const bool* core, const int32_t* root, const int64_t* roots_up_to,
                int64_t* labels, void* stream) {
  launch("dbscan label", label_kernel, blocks_for(distances.rows * kWarp, kThreads), kThreads, 0, stream, distances,
         core, root, roots_up_to, labels);
}

}  // namespace ccfast::dbscan
