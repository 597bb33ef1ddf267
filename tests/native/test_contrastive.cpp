// contrastive: normalisation and softmax cross-entropy compared with plain loops in float64, on the CPU and in the CUDA
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

constexpr int64_t kPackedDims[] = {8, 64, 264};  // rows of whole packs of 16 bytes, of any type
constexpr int64_t kLongDims[] = {4097, 4104};    // more than the CUDA kernels hold in registers

// normalize_rows_cuda where the labels do not matter.
template <class In, class T>
void normalize_cuda(const In* x, int64_t rows, int64_t dim, T* out, double* norms) {
  double weight = NAN;
  normalize_rows_cuda(x, rows, dim, out, norms, {nullptr, 0, 1, -1, true, &weight}, nullptr);
}

// --- rows of unit norm ---

// Random rows; the last of several is zero.
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
  check_normalized<T>(x, rows, dim, [&](T* out, double* norms) { normalize_cuda(x.data(), rows, dim, out, norms); });
}

TEST(rows_are_divided_by_their_norms) {
  for (const int64_t rows : kRows)
    for (const int64_t dim : kDims) {
      check_both_normalize<float>(rows, dim);
      check_both_normalize<double>(rows, dim);
    }
}

TEST(rows_of_whole_packs_and_rows_longer_than_registers_are_divided_by_their_norms) {
  for (const int64_t dim : kPackedDims) {
    check_both_normalize<float>(67, dim);
    check_both_normalize<double>(67, dim);
  }
  for (const int64_t dim : kLongDims) {
    check_both_normalize<float>(2, dim);
    check_both_normalize<double>(2, dim);
  }
}

TEST(cuda_normalizes_rows_that_are_not_aligned) {
  const std::vector<float> store = native::random_matrix<float>(1, 1 + 3 * 64);
  const std::vector<float> x(store.begin() + 1, store.end());
  check_normalized<float>(x, 3, 64,
                          [&](float* out, double* norms) { normalize_cuda(store.data() + 1, 3, 64, out, norms); });
}

TEST(cuda_counts_the_labels_in_range_for_the_mean) {
  std::vector<int64_t> labels(1000, 3);
  const auto weight_of = [&](int64_t rows, bool mean) {
    double weight = NAN;
    normalize_rows_cuda<float, float>(nullptr, 0, 0, nullptr, nullptr, {labels.data(), rows, 5, 2, mean, &weight},
                                      nullptr);
    return weight;
  };
  CHECK_EQUAL(weight_of(1000, true), 1.0 / 1000);
  CHECK_EQUAL(weight_of(1000, false), 1.0);
  labels[0] = 2;    // ignored
  labels[500] = 5;  // no such class
  labels[999] = -1;
  CHECK_EQUAL(weight_of(1000, true), 1.0 / 997);
  CHECK_EQUAL(weight_of(1, true), 1.0);  // no sample counts
}

TEST(cuda_counts_labels_beside_the_rows) {
  const std::vector<int64_t> labels = {0, -1, 1, 1};
  const std::vector<float> x = some_rows<float>(3, 8);
  double weight = NAN;
  check_normalized<float>(x, 3, 8, [&](float* out, double* norms) {
    normalize_rows_cuda(x.data(), 3, 8, out, norms, {labels.data(), 4, 2, -1, true, &weight}, nullptr);
  });
  CHECK_EQUAL(weight, 1.0 / 3);
}

TEST(a_row_that_is_not_finite_is_told) {
  std::vector<float> x(15, 1.0f), out(15);
  std::vector<double> norms(3);
  x[7] = INFINITY;
  CHECK_EQUAL(normalize_rows(x.data(), 3, 5, out.data(), norms.data()), 1);
}

// Values that bfloat16 holds exactly: the upper half of their float32 bits.
TEST(cuda_reads_bfloat16_rows) {
  for (const int64_t dim : {1, 5, 33, 64, 130, 4097, 4104}) {
    std::vector<float> x = native::tied_matrix(3, dim);
    for (size_t i = 0; i < x.size(); ++i) x[i] += static_cast<float>(i % 5) / 8;
    std::vector<BFloat16Bits> bits(x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      uint32_t word;
      std::memcpy(&word, &x[i], sizeof word);
      bits[i] = static_cast<BFloat16Bits>(word >> 16);
    }
    check_normalized<float>(x, 3, dim,
                            [&](float* out, double* norms) { normalize_cuda(bits.data(), 3, dim, out, norms); });
  }
}

