// dbscan: labels by the definition of Ester et al., on the CPU and in the CUDA kernels.
#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

#include "check.h"
#include "dbscan/dbscan.h"
#include "orders.h"
#include "samples.h"

namespace ccfast::dbscan {
namespace {

struct Problem {
  int64_t rows, min_samples;
  float eps;
  std::vector<float> distances;  // [rows, rows]

  bool near(int64_t i, int64_t j) const { return distances[i * rows + j] <= eps; }
  bool core(int64_t i) const {
    int64_t within = 0;
    for (int64_t j = 0; j < rows; ++j) within += near(i, j);
    return within >= min_samples;
  }
  native::CsrRows sparse_rows(bool with_diagonal) const {
    native::CsrRows out;
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < rows; ++j) {
        if (i == j ? !with_diagonal : distances[i * rows + j] > 1.5f * eps) continue;
        out.col.push_back(j);
        out.val.push_back(distances[i * rows + j]);
      }
      out.end_row();
    }
    return out;
  }
};

// Points on a line, in a few chains.
template <class Function>
void for_each_problem(const Function& function) {
  for (const int64_t rows : native::kRows)
    for (const unsigned seed : {1u, 2u})
      for (const int64_t min_samples : {1, 2, 4})
        for (const float eps : {0.0f, 0.01f, 0.03f, 3.0f}) {
          const std::vector<float> place = native::random_matrix<float>(rows, 1, seed);
          std::vector<float> distances(rows * rows);
          for (int64_t p = 0; p < rows * rows; ++p) distances[p] = std::abs(place[p / rows] - place[p % rows]);
          function(Problem{rows, min_samples, eps, distances});
        }
}

// The lowest core that core i reaches through cores: spreads the lowest number until nothing changes.
std::vector<int64_t> lowest_reachable(const Problem& problem) {
  std::vector<int64_t> lowest(problem.rows);
  for (int64_t i = 0; i < problem.rows; ++i) lowest[i] = i;
  for (bool changed = true; changed;) {
    changed = false;
    for (int64_t i = 0; i < problem.rows; ++i)
      for (int64_t j = 0; problem.core(i) && j < problem.rows; ++j) {
        if (lowest[j] >= lowest[i] || !problem.near(i, j) || !problem.core(j)) continue;
        lowest[i] = lowest[j];
        changed = true;
      }
  }
  return lowest;
}

// cluster[i] = number of the cluster whose lowest core is i.
std::vector<int64_t> number_clusters(const Problem& problem, const std::vector<int64_t>& lowest) {
  std::vector<int64_t> cluster(problem.rows, -1);
  int64_t clusters = 0;
  for (int64_t i = 0; i < problem.rows; ++i)
    if (problem.core(i) && lowest[i] == i) cluster[i] = clusters++;
  return cluster;
}

std::vector<int64_t> label_naively(const Problem& problem) {
  const std::vector<int64_t> lowest = lowest_reachable(problem), cluster = number_clusters(problem, lowest);
  std::vector<int64_t> labels(problem.rows, -1);
  for (int64_t i = 0; i < problem.rows; ++i)
    for (int64_t j = 0; j < problem.rows; ++j) {
      if (!problem.core(j) || !problem.near(i, j)) continue;
      const int64_t label = cluster[lowest[j]];
      if (labels[i] < 0 || label < labels[i]) labels[i] = label;
    }
  return labels;
}

TEST(cpu_labels_follow_the_definition) {
  for_each_problem([](const Problem& problem) {
    const std::vector<int64_t> expected = label_naively(problem);
    std::vector<int64_t> labels(problem.rows, -7);
    CHECK_EQUAL(dense(problem.distances.data(), problem.rows, problem.eps, problem.min_samples, labels.data()), -1);
    CHECK_EQUAL(labels, expected);
    for (const bool with_diagonal : {true, false}) {
      labels.assign(problem.rows, -7);
      sparse(problem.sparse_rows(with_diagonal).view(), problem.eps, problem.min_samples, labels.data());
      CHECK_EQUAL(labels, expected);
    }
  });
}

TEST(a_nan_is_told_by_its_row) {
  std::vector<float> distances(9, 0.0f);
  distances[7] = NAN;
  std::vector<int64_t> labels(3);
  CHECK_EQUAL(dense(distances.data(), 3, 0.5f, 1, labels.data()), 2);
}

// --- the CUDA kernels, emulated ---

std::vector<int64_t> label_by_cuda(const Problem& problem, const DeviceDistances& distances) {
  std::vector<char> flags(problem.rows, 2);
  bool* core = reinterpret_cast<bool*>(flags.data());
  std::vector<int32_t> root(problem.rows, -7);
  std::vector<int64_t> is_root(problem.rows, -7), labels(problem.rows, -7);
  find_cores_cuda(distances, problem.min_samples, core, nullptr);
  join_cores_cuda(distances, core, root.data(), is_root.data(), nullptr);
  const std::vector<int64_t> lowest(root.begin(), root.end());
  CHECK_EQUAL(lowest, lowest_reachable(problem));
  std::vector<int64_t> roots_up_to(problem.rows);
  std::partial_sum(is_root.begin(), is_root.end(), roots_up_to.begin());
  label_cuda(distances, core, root.data(), roots_up_to.data(), labels.data(), nullptr);
  return labels;
}

TEST(cuda_labels_follow_the_definition) {
  for_each_problem([](const Problem& problem) {
    const std::vector<int64_t> expected = label_naively(problem);
    CHECK_EQUAL(label_by_cuda(problem, {problem.rows, nullptr, nullptr, problem.distances.data(), problem.eps}),
                expected);
    for (const bool with_diagonal : {true, false}) {
      const native::CsrRows rows = problem.sparse_rows(with_diagonal);
      CHECK_EQUAL(
          label_by_cuda(problem, {problem.rows, rows.crow.data(), rows.col.data(), rows.val.data(), problem.eps}),
          expected);
    }
  });
}

// While threads flatten the trees, other threads read what they write. A thread that halved paths could replace a root
// by a mere ancestor: in a chain, where cores are joined one by one, many threads are on the way at once.
TEST(roots_of_a_chain_do_not_depend_on_who_comes_first) {
  constexpr int64_t kPoints = 256;
  native::CsrRows chain;
  for (int64_t i = 0; i < kPoints; ++i) {
    for (int64_t j = std::max<int64_t>(i - 1, 0); j <= std::min(i + 1, kPoints - 1); ++j) {
      chain.col.push_back(j);
      chain.val.push_back(0.0f);
    }
    chain.end_row();
  }
  const std::vector<char> core(kPoints, 1);
  const DeviceDistances distances{kPoints, chain.crow.data(), chain.col.data(), chain.val.data(), 0.5f};
  int wrong = 0;
  for (int seed = 0; seed < 100; ++seed) {
    const emulation::WithOrder order(("shuffle:" + std::to_string(seed)).c_str());
    std::vector<int32_t> root(kPoints, -7);
    std::vector<int64_t> is_root(kPoints, -7);
    join_cores_cuda(distances, reinterpret_cast<const bool*>(core.data()), root.data(), is_root.data(), nullptr);
    wrong += std::any_of(root.begin(), root.end(), [](int32_t lowest) { return lowest != 0; });
  }
  CHECK_EQUAL(wrong, 0);
}

}  // namespace
}  // namespace ccfast::dbscan
