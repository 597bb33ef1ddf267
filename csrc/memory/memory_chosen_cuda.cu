// CUDA kernels of the updates by one sample, or one per group, of every cluster; the contract is in memory.h.
#include "cluster.cuh"

namespace ccfast::memory {
namespace {

// The two rows of one cluster: its row of the memory, and the row of the scratch that its block may use.
template <class T>
struct Rows {
  T* memory;
  T* scratch;
};

template <class T, class Row>
struct Mixing {
  const UpdateParams<T>& params;
  Row& row;
  Sums& sums;
  double factor = 1;

  // row <- normalise(m row + weight x); the division is left to the next call, or to finish().
  __device__ void add(const T* x, double weight) {
    const double momentum = params.momentum;
    row.fetch(x);
    const double squares = row.mix(static_cast<T>(momentum * factor), static_cast<T>(weight));
    factor = unit_factor<T>(row, sums(squares));
  }
  __device__ void add_sample(int64_t position, double scale) {
    add(params.features + position * params.dim, (1 - static_cast<double>(params.momentum)) * scale);
  }
  __device__ void finish() { row.store(static_cast<T>(factor)); }
};

template <class T, int kSize>
__device__ Hardest last_of(const Cluster<T, kSize>& cluster) {
  Hardest last{cluster.first, 1};
  cluster.for_each_part(
      nullptr, [] {}, [&](int count) { last = {cluster.members.position[count - 1], cluster.scale(count - 1)}; });
  return last;
}

// --- groups ---

template <class T, int kSize>
using Group = Cluster<T, kSize, true>;

// The first sample of a group at or after `begin`; the size of the batch if there is none.
template <class T, int kSize>
__device__ int64_t next_start(const Cluster<T, kSize>& cluster, int64_t begin) {
  const UpdateParams<T>& params = cluster.params;
  for (; begin < params.batch; begin += kThreads) {
    const int64_t i = begin + threadIdx.x;
    bool starts = i < params.batch && params.labels[i] == cluster.label;
    for (int64_t j = cluster.first; starts && j < i; ++j)
      starts = params.labels[j] != cluster.label || params.groups[j] != params.groups[i];
    if (cluster.list(begin, starts)) return cluster.members.position[0];
  }
  return params.batch;
}

// Calls body(group) for the groups of a cluster in the order in which they first occur.
template <class T, int kSize, class Body>
__device__ void for_each_group(const Cluster<T, kSize>& cluster, const Body& body) {
  const UpdateParams<T>& params = cluster.params;
  for (int64_t start = cluster.first; start < params.batch; start = next_start(cluster, start + 1))
    body(Group<T, kSize>{params, cluster.normalize, start, cluster.label, cluster.members, cluster.sums,
                         params.groups[start]});
}

// scratch = sum of the scaled samples of a group; returns its norm when the whole block can read the sum.
template <class T, int kSize>
__device__ double sum_of(const Group<T, kSize>& group, T* scratch) {
  const int64_t dim = group.params.dim;
  bool begun = false;
  group.for_each_part(
      nullptr, [] {},
      [&](int count) {
        for (int64_t d = threadIdx.x; d < dim; d += kThreads) {
          double sum = begun ? scratch[d] : T{0};
          for (int m = 0; m < count; ++m) sum += group.scale(m) * static_cast<double>(group.sample(m)[d]);
          scratch[d] = static_cast<T>(sum);
        }
        begun = true;
      });
  double squares = 0;
  for (int64_t d = threadIdx.x; d < dim; d += kThreads)
    squares += static_cast<double>(scratch[d]) * static_cast<double>(scratch[d]);
  const double norm = sqrt(group.sums(squares));
  return norm > kSmallestNorm ? norm : kSmallestNorm;
}

template <class T, int kSize, class Row>
__device__ void update_by_samples_of_groups(const Cluster<T, kSize>& cluster, const Rows<T>& rows, Row& row) {
  const UpdateParams<T>& params = cluster.params;
  Mixing<T, Row> mixing{params, row, cluster.sums};
  row.fetch();
  for_each_group(cluster, [&](const Group<T, kSize>& group) {
    if (params.mode == Mode::kGroupHardest) {
      const Hardest hardest = hardest_of(group, static_cast<const T*>(rows.memory));
      mixing.add_sample(hardest.position, hardest.scale);
    } else {
      group.collect(group.first);
      group.measure(1, nullptr);
      mixing.add_sample(group.first, group.scale(0));
    }
  });
  mixing.finish();
}

template <class T, int kSize, class Row>
__device__ void update_by_mean_of_group(const Cluster<T, kSize>& cluster, const Rows<T>& rows, Row& row) {
  const UpdateParams<T>& params = cluster.params;
  double lowest = INFINITY;
  int64_t chosen = cluster.first;
  for_each_group(cluster, [&](const Group<T, kSize>& group) {
    const double norm = sum_of(group, rows.scratch);
    double product = 0;
    for (int64_t d = threadIdx.x; d < params.dim; d += kThreads)
      product += static_cast<double>(rows.scratch[d]) * static_cast<double>(rows.memory[d]);
    const double similarity = cluster.sums(product) / norm;
    if (!(similarity < lowest)) return;
    lowest = similarity;
    chosen = group.first;
  });
  const Group<T, kSize> group{params,       cluster.normalize,    chosen, cluster.label, cluster.members,
                              cluster.sums, params.groups[chosen]};
  const double norm = sum_of(group, rows.scratch);
  Mixing<T, Row> mixing{params, row, cluster.sums};
  row.fetch();
  mixing.add(rows.scratch, (1 - static_cast<double>(params.momentum)) / norm);
  mixing.finish();
}

// Turns the listed samples' similarities with the row of the memory into their scores a b / (a + b).
template <class T, int kSize>
__device__ void score(const Group<T, kSize>& group, const Rows<T>& rows, int count, double norm) {
  Members& members = group.members;
  const int m = static_cast<int>(threadIdx.x);
  const double a = m < count ? 1 - members.similarity[m] : 0;
  __syncthreads();
  group.measure(count, rows.scratch);
  if (m < count) {
    const double b = 1 + members.similarity[m] / norm;
    members.similarity[m] = a + b == 0 ? 0 : a * b / (a + b);
  }
  __syncthreads();
}

template <class T, int kSize, class Row>
__device__ void update_by_harmonic_sample(const Cluster<T, kSize>& cluster, const Rows<T>& rows, Row& row) {
  double highest = -INFINITY;
  Hardest best{cluster.first, 1};
  for_each_group(cluster, [&](const Group<T, kSize>& group) {
    const double norm = sum_of(group, rows.scratch);
    group.for_each_part(
        static_cast<const T*>(rows.memory), [] {},
        [&](int count) {
          score(group, rows, count, norm);
          for (int m = 0; m < count; ++m) {
            if (!(group.members.similarity[m] > highest)) continue;
            highest = group.members.similarity[m];
            best = {group.members.position[m], group.scale(m)};
          }
        });
  });
  Mixing<T, Row> mixing{cluster.params, row, cluster.sums};
  row.fetch();
  mixing.add_sample(best.position, best.scale);
  mixing.finish();
}

template <class T, int kSize, class Row>
__device__ void update_by_last(const Cluster<T, kSize>& cluster, Row& row) {
  const Hardest last = last_of(cluster);
  if (cluster.params.mode == Mode::kReplace) {
    row.fetch(cluster.params.features + last.position * cluster.params.dim);
    row.put(static_cast<T>(last.scale));
    return row.store(T{1});
  }
  Mixing<T, Row> mixing{cluster.params, row, cluster.sums};
  row.fetch();
  mixing.add_sample(last.position, last.scale);
  mixing.finish();
}

// One block per sample; the block of the first sample of a cluster updates it, the others exit.
// At least one block per multiprocessor: without this bound the compiler spills registers to fit more blocks.
template <class T, int kSize, class Row>
__global__ void __launch_bounds__(kThreads, 1)
    update_chosen_kernel(UpdateParams<T> params, int64_t clusters, bool normalize) {
  Members& members = *shared_memory<Members>();
  const int64_t label = params.labels[blockIdx.x];
  if (label < 0 || label >= clusters) return;
  Sums sums(members.sums);
  const Cluster<T, kSize> cluster{params, normalize, blockIdx.x, label, members, sums};
  if (cluster.has_earlier()) return;
  const Rows<T> rows{params.memory + label * params.dim,
                     params.scratch ? params.scratch + blockIdx.x * params.dim : nullptr};
  // Samples of groups are measured with the old row while the new one is computed.
  const bool apart = params.mode == Mode::kGroupFirst || params.mode == Mode::kGroupHardest;
  Row row(rows.memory, params.dim, apart ? rows.scratch : rows.memory);
  if (apart) update_by_samples_of_groups(cluster, rows, row);
  if (params.mode == Mode::kGroupMean) update_by_mean_of_group(cluster, rows, row);
  if (params.mode == Mode::kGroupHarmonic) update_by_harmonic_sample(cluster, rows, row);
  if (params.mode == Mode::kLast || params.mode == Mode::kReplace) update_by_last(cluster, row);
}

template <class T, int kSize, class Row>
void launch_chosen(const UpdateParams<T>& params, int64_t clusters, bool normalize, void* stream) {
  launch("memory update by chosen samples", update_chosen_kernel<T, kSize, Row>, params.batch, kThreads,
         sizeof(Members), stream, params, clusters, normalize);
}

}  // namespace

template <class T>
void update_chosen_cuda(const UpdateParams<T>& params, int64_t clusters, bool normalize, void* stream) {
  constexpr int kSize = kPackSize<T>;
  const bool packs = in_packs(params.features, params.dim) && in_packs(params.memory, params.dim) &&
                     in_packs(params.scratch, params.dim);
  if (params.dim > kLongestRow) {
    launch_chosen<T, 1, LongRow<T>>(params, clusters, normalize, stream);
  } else if (packs) {
    launch_chosen<T, kSize, HeldRow<T, kSize>>(params, clusters, normalize, stream);
  } else {
    launch_chosen<T, 1, HeldRow<T, 1>>(params, clusters, normalize, stream);
  }
}

template void update_chosen_cuda(const UpdateParams<float>&, int64_t, bool, void*);
template void update_chosen_cuda(const UpdateParams<double>&, int64_t, bool, void*);

}  // namespace ccfast::memory