// 0, 1, -1, 0.5, -2 and the smallest half, as IEEE 754 binary16.
TEST(cuda_reads_half_rows) {
  const uint16_t codes[] = {0x0000, 0x3c00, 0xbc00, 0x3800, 0xc000, 0x0001};
  const float values[] = {0.0f, 1.0f, -1.0f, 0.5f, -2.0f, 0x1p-24f};
  for (const int64_t dim : {1, 5, 33, 64, 130, 4097, 4104}) {
    std::vector<float> x(3 * dim);
    std::vector<HalfBits> bits(3 * dim);
    for (int64_t i = 0; i < 3 * dim; ++i) {
      x[i] = values[(i + 1) % 6];
      bits[i] = static_cast<HalfBits>(codes[(i + 1) % 6]);
    }
    check_normalized<float>(x, 3, dim,
                            [&](float* out, double* norms) { normalize_cuda(bits.data(), 3, dim, out, norms); });
  }
}

template <class T>
constexpr LossesToSum<T> kNoLosses{nullptr, 0, nullptr, nullptr};

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
  normalize_rows_backward_cuda(by_cuda.data(), normalized.data(), n.norms.data(), rows, dim, kNoLosses<T>, nullptr);
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

TEST(the_gradient_of_the_normalisation_of_packs_and_of_long_rows_is_exact) {
  for (const int64_t dim : kPackedDims) {
    check_both_normalize_backward<float>(67, dim);
    check_both_normalize_backward<double>(67, dim);
  }
  for (const int64_t dim : kLongDims) {
    check_both_normalize_backward<float>(2, dim);
    check_both_normalize_backward<double>(2, dim);
  }
}

TEST(cuda_transforms_gradients_that_are_not_aligned) {
  const std::vector<float> unit = {0.6f, 0.8f, 0, 0};
  const std::vector<double> norms = {2};
  std::vector<float> store = {7, 1, 0, 0, 1, 7};
  normalize_rows_backward_cuda(store.data() + 1, unit.data(), norms.data(), 1, 4, kNoLosses<float>, nullptr);
  CHECK_NEAR(store, (std::vector<float>{7, 0.32f, -0.24f, 0, 0.5f, 7}), 1e-7);
}

template <class T>
void check_sum_of_losses() {
  const std::vector<T> losses = native::random_matrix<T>(1, 1000);
  const double weight = 0.125, expected = weight * std::accumulate(losses.begin(), losses.end(), 0.0);
  T loss = NAN;
  normalize_rows_backward_cuda<T>(nullptr, nullptr, nullptr, 0, 8, {losses.data(), 1000, &weight, &loss}, nullptr);
  CHECK_NEAR(loss, expected, tolerance<T>);

  std::vector<T> gradient(8, T{1}), unit(8, T{0});
  const double norm = 4;
  loss = NAN;
  normalize_rows_backward_cuda<T>(gradient.data(), unit.data(), &norm, 1, 8, {losses.data(), 1000, &weight, &loss},
                                  nullptr);
  CHECK_NEAR(loss, expected, tolerance<T>);
  CHECK_EQUAL(gradient, std::vector<T>(8, T{0.25}));
}

TEST(cuda_sums_the_losses_alone_or_beside_the_gradient) {
  check_sum_of_losses<float>();
  check_sum_of_losses<double>();
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
    return {logits.data(), classes,  labels.data(), weights.data(), 1, rows, classes, kTemperature,
            smoothing,     kIgnored, with_gradient, losses.data()};
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

// Rows of logits with a stride above their length: NaN in the gaps, and garbage after the last.
template <class T>
void check_padded_softmax(int64_t rows, int64_t classes, int64_t stride, double smoothing) {
  const Softmax<T> problem(rows, classes, smoothing);
  const Expected expected = softmax_naively(problem);
  std::vector<T> logits(rows * stride, NAN), losses(rows, NAN);
  for (int64_t i = 0; i < rows; ++i)
    std::copy_n(problem.products.data() + i * classes, classes, logits.data() + i * stride);
  SoftmaxParams<T> params = problem.params(logits, losses, true);
  params.stride = stride;
  softmax_cross_entropy_cuda(params, nullptr);
  CHECK_NEAR(std::vector<double>(losses.begin(), losses.end()), expected.losses, 10 * tolerance<T>);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < classes; ++j)
      CHECK_NEAR(logits[i * stride + j], expected.gradient[i * classes + j], 20 * tolerance<T>);
}

