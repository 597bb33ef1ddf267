// memory: centroids and the momentum updates against plain loops, on the CPU and in the CUDA kernels.
#include <algorithm>
#include <numeric>
#include <vector>

#include "check.h"
#include "memory/memory.h"
#include "samples.h"

namespace ccfast::memory {
namespace {

using native::kDims;
using native::kRows;

constexpr Mode kModes[] = {Mode::kSequential, Mode::kHardest, Mode::kMean};

template <class T>
constexpr double tolerance = sizeof(T) == 4 ? 2e-6 : 1e-13;

// --- plain loops, in float64 ---

void normalize(double* row, int64_t dim) {
  const double norm = std::sqrt(std::inner_product(row, row + dim, row, 0.0));
  for (int64_t d = 0; d < dim; ++d) row[d] /= std::max(norm, kSmallestNorm);
}

template <class T>
struct Batch {
  int64_t rows, dim, clusters;
  std::vector<T> features, memory;
  std::vector<int64_t> labels;
  std::vector<double> scale;

  Batch(int64_t rows, int64_t dim, int64_t clusters, bool scaled, int64_t lowest_label = -1)
      : rows(rows),
        dim(dim),
        clusters(clusters),
        features(native::random_matrix<T>(rows, dim, 1)),
        memory(native::random_matrix<T>(clusters, dim, 2)),
        labels(native::random_labels(rows, clusters, lowest_label)),
        scale(rows, 1.0) {
    if (!scaled) return;
    row_norms(features.data(), rows, dim, scale.data());
    for (double& value : scale) value = 1 / std::max(value, kSmallestNorm);
  }

  // Sample i, scaled, in float64.
  std::vector<double> sample(int64_t i) const {
    std::vector<double> x(features.begin() + i * dim, features.begin() + (i + 1) * dim);
    for (double& value : x) value *= scale[i];
    return x;
  }

