// contrastive: normalisation and softmax cross-entropy against plain loops in float64, on the CPU and in the CUDA
// kernels.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <vector>

#include "check.h"
#include "contrastive/contrastive.h"
#include "samples.h"

namespace ccfast::contrastive {
namespace {

using native::kDims;
using native::kRows;

template <class T>
constexpr double tolerance = sizeof(T) == 4 ? 2e-6 : 1e-13;

// --- rows of unit norm ---

// Random rows, the last of which is zero where there are several.
template <class T>
std::vector<T> some_rows(int64_t rows, int64_t dim) {
  std::vector<T> x = native::random_matrix<T>(rows, dim);
  if (rows > 1) std::fill(x.end() - dim, x.end(), T{0});
  return x;
}

struct Normalized {
  std::vector<double> rows, norms;
};

template <class T>
Normalized normalize_naively(const std::vector<T>& x, int64_t rows, int64_t dim) {
  Normalized out{{x.begin(), x.end()}, std::vector<double>(rows)};
  for (int64_t i = 0; i < rows; ++i) {
    double* row = out.rows.data() + i * dim;
    out.norms[i] = std::sqrt(std::inner_product(row, row + dim, row, 0.0));
    for (int64_t d = 0; d < dim; ++d) row[d] /= std::max(out.norms[i], kSmallestNorm);
  }
  return out;
}

// By normalize(out, norms), against the plain loop.
template <class T, class In, class Normalize>
void check_normalized(const std::vector<In>& x, int64_t rows, int64_t dim, const Normalize& normalize) {
  const Normalized expected = normalize_naively(x, rows, dim);
  std::vector<T> out(rows * dim, NAN);
  std::vector<double> norms(rows, NAN);
  normalize(out.data(), norms.data());
  CHECK_NEAR(std::vector<double>(out.begin(), out.end()), expected.rows, tolerance<T>);
  CHECK_NEAR(norms, expected.norms, 1e-12);
}

template <class T>
void check_both_normalize(int64_t rows, int64_t dim) {
  const std::vector<T> x = some_rows<T>(rows, dim);
  check_normalized<T>(x, rows, dim,
                      [&](T* out, double* norms) { CHECK_EQUAL(normalize_rows(x.data(), rows, dim, out, norms), -1); });
  check_normalized<T>(x, rows, dim, [&](T* out, double* norms) {
    normalize_rows_cuda<T, T>(x.data(), rows, dim, out, norms, nullptr);
  });
}

TEST(rows_are_divided_by_their_norms) {
  for (const int64_t rows : kRows)
    for (const int64_t dim : kDims) {
      check_both_normalize<float>(rows, dim);
      check_both_normalize<double>(rows, dim);
    }
}

TEST(a_row_that_is_not_finite_is_told) {
  std::vector<float> x(15, 1.0f), out(15);
  std::vector<double> norms(3);
  x[7] = INFINITY;
  CHECK_EQUAL(normalize_rows(x.data(), 3, 5, out.data(), norms.data()), 1);
}

// Values that bfloat16 holds exactly: the upper half of their float32 bits.
TEST(cuda_reads_bfloat16_rows) {
  for (const int64_t dim : kDims) {
    std::vector<float> x = native::tied_matrix(3, dim);
    for (size_t i = 0; i < x.size(); ++i) x[i] += static_cast<float>(i % 5) / 8;
    std::vector<BFloat16Bits> bits(x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      uint32_t word;
      std::memcpy(&word, &x[i], sizeof word);
      bits[i] = static_cast<BFloat16Bits>(word >> 16);
    }
    check_normalized<float>(
        x, 3, dim, [&](float* out, double* norms) { normalize_rows_cuda(bits.data(), 3, dim, out, norms, nullptr); });
  }
}

// 0, 1, -1, 0.5, -2 and the smallest half, as IEEE 754 binary16.
TEST(cuda_reads_half_rows) {
  const uint16_t codes[] = {0x0000, 0x3c00, 0xbc00, 0x3800, 0xc000, 0x0001};
  const float values[] = {0.0f, 1.0f, -1.0f, 0.5f, -2.0f, 0x1p-24f};
  for (const int64_t dim : kDims) {
    std::vector<float> x(3 * dim);
    std::vector<HalfBits> bits(3 * dim);
    for (int64_t i = 0; i < 3 * dim; ++i) {
      x[i] = values[(i + 1) % 6];
      bits[i] = static_cast<HalfBits>(codes[(i + 1) % 6]);
    }
    check_normalized<float>(
        x, 3, dim, [&](float* out, double* norms) { normalize_rows_cuda(bits.data(), 3, dim, out, norms, nullptr); });
  }
}

template <class T>
void check_both_normalize_backward(int64_t rows, int64_t dim) {
  const std::vector<T> x = some_rows<T>(rows, dim), upstream = native::random_matrix<T>(rows, dim, 5);
  const Normalized n = normalize_naively(x, rows, dim);
  std::vector<double> expected(upstream.begin(), upstream.end());
  for (int64_t i = 0; i < rows; ++i) {
    double* g = expected.data() + i * dim;
    const double* row = n.rows.data() + i * dim;
    const double along = n.norms[i] < kSmallestNorm ? 0 : std::inner_product(g, g + dim, row, 0.0);
    for (int64_t d = 0; d < dim; ++d) g[d] = (g[d] - along * row[d]) / std::max(n.norms[i], kSmallestNorm);
  }
  const std::vector<T> normalized(n.rows.begin(), n.rows.end());
  std::vector<T> by_cpu = upstream, by_cuda = upstream;
  normalize_rows_backward(by_cpu.data(), normalized.data(), n.norms.data(), rows, dim);
  normalize_rows_backward_cuda(by_cuda.data(), normalized.data(), n.norms.data(), rows, dim, nullptr);
  for (int64_t p = 0; p < rows * dim; ++p) {
    const double size = std::max(1.0, 1 / std::max(n.norms[p / dim], kSmallestNorm));
    CHECK_NEAR(by_cpu[p], expected[p], tolerance<T> * size);
    CHECK_NEAR(by_cuda[p], expected[p], tolerance<T> * size);
  }
}

TEST(the_gradient_of_the_normalisation_is_exact) {
  for (const int64_t rows : kRows)
    for (const int64_t dim : kDims) {
      check_both_normalize_backward<float>(rows, dim);
      check_both_normalize_backward<double>(rows, dim);
    }
}

// --- softmax cross-entropy ---

template <class T>
struct Softmax {
  int64_t rows, classes;
  double smoothing;
  std::vector<T> products;
  std::vector<int64_t> labels;
  std::vector<double> weights;