TEST(cuda_takes_rows_of_logits_that_are_padded) {
  for (const int64_t classes : {1, 2, 3, 4, 5, 127, 130, 4099})
    for (const double smoothing : {0.0, 0.1}) {
      check_padded_softmax<float>(3, classes, (classes + 3) / 4 * 4, smoothing);
      check_padded_softmax<double>(3, classes, (classes + 3) / 4 * 4, smoothing);
      check_padded_softmax<float>(3, classes, classes + 7, smoothing);
    }
}

TEST(one_weight_serves_all_rows) {
  Softmax<float> problem(5, 33, 0.0);
  std::fill(problem.weights.begin(), problem.weights.end(), 0.25);
  const Expected expected = softmax_naively(problem);
  problem.weights = std::vector<double>(1, 0.25);
  const auto with_one_weight = [](SoftmaxParams<float> params) {
    params.weight_stride = 0;
    return params;
  };
  check_softmax(problem, expected,
                [&](const SoftmaxParams<float>& params) { softmax_cross_entropy(with_one_weight(params)); });
  check_softmax(problem, expected, [&](const SoftmaxParams<float>& params) {
    softmax_cross_entropy_cuda(with_one_weight(params), nullptr);
  });
}

// The highest logit rises with every pack, comes first and is far above, or stays the same.
TEST(cuda_follows_the_highest_logit_along_the_row) {
  constexpr int64_t kClasses = 4128;
  Softmax<double> problem(3, kClasses, 0.0);
  problem.labels = {kClasses - 1, 2, 70};
  for (int64_t j = 0; j < kClasses; ++j) {
    problem.products[j] = static_cast<double>(j) / 128;
    problem.products[kClasses + j] = -static_cast<double>(j) / 128;
  }
  const Expected expected = softmax_naively(problem);
  Softmax<float> in_float(3, kClasses, 0.0);
  in_float.labels = problem.labels;
  in_float.weights = problem.weights;
  std::copy(problem.products.begin(), problem.products.end(), in_float.products.begin());
  check_softmax(in_float, expected,
                [](const SoftmaxParams<float>& params) { softmax_cross_entropy_cuda(params, nullptr); });
  check_softmax(problem, expected,
                [](const SoftmaxParams<double>& params) { softmax_cross_entropy_cuda(params, nullptr); });
}

