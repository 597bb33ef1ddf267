// Inputs of the native tests: sizes without small divisors, the same numbers on every machine.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "common/csr.h"

namespace ccfast::native {

constexpr int64_t kRows[] = {1, 3, 67, 131};
constexpr int64_t kDims[] = {1, 5, 33, 130};

// Not std::uniform_real_distribution, whose numbers depend on the library.
class Numbers {
 public:
  explicit Numbers(unsigned seed) : generator_(seed) {}
  // In [-1, 1), a multiple of 2^-23.
  double next() { return static_cast<double>(generator_() >> 8) * 0x1p-23 - 1; }
  int64_t below(int64_t bound) { return static_cast<int64_t>(generator_()) % bound; }

 private:
  std::mt19937 generator_;
};

template <class T>
std::vector<T> random_matrix(int64_t rows, int64_t dim, unsigned seed = 1) {
  Numbers numbers(seed);
  std::vector<T> matrix(rows * dim);
  for (T& value : matrix) value = static_cast<T>(numbers.next());
  return matrix;
}

// Small integers: every product and sum is exact, and many are equal.
inline std::vector<float> tied_matrix(int64_t rows, int64_t dim, unsigned seed = 1) {
  Numbers numbers(seed);
  std::vector<float> matrix(rows * dim);
  for (float& value : matrix) value = static_cast<float>(numbers.below(3) - 1);
  return matrix;
}

// Labels in [lowest, classes).
inline std::vector<int64_t> random_labels(int64_t count, int64_t classes, int64_t lowest = 0, unsigned seed = 1) {
  Numbers numbers(seed);
  std::vector<int64_t> labels(count);
  for (int64_t& label : labels) label = lowest + numbers.below(classes - lowest);
  return labels;
}

// Rows around a few centres, divided by their norms.
inline std::vector<float> clustered_rows(int64_t rows, int64_t dim, unsigned seed = 1) {
  const int64_t clusters = std::max<int64_t>(1, rows / 12);
  const std::vector<double> centres = random_matrix<double>(clusters, dim, seed + 1);
  const std::vector<double> noise = random_matrix<double>(rows, dim, seed);
  std::vector<float> out(rows * dim);
  for (int64_t i = 0; i < rows; ++i) {
    double squares = 0;
    const auto value = [&](int64_t d) { return centres[i % clusters * dim + d] + 0.5 * noise[i * dim + d]; };
    for (int64_t d = 0; d < dim; ++d) squares += value(d) * value(d);
    for (int64_t d = 0; d < dim; ++d) out[i * dim + d] = static_cast<float>(value(d) / std::sqrt(squares));
  }
  return out;
}

inline double squared_distance_of(const float* a, const float* b, int64_t dim) {
  double sum = 0;
  for (int64_t d = 0; d < dim; ++d) {
    const double difference = static_cast<double>(a[d]) - static_cast<double>(b[d]);
    sum += difference * difference;
  }
  return sum;
}

// Sparse rows that own their memory.
struct CsrRows {
  std::vector<int64_t> crow{0}, col;
  std::vector<float> val;

  Csr view() const { return {static_cast<int64_t>(crow.size()) - 1, crow.data(), col.data(), val.data()}; }
  void end_row() { crow.push_back(static_cast<int64_t>(col.size())); }
};

inline CsrRows csr_of(std::vector<CsrChunk> chunks, int64_t rows) {
  CsrRows out;
  const int64_t entries = count_entries(chunks);
  out.crow.resize(rows + 1);
  out.col.resize(entries);
  out.val.resize(entries);
  write_chunks(chunks, out.crow.data(), out.col.data(), out.val.data());
  return out;
}

}  // namespace ccfast::native