  Softmax(int64_t rows, int64_t classes, double smoothing)
      : rows(rows),
        classes(classes),
        smoothing(smoothing),
        products(native::random_matrix<T>(rows, classes)),
        labels(native::random_labels(rows, classes, -1)),
        weights(native::random_matrix<double>(1, rows, 6)) {}

  SoftmaxParams<T> params(std::vector<T>& logits, std::vector<T>& losses, bool with_gradient) const {
    return {logits.data(), labels.data(), weights.data(), rows,          classes,
            kTemperature,  smoothing,     kIgnored,       with_gradient, losses.data()};
  }

  static constexpr double kTemperature = 0.05;
  static constexpr int64_t kIgnored = -1;
};

struct Expected {
  std::vector<double> losses, gradient;
};

template <class T>
Expected softmax_naively(const Softmax<T>& problem) {
  Expected out;
  const double temperature = problem.kTemperature, smoothing = problem.smoothing;
  for (int64_t i = 0; i < problem.rows; ++i) {
    const T* z = problem.products.data() + i * problem.classes;
    const int64_t classes = problem.classes, label = problem.labels[i];
    if (label == problem.kIgnored) {
      out.losses.push_back(0);
      out.gradient.insert(out.gradient.end(), classes, 0.0);
      continue;
    }
    double sum = 0, mean = 0;
    for (int64_t j = 0; j < classes; ++j) sum += std::exp(z[j] / temperature);
    for (int64_t j = 0; j < classes; ++j) mean += z[j] / temperature / static_cast<double>(classes);
    out.losses.push_back(std::log(sum) - (1 - smoothing) * z[label] / temperature - smoothing * mean);
    for (int64_t j = 0; j < classes; ++j)
      out.gradient.push_back(problem.weights[i] / temperature *
                             (std::exp(z[j] / temperature) / sum - (j == label ? 1 - smoothing : 0) -
                              smoothing / static_cast<double>(classes)));
  }
  return out;
}

template <class T, class Run>
void check_softmax(const Softmax<T>& problem, const Expected& expected, const Run& run) {
  for (const bool with_gradient : {true, false}) {
    std::vector<T> logits = problem.products, losses(problem.rows, NAN);
    run(problem.params(logits, losses, with_gradient));
    CHECK_NEAR(std::vector<double>(losses.begin(), losses.end()), expected.losses, 10 * tolerance<T>);
    if (!with_gradient) continue;
    CHECK_NEAR(std::vector<double>(logits.begin(), logits.end()), expected.gradient, 20 * tolerance<T>);
  }
}

template <class T>
void check_both_softmax(int64_t rows, int64_t classes, double smoothing) {
  const Softmax<T> problem(rows, classes, smoothing);
  const Expected expected = softmax_naively(problem);
  check_softmax(problem, expected, [](const SoftmaxParams<T>& params) { softmax_cross_entropy(params); });
  check_softmax(problem, expected, [](const SoftmaxParams<T>& params) { softmax_cross_entropy_cuda(params, nullptr); });
}

TEST(the_loss_and_its_gradient_equal_plain_loops) {
  for (const int64_t rows : kRows)
    for (const int64_t classes : {1, 5, 33, 130, 300})
      for (const double smoothing : {0.0, 0.1}) {
        check_both_softmax<float>(rows, classes, smoothing);
        check_both_softmax<double>(rows, classes, smoothing);
      }
}

TEST(cuda_ignores_labels_out_of_range) {
  Softmax<float> problem(3, 5, 0.0);
  problem.labels = {5, -100, 2};
  std::vector<float> logits = problem.products, losses(3, NAN);
  softmax_cross_entropy_cuda(problem.params(logits, losses, true), nullptr);
  CHECK_EQUAL(losses[0], 0.0f);
  CHECK_EQUAL(losses[1], 0.0f);
  CHECK(losses[2] > 0);
  for (int j = 0; j < 10; ++j) CHECK_EQUAL(logits[j], 0.0f);
}

}  // namespace
}  // namespace ccfast::contrastive
