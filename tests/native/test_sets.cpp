// sets: loss and gradient compared with plain loops, on the CPU and in the CUDA kernels.
#include <cmath>
#include <memory>
#include <vector>

#include "check.h"
#include "samples.h"
#include "sets/sets.h"

namespace ccfast::sets {
namespace {

template <class T>
constexpr double tolerance = sizeof(T) == 4 ? 2e-5 : 1e-12;

template <class T>
struct Sample {
  int64_t rows, columns;
  std::vector<T> logits;
  std::unique_ptr<bool[]> positives, keep;
  std::vector<int32_t> multiplicity;

  Sample(int64_t rows, int64_t columns)
      : rows(rows),
        columns(columns),
        logits(native::random_matrix<T>(rows, columns, 1)),
        positives(new bool[rows * columns]),
        keep(new bool[rows * columns]),
        multiplicity(rows * columns) {
    const std::vector<int64_t> draws = native::random_labels(rows * columns, 12, 0);
    for (int64_t i = 0; i < rows * columns; ++i) {
      positives[i] = draws[i] < 2;
      keep[i] = draws[i] != 5;
      multiplicity[i] = static_cast<int32_t>(draws[i] % 3);
    }
  }

  Columns<T> in(bool masked) const {
    return {logits.data(), positives.get(), masked ? keep.get() : nullptr, masked ? multiplicity.data() : nullptr,
            rows,          columns};
  }

  int times(int64_t i, bool masked) const { return !masked ? 1 : keep[i] ? multiplicity[i] : 0; }
};

// Losses, then the gradient of their sum.
template <class T>
std::vector<double> by_loops(const Sample<T>& sample, bool masked) {
  std::vector<double> losses, gradient;
  for (int64_t i = 0; i < sample.rows; ++i) {
    double sum = 0, positive = 0;
    int64_t count = 0;
    for (int64_t j = i * sample.columns; j < (i + 1) * sample.columns; ++j) {
      sum += sample.times(j, masked) * std::exp(static_cast<double>(sample.logits[j]));
      positive += sample.positives[j] ? sample.logits[j] : 0;
      count += sample.positives[j];
    }
    const bool counts = count > 0 && sum > 0;
    losses.push_back(counts ? std::log(sum) - positive / count : 0);
    for (int64_t j = i * sample.columns; j < (i + 1) * sample.columns; ++j)
      gradient.push_back(counts ? sample.times(j, masked) * std::exp(static_cast<double>(sample.logits[j])) / sum -
                                      (sample.positives[j] ? 1.0 / count : 0)
                                : 0);
  }
  losses.insert(losses.end(), gradient.begin(), gradient.end());
  return losses;
}

template <class T, class Loss, class Backward>
std::vector<double> computed(const Sample<T>& sample, bool masked, const Loss& loss_of, const Backward& backward_of) {
  std::vector<T> losses(sample.rows), upstream(sample.rows, T{1}), gradient(sample.rows * sample.columns);
  std::vector<double> log_sums(sample.rows);
  std::vector<int64_t> counts(sample.rows);
  loss_of(LossParams<T>{sample.in(masked), losses.data(), log_sums.data(), counts.data()});
  backward_of(BackwardParams<T>{sample.in(masked), upstream.data(), log_sums.data(), counts.data(), gradient.data()});
  std::vector<double> all(losses.begin(), losses.end());
  all.insert(all.end(), gradient.begin(), gradient.end());
  return all;
}

template <class T>
void check_all() {
  for (const int64_t rows : {1, 5})
    for (const int64_t columns : {1, 37, 300})
      for (const bool masked : {false, true}) {
        const Sample<T> sample(rows, columns);
        const std::vector<double> want = by_loops(sample, masked);
        CHECK_NEAR(computed(sample, masked, loss<T>, backward<T>), want, tolerance<T>);
        const auto loss_on_device = [](const LossParams<T>& params) { loss_cuda<T>(params, nullptr); };
        const auto backward_on_device = [](const BackwardParams<T>& params) { backward_cuda<T>(params, nullptr); };
        CHECK_NEAR(computed(sample, masked, loss_on_device, backward_on_device), want, tolerance<T>);
      }
}

TEST(losses_and_gradients_are_those_of_loops) {
  check_all<float>();
  check_all<double>();
}

}  // namespace
}  // namespace ccfast::sets
