// similarity: means per label and their gradient compared with plain loops, on the CPU and in the CUDA kernels.
#include <algorithm>
#include <numeric>
#include <vector>

#include "check.h"
#include "samples.h"
#include "similarity/similarity.h"

namespace ccfast::similarity {
namespace {

template <class T>
constexpr double tolerance = sizeof(T) == 4 ? 1e-6 : 1e-14;

template <class T>
void check_means(int64_t rows, int64_t columns, int64_t segments) {
  const std::vector<T> similarities = native::random_matrix<T>(rows, columns, 1);
  const std::vector<T> upstream = native::random_matrix<T>(rows, segments, 2);
  const std::vector<int64_t> labels = native::random_labels(columns, segments, -1);
  std::vector<int64_t> counts(segments), order(columns), first(segments + 1);
  std::vector<double> want(rows * segments), want_gradient(rows * columns);
  for (const int64_t label : labels)
    if (label >= 0) ++counts[label];
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) {
      if (labels[j] < 0) continue;
      want[i * segments + labels[j]] += static_cast<double>(similarities[i * columns + j]) / counts[labels[j]];
      want_gradient[i * columns + j] = static_cast<double>(upstream[i * segments + labels[j]]) / counts[labels[j]];
    }
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return labels[a] < labels[b]; });
  for (int64_t s = 0; s <= segments; ++s)
    first[s] = std::count_if(labels.begin(), labels.end(), [&](int64_t label) { return label < s; });

  std::vector<T> means(rows * segments), gradient(rows * columns);
  segment_mean<T>({similarities.data(), labels.data(), counts.data(), rows, columns, segments, means.data()});
  CHECK_NEAR(std::vector<double>(means.begin(), means.end()), want, tolerance<T>);
  segment_mean_cuda<T>({similarities.data(), order.data(), first.data(), rows, columns, segments, means.data()},
                       nullptr);
  CHECK_NEAR(std::vector<double>(means.begin(), means.end()), want, tolerance<T>);
  const BackwardParams<T> params{upstream.data(), labels.data(), counts.data(),  rows,
                                 columns,         segments,      gradient.data()};
  segment_mean_backward(params);
  CHECK_NEAR(std::vector<double>(gradient.begin(), gradient.end()), want_gradient, tolerance<T>);
  segment_mean_backward_cuda(params, nullptr);
  CHECK_NEAR(std::vector<double>(gradient.begin(), gradient.end()), want_gradient, tolerance<T>);
}

TEST(means_and_gradients_are_those_of_loops) {
  for (const int64_t rows : {1, 3, 67})
    for (const int64_t columns : native::kDims)
      for (const int64_t segments : {1, 7, 40}) {
        check_means<float>(rows, columns, segments);
        check_means<double>(rows, columns, segments);
      }
}

}  // namespace
}  // namespace ccfast::similarity