  UpdateParams<T> params(std::vector<T>& updated, Mode mode) const {
    return {updated.data(), features.data(), scale.data(), labels.data(), rows, dim, static_cast<T>(0.3), mode};
  }
};

template <class T>
std::vector<int64_t> members_of(const Batch<T>& batch, int64_t cluster) {
  std::vector<int64_t> members;
  for (int64_t i = 0; i < batch.rows; ++i)
    if (batch.labels[i] == cluster) members.push_back(i);
  return members;
}

// row <- normalise(m row + (1 - m) x)
void mix_in(double* row, const std::vector<double>& x, double momentum) {
  const int64_t dim = static_cast<int64_t>(x.size());
  for (int64_t d = 0; d < dim; ++d) row[d] = momentum * row[d] + (1 - momentum) * x[d];
  normalize(row, dim);
}

template <class T>
void update_naively(const Batch<T>& batch, double* row, const std::vector<int64_t>& members, double momentum,
                    Mode mode) {
  if (members.empty()) return;
  if (mode == Mode::kSequential) {
    for (const int64_t i : members) mix_in(row, batch.sample(i), momentum);
  } else if (mode == Mode::kHardest) {
    const auto similarity = [&](int64_t i) {
      return std::inner_product(row, row + batch.dim, batch.sample(i).begin(), 0.0);
    };
    mix_in(row,
           batch.sample(*std::min_element(members.begin(), members.end(),
                                          [&](int64_t a, int64_t b) { return similarity(a) < similarity(b); })),
           momentum);
  } else {
    std::vector<double> mean(batch.dim, 0.0);
    for (const int64_t i : members)
      for (int64_t d = 0; d < batch.dim; ++d) mean[d] += batch.sample(i)[d] / static_cast<double>(members.size());
    mix_in(row, mean, momentum);
  }
}

template <class T>
std::vector<T> update_naively(const Batch<T>& batch, Mode mode) {
  std::vector<double> memory(batch.memory.begin(), batch.memory.end());
  for (int64_t c = 0; c < batch.clusters; ++c)
    update_naively(batch, memory.data() + c * batch.dim, members_of(batch, c), static_cast<T>(0.3), mode);
  return {memory.begin(), memory.end()};
}

template <class T>
std::vector<T> centroids_naively(const Batch<T>& batch) {
  std::vector<T> out;
  for (int64_t c = 0; c < batch.clusters; ++c) {
    std::vector<double> mean(batch.dim, 0.0);
    for (const int64_t i : members_of(batch, c))
      for (int64_t d = 0; d < batch.dim; ++d) mean[d] += batch.features[i * batch.dim + d];
    normalize(mean.data(), batch.dim);
    out.insert(out.end(), mean.begin(), mean.end());
  }
  return out;
}

// A batch in which every cluster has a member, and a few samples have none.
template <class T>
Batch<T> full_batch(int64_t rows, int64_t dim) {
  const int64_t clusters = std::max<int64_t>(1, rows / 4);
  Batch<T> batch(rows, dim, clusters, false);
  std::iota(batch.labels.begin(), batch.labels.begin() + clusters, 0);
  return batch;
}

// --- CPU ---

template <class T>
void check_centroids(int64_t rows, int64_t dim) {
  Batch<T> batch = full_batch<T>(rows, dim);
  std::vector<T> found(batch.clusters * dim);
  const CentroidParams<T> params{batch.features.data(), batch.labels.data(), rows, dim, batch.clusters, found.data()};
  CHECK_EQUAL(centroids(params), -1);
  CHECK_NEAR(found, centroids_naively(batch), tolerance<T>);
}

TEST(cpu_centroids_are_normalised_means) {
  for (const int64_t rows : kRows)
    for (const int64_t dim : kDims) {
      check_centroids<float>(rows, dim);
      check_centroids<double>(rows, dim);
    }
}

TEST(a_cluster_without_a_member_is_told) {
  const std::vector<float> features(8, 1.0f);
  const std::vector<int64_t> labels = {0, 2, -1, 0};
  std::vector<float> found(6);
  CHECK_EQUAL(centroids<float>({features.data(), labels.data(), 4, 2, 3, found.data()}), 1);
}

template <class T, class Check>
void for_each_update(const Check& check) {
  for (const int64_t rows : kRows)
    for (const int64_t dim : kDims)
      for (const bool scaled : {false, true})
        for (const Mode mode : kModes) check(Batch<T>(rows, dim, /*clusters=*/7, scaled), mode, scaled);
}

template <class T>
void check_cpu_updates() {
  for_each_update<T>([](const Batch<T>& batch, Mode mode, bool) {
    std::vector<T> memory = batch.memory;
    update(batch.params(memory, mode));
    CHECK_NEAR(memory, update_naively(batch, mode), tolerance<T>);
  });
}

TEST(cpu_updates_equal_plain_loops) {
  check_cpu_updates<float>();
  check_cpu_updates<double>();
}

TEST(row_norms_are_exact) {
  const std::vector<float> matrix = {3, 4, 0, 0, -5, 12};
  std::vector<double> norms(3);
  row_norms(matrix.data(), 3, 2, norms.data());
  CHECK_EQUAL(norms, (std::vector<double>{5, 0, 13}));
}

// --- the CUDA kernels, emulated ---

template <class T>
void check_cuda_centroids(int64_t rows, int64_t dim) {
  const Batch<T> batch = full_batch<T>(rows, dim);
  std::vector<int64_t> order(rows), first(batch.clusters + 1, rows);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return batch.labels[a] < batch.labels[b]; });
  for (int64_t p = rows - 1; p >= 0; --p)
    if (batch.labels[order[p]] >= 0) first[batch.labels[order[p]]] = p;
  std::vector<T> found(batch.clusters * dim, NAN);
  centroids_cuda<T>({batch.features.data(), order.data(), first.data(), dim, batch.clusters, found.data()}, nullptr);
  CHECK_NEAR(found, centroids_naively(batch), tolerance<T>);
}

TEST(cuda_centroids_are_normalised_means) {
  for (const int64_t rows : kRows)
    for (const int64_t dim : kDims) {
      check_cuda_centroids<float>(rows, dim);
      check_cuda_centroids<double>(rows, dim);
    }
}

template <class T>
void check_cuda_updates() {
  for_each_update<T>([](const Batch<T>& batch, Mode mode, bool scaled) {
    std::vector<T> memory = batch.memory;
    UpdateParams<T> params = batch.params(memory, mode);
    params.scale = nullptr;
    update_cuda(params, batch.clusters, scaled, nullptr);
    CHECK_NEAR(memory, update_naively(batch, mode), tolerance<T>);
  });
}

TEST(cuda_updates_equal_plain_loops) {
  check_cuda_updates<float>();
  check_cuda_updates<double>();
}

TEST(cuda_skips_labels_that_no_cluster_has) {
  Batch<float> batch(67, 5, 7, false);
  batch.labels[3] = 7;
  batch.labels[20] = -100;
  const std::vector<float> expected = update_naively(batch, Mode::kSequential);
  std::vector<float> memory = batch.memory;
  update_cuda(batch.params(memory, Mode::kSequential), batch.clusters, false, nullptr);
  CHECK_NEAR(memory, expected, tolerance<float>);
}

// Rows too long for shared memory are updated where they are.
TEST(cuda_updates_rows_of_any_length) {
  for (const Mode mode : kModes) {
    const Batch<float> batch(3, 20011, 2, true);
    std::vector<float> memory = batch.memory;
    update_cuda(batch.params(memory, mode), batch.clusters, true, nullptr);
    CHECK_NEAR(memory, update_naively(batch, mode), tolerance<float>);
  }
}

}  // namespace
}  // namespace ccfast::memory
