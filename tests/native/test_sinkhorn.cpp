// sinkhorn: its stages compared with the plain algorithm, on the CPU and in the CUDA kernels.
#include <cmath>
#include <vector>

#include "check.h"
#include "samples.h"
#include "sinkhorn/sinkhorn.h"

namespace ccfast::sinkhorn {
namespace {

constexpr double kEpsilon = 0.2;
constexpr int kIterations = 3;

template <class T>
constexpr double tolerance = sizeof(T) == 4 ? 2e-6 : 1e-12;

// Scales columns to 1 / columns and rows to 1 / rows alternately; at the end rows to 1.
template <class T>
std::vector<double> by_loops(const std::vector<T>& scores, int64_t rows, int64_t columns) {
  std::vector<double> q;
  for (const T score : scores) q.push_back(std::exp(static_cast<double>(score) / kEpsilon));
  for (int iteration = 0; iteration < kIterations; ++iteration) {
    for (int64_t j = 0; j < columns; ++j) {
      double sum = 0;
      for (int64_t i = 0; i < rows; ++i) sum += q[i * columns + j];
      for (int64_t i = 0; i < rows; ++i) q[i * columns + j] /= sum * columns;
    }
    for (int64_t i = 0; i < rows; ++i) {
      double sum = 0;
      for (int64_t j = 0; j < columns; ++j) sum += q[i * columns + j];
      for (int64_t j = 0; j < columns; ++j) q[i * columns + j] /= sum;
    }
  }
  return q;
}

template <class T>
std::vector<double> by_stages(const std::vector<T>& scores, int64_t rows, int64_t columns, bool on_device) {
  std::vector<T> exponentials(scores.size()), assignment(scores.size());
  std::vector<double> sums(columns), factors(columns), partial(blocks_of_rows(rows) * columns);
  const ExpParams<T> exp_params{scores.data(), kEpsilon, rows, columns, exponentials.data(), sums.data()};
  const ScaledParams<T> scaled{exponentials.data(), factors.data(), rows, columns};
  on_device ? exponentiate_cuda(exp_params, partial.data(), nullptr) : (void)exponentiate(exp_params);
  for (int iteration = 0; iteration < kIterations; ++iteration) {
    if (iteration > 0)
      on_device ? column_sums_cuda(scaled, partial.data(), sums.data(), nullptr) : column_sums(scaled, sums.data());
    for (int64_t j = 0; j < columns; ++j) factors[j] = 1 / sums[j];
  }
  on_device ? assign_cuda(scaled, assignment.data(), nullptr) : assign(scaled, assignment.data());
  return {assignment.begin(), assignment.end()};
}

template <class T>
void check_all() {
  for (const int64_t rows : native::kRows)
    for (const int64_t columns : native::kDims) {
      const std::vector<T> scores = native::random_matrix<T>(rows, columns);
      for (const bool on_device : {false, true})
        CHECK_NEAR(by_stages(scores, rows, columns, on_device), by_loops(scores, rows, columns), tolerance<T>);
    }
}

TEST(stages_are_the_plain_algorithm) {
  check_all<float>();
  check_all<double>();
}

TEST(the_first_row_that_is_not_finite_is_told) {
  std::vector<float> scores = native::random_matrix<float>(200, 5), out(1000);
  std::vector<double> sums(5);
  const ExpParams<float> params{scores.data(), kEpsilon, 200, 5, out.data(), sums.data()};
  CHECK_EQUAL(exponentiate(params), -1);
  scores[170 * 5 + 2] = INFINITY;
  scores[131 * 5 + 4] = NAN;
  CHECK_EQUAL(exponentiate(params), 131);
}

}  // namespace
}  // namespace ccfast::sinkhorn
