// CUDA kernels of the cluster memory; the contract is in memory.h.
#include "../common/cuda.cuh"
#include "../common/pack.cuh"
#include "memory.h"

namespace ccfast::memory {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kValues = 8;  // of a row that a thread keeps in registers
constexpr int64_t kLongestRow = int64_t{kThreads} * kValues;

// --- centroids ---

// sum = what this thread's packs of the members' rows add up to, from dimension `from` on, in the members' order.
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

// One block a cluster. The features are read once; twice where a row is longer than kLongestRow.
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

// --- update: one block a cluster ---

// Sums over the block that take one barrier each: two in a row never use the same half of the scratch.
class Sums {
 public:
  __device__ explicit Sums(double* scratch) : scratch_(scratch) {}

  // In a fixed order, the same bits in every thread.
  __device__ double operator()(double value) {
    double* mine = scratch_ + (turn_ ^= 1) * kWarps;
    value = warp_sum(value);
    if (threadIdx.x % kWarp == 0) mine[threadIdx.x / kWarp] = value;
    __syncthreads();
    double part[kWarps];
    for (int w = 0; w < kWarps; ++w) part[w] = mine[w];
    for (int half = kWarps / 2; half > 0; half /= 2)
      for (int w = 0; w < half; ++w) part[w] += part[w + half];
    return part[0];
  }

 private:
  double* scratch_;
  int turn_ = 0;
};

// What a block keeps in shared memory about the members of its cluster among kThreads consecutive labels.
struct Members {
  double sums[2 * kWarps];
  double scale[kThreads];       // factor of each: 1, or 1 / norm
  double similarity[kThreads];  // with the old row; under kHardest alone
  int counts[kWarps];
  int position[kThreads];  // in the batch, ascending
};

__device__ __forceinline__ double inverse_norm(double squares) {
  return squares > kSmallestNorm * kSmallestNorm ? rsqrt(squares) : 1 / kSmallestNorm;
}

// A row of the memory, and the next sample to come into it, in registers.
template <class T, int kSize>
class HeldRow {
 public:
  __device__ HeldRow(T* memory, int64_t dim) : memory_(memory), dim_(dim) {}

  // Starts to load the row; a sample.
  __device__ __forceinline__ void fetch() {
    each([&](int d, int p) { row_[p] = load_pack<kSize>(memory_ + d); });
  }
  __device__ __forceinline__ void fetch(const T* x) {
    each([&](int d, int p) { x_[p] = load_pack<kSize>(x + d); });
  }
  // row = a * row + b * sample; returns this thread's share of the new sum of squares.
  __device__ __forceinline__ double mix(T a, T b) {
    double squares = 0;
    each([&](int, int p) {
      for (int k = 0; k < kSize; ++k) {
        row_[p].value[k] = a * row_[p].value[k] + b * x_[p].value[k];
        squares += static_cast<double>(row_[p].value[k]) * static_cast<double>(row_[p].value[k]);
      }
    });
    return squares;
  }
  // The memory = factor * row.
  __device__ __forceinline__ void store(T factor) {
    each([&](int d, int p) {
      for (int k = 0; k < kSize; ++k) row_[p].value[k] *= factor;
      store_pack(memory_ + d, row_[p]);
    });
  }

 private:
  template <class Body>
  __device__ __forceinline__ void each(const Body& body) {
    for_each_pack<kSize, kValues / kSize>(dim_, body);
  }

  T* memory_;
  int64_t dim_;
  Pack<T, kSize> row_[kValues / kSize], x_[kValues / kSize];
};

// The same for rows longer than kLongestRow, which stay where they are.
template <class T>
class LongRow {
 public:
  __device__ LongRow(T* memory, int64_t dim) : memory_(memory), dim_(dim) {}

  __device__ void fetch() {}
  __device__ void fetch(const T* x) { x_ = x; }
  __device__ double mix(T a, T b) {
    double squares = 0;
    for (int64_t d = threadIdx.x; d < dim_; d += kThreads) {
      const T mixed = a * memory_[d] + b * x_[d];
      memory_[d] = mixed;
      squares += static_cast<double>(mixed) * static_cast<double>(mixed);
    }
    return squares;
  }
  __device__ void store(T factor) {
    for (int64_t d = threadIdx.x; d < dim_; d += kThreads) memory_[d] *= factor;
  }

 private:
  T* memory_;
  int64_t dim_;
  const T* x_ = nullptr;
};

// The samples of one cluster.
template <class T, int kSize>
struct Cluster {
  const UpdateParams<T>& params;
  bool normalize;
  int64_t first, label;  // position of the first sample of the cluster in the batch
  Members& members;
  Sums& sums;

  __device__ __forceinline__ const T* sample(int m) const {
    return params.features + static_cast<int64_t>(members.position[m]) * params.dim;
  }

