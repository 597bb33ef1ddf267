#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "../common/parallel.h"
#include "../common/simd.h"
#include "memory.h"

namespace ccfast::memory {
namespace {

constexpr int64_t kSerialWork = 1 << 15;  // elements below which waking a second thread costs more than it saves

// Positions of the samples of each label, in batch order; samples of negative label are left out.
struct Groups {
  Groups(const int64_t* labels, int64_t count) {
    for (int64_t i = 0; i < count; ++i)
      if (labels[i] >= 0) order.push_back(i);
    std::stable_sort(order.begin(), order.end(), [labels](int64_t a, int64_t b) { return labels[a] < labels[b]; });
    for (size_t p = 0; p < order.size(); ++p)
      if (p == 0 || labels[order[p]] != labels[order[p - 1]]) start.push_back(static_cast<int64_t>(p));
    start.push_back(static_cast<int64_t>(order.size()));
  }
  int64_t size() const { return static_cast<int64_t>(start.size()) - 1; }

  std::vector<int64_t> order;  // positions, grouped by label
  std::vector<int64_t> start;  // [groups + 1]
};

template <class T>
void divide(T* row, int64_t dim, double squared_norm) {
  const T factor = static_cast<T>(1 / std::max(std::sqrt(squared_norm), kSmallestNorm));
  for (int64_t d = 0; d < dim; ++d) row[d] *= factor;
}

// One block of samples of one cluster, in batch order.
template <class T>
struct Members {
  const UpdateParams<T>& params;
  const int64_t* begin;
  const int64_t* end;

  const T* row(int64_t i) const { return params.features + i * params.dim; }
};

// The row keeps a pending factor between samples, so that each takes one pass: row * factor is the normalised memory.
template <class T>
void update_sequential(const Members<T>& members, T* row) {
  const UpdateParams<T>& params = members.params;
  double factor = 1, squared_norm = 0;
  for (const int64_t* i = members.begin; i != members.end; ++i) {
    squared_norm = mix(row, members.row(*i), static_cast<T>(params.momentum * factor),
                       static_cast<T>((1 - params.momentum) * params.scale[*i]), params.dim);
    factor = 1 / std::max(std::sqrt(squared_norm), kSmallestNorm);
  }
  divide(row, params.dim, squared_norm);
}

template <class T>
void update_hardest(const Members<T>& members, T* row) {
  const UpdateParams<T>& params = members.params;
  int64_t hardest = *members.begin;
  double lowest = INFINITY;
  for (const int64_t* i = members.begin; i != members.end; ++i) {
    const double similarity = dot(members.row(*i), row, params.dim) * params.scale[*i];
    if (similarity < lowest) {
      lowest = similarity;
      hardest = *i;
    }
  }
  const T factor = static_cast<T>((1 - params.momentum) * params.scale[hardest]);
  divide(row, params.dim, mix(row, members.row(hardest), params.momentum, factor, params.dim));
}

template <class T>
void update_mean(const Members<T>& members, T* row) {
  const UpdateParams<T>& params = members.params;
  std::vector<double> mean(params.dim, 0.0);
  for (const int64_t* i = members.begin; i != members.end; ++i) {
    const T* x = members.row(*i);
    for (int64_t d = 0; d < params.dim; ++d) mean[d] += params.scale[*i] * x[d];
  }
  const std::vector<T> sum(mean.begin(), mean.end());
  const T factor = static_cast<T>((1 - params.momentum) / static_cast<double>(members.end - members.begin));
  divide(row, params.dim, mix(row, sum.data(), params.momentum, factor, params.dim));
}

template <class T>
void update_cluster(const Members<T>& members, T* row) {
  switch (members.params.mode) {
    case Mode::kSequential:
      return update_sequential(members, row);
    case Mode::kHardest:
      return update_hardest(members, row);
    case Mode::kMean:
      return update_mean(members, row);
  }
}

}  // namespace

template <class T>
int64_t centroids(const CentroidParams<T>& params) {
  const Groups groups(params.labels, params.rows);
  if (groups.size() < params.clusters) {
    for (int64_t cluster = 0; cluster < params.clusters; ++cluster)
      if (cluster >= groups.size() || params.labels[groups.order[groups.start[cluster]]] != cluster) return cluster;
  }
  parallel_for(params.clusters, std::max<int64_t>(1, kSerialWork / params.dim), [&](int64_t begin, int64_t end) {
    std::vector<double> sum(params.dim);
    for (int64_t cluster = begin; cluster < end; ++cluster) {
      std::fill(sum.begin(), sum.end(), 0.0);
      const int64_t first = groups.start[cluster], last = groups.start[cluster + 1];
      for (int64_t p = first; p < last; ++p) {
        const T* x = params.features + groups.order[p] * params.dim;
        for (int64_t d = 0; d < params.dim; ++d) sum[d] += x[d];
      }
      for (double& value : sum) value /= static_cast<double>(last - first);
      const double norm = std::max(std::sqrt(dot(sum.data(), sum.data(), params.dim)), kSmallestNorm);
      for (int64_t d = 0; d < params.dim; ++d)
        params.centroids[cluster * params.dim + d] = static_cast<T>(sum[d] / norm);
    }
  });
  return -1;
}

template <class T>
void update(const UpdateParams<T>& params) {
  const Groups groups(params.labels, params.batch);
  const int64_t grain = params.batch * params.dim < kSerialWork ? groups.size() : 1;
  parallel_for(groups.size(), grain, [&](int64_t begin, int64_t end) {
    for (int64_t g = begin; g < end; ++g) {
      const int64_t* first = groups.order.data() + groups.start[g];
      const Members<T> members{params, first, groups.order.data() + groups.start[g + 1]};
      update_cluster(members, params.memory + params.labels[*first] * params.dim);
    }
  });
}

template <class T>
void row_norms(const T* matrix, int64_t rows, int64_t dim, double* norms) {
  parallel_for(rows, std::max<int64_t>(1, kSerialWork / std::max<int64_t>(dim, 1)), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) norms[i] = std::sqrt(dot(matrix + i * dim, matrix + i * dim, dim));
  });
}

template int64_t centroids(const CentroidParams<float>&);
template int64_t centroids(const CentroidParams<double>&);
template void update(const UpdateParams<float>&);
template void update(const UpdateParams<double>&);
template void row_norms(const float*, int64_t, int64_t, double*);
template void row_norms(const double*, int64_t, int64_t, double*);

}  // namespace ccfast::memory
