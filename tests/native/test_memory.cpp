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
    for (const int64_t i : members) {
      const std::vector<double> x = batch.sample(i);
      for (int64_t d = 0; d < batch.dim; ++d) mean[d] += x[d] / static_cast<double>(members.size());
    }
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

TEST(cuda_centroids_of_rows_of_any_length) {
  for (const int64_t dim : {4, 64, 2046, 2047, 2048, 2049, 2052, 5000}) {
    check_cuda_centroids<float>(19, dim);
    check_cuda_centroids<double>(19, dim);
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

// Every rule, with and without normalisation, against the plain loops; the rest of the batch is as `prepare` leaves it.
template <class T, class Prepare>
void check_cuda_updates_of(int64_t rows, int64_t dim, int64_t clusters, const Prepare& prepare) {
  for (const bool scaled : {false, true})
    for (const Mode mode : kModes) {
      Batch<T> batch(rows, dim, clusters, scaled);
      prepare(batch);
      std::vector<T> memory = batch.memory;
      update_cuda(batch.params(memory, mode), clusters, scaled, nullptr);
      CHECK_NEAR(memory, update_naively(batch, mode), tolerance<T>);
    }
}

const auto as_it_is = [](auto&) {};

// Whole packs; rows that just fit into registers; rows too long for them, which are updated where they are.
TEST(cuda_updates_rows_of_any_length) {
  for (const int64_t dim : {4, 64, 1030, 2046, 2047, 2048, 2049, 2052, 20011}) {
    check_cuda_updates_of<float>(9, dim, 3, as_it_is);
    check_cuda_updates_of<double>(9, dim, 3, as_it_is);
  }
}

TEST(cuda_updates_a_cluster_of_many_samples) {
  const auto one_cluster = [](auto& batch) { std::fill(batch.labels.begin(), batch.labels.end(), 1); };
  for (const int64_t rows : {255, 256, 257, 700}) {
    check_cuda_updates_of<float>(rows, 12, 2, one_cluster);
    check_cuda_updates_of<double>(rows, 7, 2, one_cluster);
  }
}

// Members so far apart that lists of them lie empty in between, and that no look at the samples nearby finds the first.
TEST(cuda_updates_clusters_whose_samples_are_far_apart) {
  const auto far_apart = [](auto& batch) {
    std::fill(batch.labels.begin(), batch.labels.end(), -1);
    for (const int64_t i : {0, 5, 2047, 2048, 2049, 2999}) batch.labels[i] = 0;
    for (const int64_t i : {900, 1700}) batch.labels[i] = 1;
    for (const int64_t i : {100, 2149}) batch.labels[i] = 2;
  };
  check_cuda_updates_of<float>(3000, 4, 3, far_apart);
}

TEST(cuda_updates_rows_that_are_not_aligned) {
  for (const Mode mode : kModes) {
    const Batch<float> batch(20, 64, 3, true);
    std::vector<float> features(1 + batch.features.size()), memory(1 + batch.memory.size());
    std::copy(batch.features.begin(), batch.features.end(), features.begin() + 1);
    std::copy(batch.memory.begin(), batch.memory.end(), memory.begin() + 1);
    UpdateParams<float> params = batch.params(memory, mode);
    params.memory = memory.data() + 1;
    params.features = features.data() + 1;
    update_cuda(params, batch.clusters, true, nullptr);
    memory.erase(memory.begin());
    CHECK_NEAR(memory, update_naively(batch, mode), tolerance<float>);
  }
}

// Equal products in one list of members and across two: the first sample counts.
TEST(cuda_takes_the_first_of_the_hardest_samples) {
  std::vector<float> features(600 * 4), memory = {1, 0, 0, 0};
  for (int i = 0; i < 600; ++i) features[4 * i + (i % 3 ? 1 : 0)] = 1;
  features[4 * 1 + 1] = 0;
  features[4 * 1 + 2] = 1;  // the first that is orthogonal
  const std::vector<int64_t> labels(600, 0);
  update_cuda<float>({memory.data(), features.data(), nullptr, labels.data(), 600, 4, 0.5f, Mode::kHardest}, 1, false,
                     nullptr);
  const float half = std::sqrt(0.5f);
  CHECK_NEAR(memory, (std::vector<float>{half, 0, half, 0}), 1e-6);
}

}  // namespace
}  // namespace ccfast::memory