  // Whether this is not the first: another block takes the cluster then. From near to far, as batches mostly hold a
  // cluster's samples side by side.
  __device__ bool has_earlier() const {
    constexpr int64_t kAtATime = 8 * kThreads;
    for (int64_t end = first; end > 0; end -= kAtATime) {
      int found = 0;
      for (int64_t i = (end > kAtATime ? end - kAtATime : 0) + threadIdx.x; i < end; i += kThreads)
        found |= params.labels[i] == label;
      if (sums(found) > 0) return true;
    }
    return false;
  }

  __device__ int64_t count() const {
    int64_t mine = 0;
    for (int64_t i = first + threadIdx.x; i < params.batch; i += kThreads) mine += params.labels[i] == label;
    return static_cast<int64_t>(sums(static_cast<double>(mine)));
  }

  // Lists the members among kThreads labels from `begin` on; returns how many there are.
  __device__ int collect(int64_t begin) const {
    const int64_t i = begin + threadIdx.x;
    const bool member = i < params.batch && params.labels[i] == label;
    const unsigned bits = __ballot_sync(kFullMask, member);
    const int warp = static_cast<int>(threadIdx.x / kWarp), lane = static_cast<int>(threadIdx.x % kWarp);
    if (lane == 0) members.counts[warp] = __popc(bits);
    __syncthreads();
    int before = 0, total = 0;
    for (int w = 0; w < kWarps; ++w) {
      before += w < warp ? members.counts[w] : 0;
      total += members.counts[w];
    }
    if (member) members.position[before + __popc(bits & ((1u << lane) - 1))] = static_cast<int>(i);
    __syncthreads();
    return total;
  }

  // scale, and similarity where `row` is given, of the listed members: a warp a member.
  __device__ void measure(int count, const T* row) const {
    if (!normalize && !row) return;
    for (int m = static_cast<int>(threadIdx.x / kWarp); m < count; m += kWarps) {
      const T* x = sample(m);
      double squares = 0, product = 0;
      CCFAST_UNROLL(8)
      for (int64_t d = static_cast<int64_t>(threadIdx.x % kWarp) * kSize; d < params.dim; d += kWarp * kSize) {
        const Pack<T, kSize> pack = load_pack<kSize>(x + d);
        for (int k = 0; k < kSize; ++k)
          squares += static_cast<double>(pack.value[k]) * static_cast<double>(pack.value[k]);
        if (!row) continue;
        const Pack<T, kSize> old = load_pack<kSize>(row + d);
        for (int k = 0; k < kSize; ++k)
          product += static_cast<double>(pack.value[k]) * static_cast<double>(old.value[k]);
      }
      const double scale = normalize ? inverse_norm(warp_sum(squares)) : 1;
      if (row) product = warp_sum(product);
      if (threadIdx.x % kWarp != 0) continue;
      members.scale[m] = scale;
      members.similarity[m] = product * scale;
    }
    __syncthreads();
  }
  __device__ __forceinline__ double scale(int m) const { return normalize ? members.scale[m] : 1; }

  // Calls body(count) for the listed members, part after part of the batch, once what `row` asks for is known.
  template <class Start, class Body>
  __device__ __forceinline__ void for_each_part(const T* row, const Start& start, const Body& body) const {
    for (int64_t begin = first; begin < params.batch; begin += kThreads) {
      const int count = collect(begin);
      if (!count) continue;
      start();
      measure(count, row);
      body(count);
    }
  }
};

// The row keeps a pending factor between samples, so that each takes one pass: row * factor is the normalised memory.
// While a sample's norm crosses the block, the next sample is already on its way.
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
          factor = inverse_norm(cluster.sums(squares));
        }
      });
  row.store(static_cast<T>(factor));
}

template <class T, int kSize, class Row>
__device__ void update_hardest(const Cluster<T, kSize>& cluster, Row& row) {
  const UpdateParams<T>& params = cluster.params;
  double lowest = INFINITY, scale = 1;
  int64_t hardest = cluster.first;
  cluster.for_each_part(
      params.memory + cluster.label * params.dim, [] {},
      [&](int count) {
        for (int m = 0; m < count; ++m) {
          if (!(cluster.members.similarity[m] < lowest)) continue;
          lowest = cluster.members.similarity[m];
          scale = cluster.scale(m);
          hardest = cluster.members.position[m];
        }
      });
  const double momentum = params.momentum;
  row.fetch();
  row.fetch(params.features + hardest * params.dim);
  const double squares = row.mix(static_cast<T>(momentum), static_cast<T>((1 - momentum) * scale));
  row.store(static_cast<T>(inverse_norm(cluster.sums(squares))));
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
  row.store(static_cast<T>(inverse_norm(cluster.sums(squares))));
}

// One block a sample; the block of the first sample of a cluster updates it, the others leave.
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
  constexpr int kSize = kPackSize<T>;
  const bool packs = in_packs(params.features, params.dim) && in_packs(params.memory, params.dim);
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