TEST(cuda_gives_a_class_of_minus_infinity_no_share) {
  for (const int64_t stride : {5, 8}) {
    std::vector<float> logits(stride, NAN), losses(1, NAN);
    const float products[] = {-INFINITY, 0, -INFINITY, 0, 0};
    std::copy(products, products + 5, logits.begin());
    const int64_t label = 3;
    const double weight = 1;
    softmax_cross_entropy_cuda<float>(
        {logits.data(), stride, &label, &weight, 0, 1, 5, 1.0, 0.0, -1, true, losses.data()}, nullptr);
    CHECK_NEAR(losses[0], std::log(3.0), 1e-6);
    logits.resize(5);
    CHECK_NEAR(logits, (std::vector<float>{0, 1 / 3.0f, 0, -2 / 3.0f, 1 / 3.0f}), 1e-6);
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

// --- targets, mask, weights and temperatures ---

struct Extras {
  std::vector<double> targets, sharpness, row_weights;
  std::vector<char> mask;
};

Extras some_extras(int64_t rows, int64_t classes) {
  Extras extras{native::random_matrix<double>(rows, classes, 11), native::random_matrix<double>(1, classes, 12),
                native::random_matrix<double>(1, rows, 13), std::vector<char>(rows * classes, 1)};
  for (double& value : extras.sharpness) value = 1 + std::abs(value);
  for (int64_t p = 0; p < rows * classes; ++p) {
    extras.mask[p] = p % 3 != 1;
    if (!extras.mask[p] || p / classes == 1) extras.targets[p] = 0;  // row 1: no target
  }
  return extras;
}

// Loss of row i, and its gradient by the products in place.
double targets_naively(std::vector<double>& x, int64_t i, int64_t classes, const Extras& extras, double smoothing,
                       double factor) {
  const int64_t at = i * classes;
  const auto logit = [&](int64_t j) { return x[at + j] * extras.sharpness[j]; };
  double sum = 0, columns = 0, loss = 0, mass = 0, any = 0;
  for (int64_t j = 0; j < classes; ++j) {
    any += extras.targets[at + j] != 0;
    if (!extras.mask[at + j]) continue;
    sum += std::exp(logit(j));
    columns += 1;
  }
  std::vector<double> gradient(classes, 0.0);
  const auto target = [&](int64_t j) { return (1 - smoothing) * extras.targets[at + j] + smoothing / columns; };
  for (int64_t j = 0; any && j < classes; ++j) {
    if (!extras.mask[at + j]) continue;
    mass += target(j);
    loss += target(j) * (std::log(sum) - logit(j));
  }
  for (int64_t j = 0; any && j < classes; ++j)
    if (extras.mask[at + j])
      gradient[j] =
          factor * extras.row_weights[i] * extras.sharpness[j] * (mass * std::exp(logit(j)) / sum - target(j));
  std::copy(gradient.begin(), gradient.end(), x.begin() + at);
  return loss * extras.row_weights[i];
}

template <class T>
void check_targets(int64_t rows, int64_t classes, double smoothing) {
  const Extras extras = some_extras(rows, classes);
  const std::vector<T> products = native::random_matrix<T>(rows, classes, 14);
  std::vector<double> gradient(products.begin(), products.end()), losses(rows);
  for (int64_t i = 0; i < rows; ++i) losses[i] = targets_naively(gradient, i, classes, extras, smoothing, 0.5);
  const std::vector<T> targets(extras.targets.begin(), extras.targets.end()),
      sharpness(extras.sharpness.begin(), extras.sharpness.end());
  const double weight = 0.5;
  for (const bool cuda : {false, true}) {
    std::vector<T> x = products, found(rows, NAN);
    const SoftmaxParams<T> params{x.data(), classes, nullptr,   &weight, 0,    rows,
                                  classes,  1.0,     smoothing, -1,      true, found.data()};
    const TargetParams<T> extra{targets.data(), sharpness.data(), reinterpret_cast<const bool*>(extras.mask.data()),
                                extras.row_weights.data()};
    cuda ? softmax_cross_entropy_cuda(params, extra, nullptr) : softmax_cross_entropy(params, extra);
    CHECK_NEAR(std::vector<double>(found.begin(), found.end()), losses, 50 * tolerance<T>);
    CHECK_NEAR(std::vector<double>(x.begin(), x.end()), gradient, 50 * tolerance<T>);
  }
}

TEST(targets_masks_weights_and_temperatures_are_those_of_plain_loops) {
  for (const int64_t classes : {3, 8, 37, 300, 1028})
    for (const double smoothing : {0.0, 0.3}) {
      check_targets<float>(4, classes, smoothing);
      check_targets<double>(4, classes, smoothing);
    }
}

TEST(a_label_outside_the_mask_is_an_infinite_loss_on_cuda) {
  std::vector<float> x = {1, 2, 3, 4};
  const std::vector<int64_t> labels = {2};
  const bool mask[] = {true, true, false, true};
  const double weight = 1;
  float loss = 0;
  softmax_cross_entropy_cuda<float>({x.data(), 4, labels.data(), &weight, 0, 1, 4, 1.0, 0, -1, true, &loss},
                                    {nullptr, nullptr, mask, nullptr}, nullptr);
  CHECK_EQUAL(loss, INFINITY);
  CHECK_EQUAL(x[2], 0.0f);
}

}  // namespace
}  // namespace ccfast::contrastive
