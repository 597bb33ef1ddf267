// memory: centroids and the momentum updates compared with plain loops, on the CPU and in the CUDA kernels.
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

constexpr Mode kModes[] = {Mode::kSequential,   Mode::kHardest,   Mode::kMean,
                           Mode::kLast,         Mode::kReplace,   Mode::kGroupFirst,
                           Mode::kGroupHardest, Mode::kGroupMean, Mode::kGroupHarmonic};

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
  std::vector<int64_t> labels, groups;
  std::vector<double> scale;
  mutable std::vector<T> scratch;

  Batch(int64_t rows, int64_t dim, int64_t clusters, bool scaled, int64_t lowest_label = -1)
      : rows(rows),
        dim(dim),
        clusters(clusters),
        features(native::random_matrix<T>(rows, dim, 1)),
        memory(native::random_matrix<T>(clusters, dim, 2)),
        labels(native::random_labels(rows, clusters, lowest_label)),
        groups(rows),
        scale(rows, 1.0),
        scratch(rows * dim) {
    for (int64_t i = 0; i < rows; ++i) groups[i] = (i * i + i / 3) % 4;
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
    return {updated.data(), features.data(), scale.data(),  labels.data(), rows, dim, static_cast<T>(0.3),
            mode,           nullptr,         groups.data(), scratch.data()};
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

double inner(const double* a, const std::vector<double>& b) { return std::inner_product(b.begin(), b.end(), a, 0.0); }

template <class T>
std::vector<double> mean_of(const Batch<T>& batch, const std::vector<int64_t>& members) {
  std::vector<double> mean(batch.dim, 0.0);
  for (const int64_t i : members) {
    const std::vector<double> x = batch.sample(i);
    for (int64_t d = 0; d < batch.dim; ++d) mean[d] += x[d] / static_cast<double>(members.size());
  }
  return mean;
}

template <class T>
std::vector<std::vector<int64_t>> groups_of(const Batch<T>& batch, const std::vector<int64_t>& members) {
  std::vector<std::vector<int64_t>> groups;
  for (const int64_t i : members) {
    const auto same = [&](const auto& group) { return batch.groups[group[0]] == batch.groups[i]; };
    const auto found = std::find_if(groups.begin(), groups.end(), same);
    found == groups.end() ? groups.push_back({i}) : found->push_back(i);
  }
  return groups;
}

// The first of the candidates of lowest cost.
template <class Items, class Cost>
auto cheapest(const Items& items, const Cost& cost) {
  return *std::min_element(items.begin(), items.end(), [&](const auto& a, const auto& b) { return cost(a) < cost(b); });
}

template <class T>
std::vector<double> unit_mean(const Batch<T>& batch, const std::vector<int64_t>& members) {
  std::vector<double> mean = mean_of(batch, members);
  normalize(mean.data(), batch.dim);
  return mean;
}

template <class T>
int64_t most_harmonic_naively(const Batch<T>& batch, const double* row,
                              const std::vector<std::vector<int64_t>>& groups) {
  double highest = -INFINITY;
  int64_t best = -1;
  for (const auto& group : groups) {
    const std::vector<double> mean = unit_mean(batch, group);
    for (const int64_t i : group) {
      const double a = 1 - inner(row, batch.sample(i)), b = 1 + inner(mean.data(), batch.sample(i));
      if (!(a * b / (a + b) > highest)) continue;
      highest = a * b / (a + b);
      best = i;
    }
  }
  return best;
}

// The samples that are mixed into a row, in this order.
template <class T>
std::vector<std::vector<double>> chosen_naively(const Batch<T>& batch, const double* row,
                                                const std::vector<int64_t>& members, Mode mode) {
  const auto similarity = [&](int64_t i) { return inner(row, batch.sample(i)); };
  const auto groups = groups_of(batch, members);
  std::vector<std::vector<double>> chosen;
  if (mode == Mode::kSequential)
    for (const int64_t i : members) chosen.push_back(batch.sample(i));
  if (mode == Mode::kHardest) chosen.push_back(batch.sample(cheapest(members, similarity)));
  if (mode == Mode::kMean) chosen.push_back(mean_of(batch, members));
  if (mode == Mode::kLast) chosen.push_back(batch.sample(members.back()));
  for (const auto& group : groups) {
    if (mode == Mode::kGroupFirst) chosen.push_back(batch.sample(group[0]));
    if (mode == Mode::kGroupHardest) chosen.push_back(batch.sample(cheapest(group, similarity)));
  }
  if (mode == Mode::kGroupMean)
    chosen.push_back(
        unit_mean(batch, cheapest(groups, [&](const auto& group) { return inner(row, unit_mean(batch, group)); })));
  if (mode == Mode::kGroupHarmonic) chosen.push_back(batch.sample(most_harmonic_naively(batch, row, groups)));
  return chosen;
}

template <class T>
void update_naively(const Batch<T>& batch, double* row, const std::vector<int64_t>& members, double momentum,
                    Mode mode) {
  if (members.empty()) return;
  if (mode == Mode::kReplace) {
    const std::vector<double> last = batch.sample(members.back());
    std::copy(last.begin(), last.end(), row);
    return;
  }
  for (const auto& x : chosen_naively(batch, row, members, mode)) mix_in(row, x, momentum);
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

// A batch in which every cluster has a member, and a few samples are in no cluster.
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

// Every rule, with and without normalisation, compared with plain loops; `prepare` sets the rest of the batch.
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

// Whole packs; rows that just fit into registers; longer rows, which are updated in place.
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

// Members so far apart that lists between them are empty, and that a search nearby does not find the first.
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

TEST(the_hardest_sample_may_be_measured_against_another_row) {
  for (const int64_t dim : {7, 64, 2052}) {
    const Batch<float> batch(60, dim, 5, true);
    const std::vector<float> reference = native::random_matrix<float>(5, dim, 9);
    // With the reference as memory, the old row decides; the mixing then starts from the memory.
    std::vector<double> expected(batch.memory.begin(), batch.memory.end());
    for (int64_t c = 0; c < 5; ++c) {
      const std::vector<int64_t> members = members_of(batch, c);
      if (members.empty()) continue;
      const std::vector<double> other(reference.begin() + c * dim, reference.begin() + (c + 1) * dim);
      const auto hardest = cheapest(members, [&](int64_t i) { return inner(other.data(), batch.sample(i)); });
      mix_in(expected.data() + c * dim, batch.sample(hardest), static_cast<float>(0.3));
    }
    std::vector<float> by_cpu = batch.memory, by_cuda = batch.memory;
    UpdateParams<float> params = batch.params(by_cpu, Mode::kHardest);
    params.reference = reference.data();
    update(params);
    params.memory = by_cuda.data();
    update_cuda(params, 5, true, nullptr);
    CHECK_NEAR(by_cpu, std::vector<float>(expected.begin(), expected.end()), tolerance<float>);
    CHECK_NEAR(by_cuda, std::vector<float>(expected.begin(), expected.end()), tolerance<float>);
  }
}

// Equal products in one list of members and in two: the first sample counts.
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
