#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "../common/parallel.h"
#include "../common/simd.h"
#include "memory.h"

namespace ccfast::memory {
namespace {

constexpr int64_t kSerialWork = 1 << 15;  // elements below which a second thread costs more than it saves

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

// The factor that makes a row one of unit norm; if T cannot represent it well, the row is divided here: factor 1.
template <class T>
double unit_factor(T* row, int64_t dim, double squared_norm) {
  const double norm = std::sqrt(squared_norm);
  if (norm <= kLargestNorm || std::isnan(norm)) return 1 / std::max(norm, kSmallestNorm);
  double largest = 0, squares = 0;
  for (int64_t d = 0; d < dim; ++d) largest = std::max(largest, std::abs(static_cast<double>(row[d])));
  for (int64_t d = 0; d < dim; ++d) squares += row[d] / largest * (row[d] / largest);
  for (int64_t d = 0; d < dim; ++d) row[d] = static_cast<T>(row[d] / largest / std::sqrt(squares));
  return 1;
}

// row <- normalise(m row + weight x), one x after the other: the row keeps a pending factor between them, so that each
// takes one pass. row * factor is the normalised memory.
template <class T>
class Mixing {
 public:
  Mixing(const UpdateParams<T>& params, T* row) : params_(params), row_(row) {}

  void add(const T* x, double weight) {
    const T keep = static_cast<T>(params_.momentum * factor_);
    factor_ = unit_factor(row_, params_.dim, mix(row_, x, keep, static_cast<T>(weight), params_.dim));
  }
  void add_sample(int64_t i) { add(params_.features + i * params_.dim, (1 - params_.momentum) * params_.scale[i]); }
  void finish() {
    const T factor = static_cast<T>(factor_);
    for (int64_t d = 0; d < params_.dim; ++d) row_[d] *= factor;
  }

 private:
  const UpdateParams<T>& params_;
  T* row_;
  double factor_ = 1;
};

// Samples of one cluster, or of one group of it, in batch order.
template <class T>
struct Members {
  const UpdateParams<T>& params;
  const int64_t* begin;
  const int64_t* end;

  int64_t size() const { return end - begin; }
  const T* row(int64_t i) const { return params.features + i * params.dim; }
  // The inner product of the scaled sample i.
  double similarity(int64_t i, const T* other) const { return dot(row(i), other, params.dim) * params.scale[i]; }
  // The sample of lowest inner product with a row, the first of equal ones.
  int64_t hardest(const T* other) const {
    int64_t hardest = *begin;
    double lowest = INFINITY;
    for (const int64_t* i = begin; i != end; ++i) {
      const double found = similarity(*i, other);
      if (!(found < lowest)) continue;
      lowest = found;
      hardest = *i;
    }
    return hardest;
  }
  // The sum of the scaled samples.
  std::vector<T> sum() const {
    std::vector<double> sum(params.dim, 0.0);
    for (const int64_t* i = begin; i != end; ++i)
      for (int64_t d = 0; d < params.dim; ++d) sum[d] += params.scale[*i] * row(*i)[d];
    return {sum.begin(), sum.end()};
  }
};

// The groups of a cluster's samples, in the order in which they first occur.
template <class T>
class GroupsOf {
 public:
  explicit GroupsOf(const Members<T>& members) {
    std::vector<int64_t> seen, rank;
    for (const int64_t* i = members.begin; i != members.end; ++i) {
      const int64_t group = members.params.groups[*i];
      const auto found = std::find(seen.begin(), seen.end(), group);
      rank.push_back(found - seen.begin());
      if (found == seen.end()) seen.push_back(group);
    }
    const Groups groups(rank.data(), members.size());
    for (const int64_t position : groups.order) order_.push_back(members.begin[position]);
    for (int64_t g = 0; g < groups.size(); ++g)
      groups_.push_back({members.params, order_.data() + groups.start[g], order_.data() + groups.start[g + 1]});
  }
  auto begin() const { return groups_.begin(); }
  auto end() const { return groups_.end(); }

 private:
  std::vector<int64_t> order_;
  std::vector<Members<T>> groups_;
};

template <class T>
double norm_of(const std::vector<T>& row) {
  return std::max(std::sqrt(dot(row.data(), row.data(), static_cast<int64_t>(row.size()))), kSmallestNorm);
}

// The sum of the samples of the group whose normalised mean is least similar to the row.
template <class T>
std::vector<T> hardest_group(const Members<T>& members, const T* row) {
  std::vector<T> hardest;
  double lowest = INFINITY;
  for (const Members<T>& group : GroupsOf<T>(members)) {
    std::vector<T> sum = group.sum();
    const double similarity = dot(sum.data(), row, members.params.dim) / norm_of(sum);
    if (!hardest.empty() && !(similarity < lowest)) continue;
    lowest = similarity;
    hardest = std::move(sum);
  }
  return hardest;
}

// The sample far from the row and near to its group: the one with the highest a b / (a + b).
template <class T>
int64_t most_harmonic(const Members<T>& members, const T* row) {
  int64_t best = *members.begin;
  double highest = -INFINITY;
  for (const Members<T>& group : GroupsOf<T>(members)) {
    const std::vector<T> sum = group.sum();
    const double norm = norm_of(sum);
    for (const int64_t* i = group.begin; i != group.end; ++i) {
      const double a = 1 - group.similarity(*i, row), b = 1 + group.similarity(*i, sum.data()) / norm;
      const double score = a + b == 0 ? 0 : a * b / (a + b);
      if (!(score > highest)) continue;
      highest = score;
      best = *i;
    }
  }
  return best;
}

// One sample of every group, chosen before the row is updated.
template <class T>
std::vector<int64_t> one_per_group(const Members<T>& members, const T* row) {
  std::vector<int64_t> chosen;
  for (const Members<T>& group : GroupsOf<T>(members))
    chosen.push_back(members.params.mode == Mode::kGroupFirst ? *group.begin : group.hardest(row));
  return chosen;
}

template <class T>
void replace(const Members<T>& members, T* row) {
  const int64_t last = members.end[-1];
  const T scale = static_cast<T>(members.params.scale[last]);
  for (int64_t d = 0; d < members.params.dim; ++d) row[d] = members.row(last)[d] * scale;
}

template <class T>
void update_cluster(const Members<T>& members, T* row, const T* reference) {
  const UpdateParams<T>& params = members.params;
  const T rest = 1 - params.momentum;
  if (params.mode == Mode::kReplace) return replace(members, row);
  Mixing<T> mixing(params, row);
  switch (params.mode) {
    case Mode::kSequential:
      for (const int64_t* i = members.begin; i != members.end; ++i) mixing.add_sample(*i);
      break;
    case Mode::kHardest:
      mixing.add_sample(members.hardest(reference));
      break;
    case Mode::kMean:
      mixing.add(members.sum().data(), rest / static_cast<double>(members.size()));
      break;
    case Mode::kLast:
      mixing.add_sample(members.end[-1]);
      break;
    case Mode::kGroupFirst:
    case Mode::kGroupHardest:
      for (const int64_t i : one_per_group(members, row)) mixing.add_sample(i);
      break;
    case Mode::kGroupMean: {
      const std::vector<T> sum = hardest_group(members, row);
      mixing.add(sum.data(), rest / norm_of(sum));
      break;
    }
    case Mode::kGroupHarmonic:
      mixing.add_sample(most_harmonic(members, row));
      break;
    case Mode::kReplace:
      break;
  }
  mixing.finish();
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
      const int64_t at = params.labels[*first] * params.dim;
      update_cluster(members, params.memory + at, (params.reference ? params.reference : params.memory) + at);
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
