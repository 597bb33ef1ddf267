// CUDA kernels of the cluster memory; the contract is in memory.h.
#include "cluster.cuh"

namespace ccfast::memory {
namespace {

// --- centroids ---

// sum = the sum of this thread's packs of the members' rows, from dimension `from` on, in the members' order.
template <class T, int kSize>
__device__ __forceinline__ void add_members(const CentroidsCudaParams<T>& params, int64_t begin, int64_t end,
                                            int64_t from, double (&sum)[kValues]) {
  for (double& value : sum) value = 0;
  for_each_pack<kSize, kValues / kSize>(params.dim - from, [&](int d, int p) {
    const T* column = params.features + from + d;
    CCFAST_UNROLL(4)
    for (int64_t member = begin; member < end; ++member) {
      const Pack<T, kSize> pack = load_pack<kSize>(column + params.order[member] * params.dim);
      for (int k = 0; k < kSize; ++k) sum[p * kSize + k] += pack.value[k];
    }
  });
}

// One block per cluster. The features are read once, or twice if a row is longer than kLongestRow.
template <class T, int kSize>
__global__ void __launch_bounds__(kThreads, 2) centroids_kernel(CentroidsCudaParams<T> params) {
  double* scratch = shared_memory<double>();
  const int64_t begin = params.first[blockIdx.x], end = params.first[blockIdx.x + 1];
  const int64_t held = static_cast<int64_t>(blockDim.x) * kValues;
  const double count = static_cast<double>(end - begin);
  double sum[kValues], squares = 0;
  for (int64_t from = 0; from < params.dim; from += held) {
    add_members<T, kSize>(params, begin, end, from, sum);
    for (const double value : sum) squares += value / count * (value / count);
  }
  const double norm = sqrt(block_sum(squares, scratch));
  const double divisor = norm > kSmallestNorm ? norm : kSmallestNorm;
  for (int64_t from = 0; from < params.dim; from += held) {
    if (params.dim > held) add_members<T, kSize>(params, begin, end, from, sum);
    T* centroid = params.centroids + blockIdx.x * params.dim + from;
    for_each_pack<kSize, kValues / kSize>(params.dim - from, [&](int d, int p) {
      Pack<T, kSize> pack;
      for (int k = 0; k < kSize; ++k) pack.value[k] = static_cast<T>(sum[p * kSize + k] / count / divisor);
      store_pack(centroid + d, pack);
    });
  }
}

// The row keeps a pending factor between samples, so that each takes one pass: row * factor is the normalised memory.
// While a sample's norm is summed over the block, the next sample is loaded.
template <class T, int kSize, class Row>
__device__ void update_sequential(const Cluster<T, kSize>& cluster, Row& row) {
  const double momentum = cluster.params.momentum;
  double factor = 1;
  row.fetch();
  cluster.for_each_part(
      nullptr, [&] { row.fetch(cluster.sample(0)); },
      [&](int count) {
        for (int m = 0; m < count; ++m) {
          const double squares =
              row.mix(static_cast<T>(momentum * factor), static_cast<T>((1 - momentum) * cluster.scale(m)));
          if (m + 1 < count) row.fetch(cluster.sample(m + 1));
          factor = unit_factor<T>(row, cluster.sums(squares));
        }
      });
  row.store(static_cast<T>(factor));
}

template <class T, int kSize, class Row>
__device__ void update_hardest(const Cluster<T, kSize>& cluster, Row& row) {
  const UpdateParams<T>& params = cluster.params;
  const T* other = params.reference ? params.reference : params.memory;
  const Hardest hardest = hardest_of(cluster, other + cluster.label * params.dim);
  const double momentum = params.momentum;
  row.fetch();
  row.fetch(params.features + hardest.position * params.dim);
  const double squares = row.mix(static_cast<T>(momentum), static_cast<T>((1 - momentum) * hardest.scale));
  row.store(static_cast<T>(unit_factor<T>(row, cluster.sums(squares))));
}

// m M + (1 - m) mean(x), one sample after the other.
template <class T, int kSize, class Row>
__device__ void update_mean(const Cluster<T, kSize>& cluster, Row& row) {
  const double momentum = cluster.params.momentum, weight = (1 - momentum) / static_cast<double>(cluster.count());
  double keep = momentum, squares = 0;
  row.fetch();
  cluster.for_each_part(
      nullptr, [] {},
      [&](int count) {
        CCFAST_UNROLL(kSize)
        for (int m = 0; m < count; ++m) {
          row.fetch(cluster.sample(m));
          squares = row.mix(static_cast<T>(keep), static_cast<T>(weight * cluster.scale(m)));
          keep = 1;
        }
      });
  row.store(static_cast<T>(unit_factor<T>(row, cluster.sums(squares))));
}

// One block per sample; the block of the first sample of a cluster updates it, the others exit.
template <class T, int kSize, class Row>
__global__ void __launch_bounds__(kThreads, 2) update_kernel(UpdateParams<T> params, int64_t clusters, bool normalize) {
  Members& members = *shared_memory<Members>();
  const int64_t label = params.labels[blockIdx.x];
  if (label < 0 || label >= clusters) return;
  Sums sums(members.sums);
  const Cluster<T, kSize> cluster{params, normalize, blockIdx.x, label, members, sums};
  if (cluster.has_earlier()) return;
  Row row(params.memory + label * params.dim, params.dim);
  if (params.mode == Mode::kSequential) update_sequential(cluster, row);
  if (params.mode == Mode::kHardest) update_hardest(cluster, row);
  if (params.mode == Mode::kMean) update_mean(cluster, row);
}

template <class T, int kSize, class Row>
void launch_update(const UpdateParams<T>& params, int64_t clusters, bool normalize, void* stream) {
  launch("memory update", update_kernel<T, kSize, Row>, params.batch, kThreads, sizeof(Members), stream, params,
         clusters, normalize);
}

template <class T, int kSize>
void launch_centroids(const CentroidsCudaParams<T>& params, void* stream) {
  launch("memory centroids", centroids_kernel<T, kSize>, params.clusters, threads_for(params.dim, kSize, kThreads),
         32 * sizeof(double), stream, params);
}

}  // namespace

template <class T>
void centroids_cuda(const CentroidsCudaParams<T>& params, void* stream) {
  const bool packs = in_packs(params.features, params.dim) && in_packs(params.centroids, params.dim);
  packs ? launch_centroids<T, kPackSize<T>>(params, stream) : launch_centroids<T, 1>(params, stream);
}

template <class T>
void update_cuda(const UpdateParams<T>& params, int64_t clusters, bool normalize, void* stream) {
  if (params.mode == Mode::kLast || params.mode == Mode::kReplace || needs_groups(params.mode))
    return update_chosen_cuda(params, clusters, normalize, stream);
  constexpr int kSize = kPackSize<T>;
  const bool packs = in_packs(params.features, params.dim) && in_packs(params.memory, params.dim) &&
                     in_packs(params.reference, params.dim);
  if (params.dim > kLongestRow) {
    launch_update<T, 1, LongRow<T>>(params, clusters, normalize, stream);
  } else if (packs) {
    launch_update<T, kSize, HeldRow<T, kSize>>(params, clusters, normalize, stream);
  } else {
    launch_update<T, 1, HeldRow<T, 1>>(params, clusters, normalize, stream);
  }
}

template void centroids_cuda(const CentroidsCudaParams<float>&, void*);
template void centroids_cuda(const CentroidsCudaParams<double>&, void*);
template void update_cuda(const UpdateParams<float>&, int64_t, bool, void*);
template void update_cuda(const UpdateParams<double>&, int64_t, bool, void*);

}  // namespace ccfast::memory
