// The loops over rows and the sparse rows that all CPU kernels use.
#include <vector>

#include "check.h"
#include "common/csr.h"
#include "common/simd.h"
#include "samples.h"

namespace ccfast::native {
namespace {

constexpr int64_t kLengths[] = {0, 1, 5, 15, 16, 17, 33, 130};

TEST(products_and_distances_equal_plain_loops) {
  for (const int64_t dim : kLengths) {
    const std::vector<float> a = random_matrix<float>(1, dim, 1), b = random_matrix<float>(1, dim, 2);
    double product = 0;
    for (int64_t d = 0; d < dim; ++d) product += static_cast<double>(a[d]) * b[d];
    CHECK_NEAR(dot(a.data(), b.data(), dim), product, 1e-12);
    CHECK_NEAR(squared_distance(a.data(), b.data(), dim), squared_distance_of(a.data(), b.data(), dim), 1e-12);
    const std::vector<double> wide_a(a.begin(), a.end()), wide_b(b.begin(), b.end());
    CHECK_EQUAL(dot(wide_a.data(), wide_b.data(), dim), dot(a.data(), b.data(), dim));
  }
}

template <class T>
void check_mix(int64_t dim, double tolerance) {
  const std::vector<T> x = random_matrix<T>(1, dim, 3);
  std::vector<T> row = random_matrix<T>(1, dim, 4), expected = row;
  double squares = 0;
  for (int64_t d = 0; d < dim; ++d) {
    expected[d] = static_cast<T>(0.3) * expected[d] + static_cast<T>(0.7) * x[d];
    squares += static_cast<double>(expected[d]) * static_cast<double>(expected[d]);
  }
  CHECK_NEAR(mix(row.data(), x.data(), static_cast<T>(0.3), static_cast<T>(0.7), dim), squares, tolerance);
  CHECK_NEAR(row, expected, tolerance);
}

TEST(a_mix_equals_a_plain_loop) {
  for (const int64_t dim : kLengths) {
    check_mix<float>(dim, 1e-5);
    check_mix<double>(dim, 1e-13);
  }
}

TEST(chunks_become_rows_in_order) {
  std::vector<CsrChunk> chunks(3);
  chunks[0].counts = {2, 0};
  chunks[0].add(4, 0.5f);
  chunks[0].add(7, 0.25f);
  chunks[2].counts = {1};
  chunks[2].add(0, 1.0f);
  CHECK_EQUAL(count_entries(chunks), 3);
  const CsrRows rows = csr_of(chunks, 3);
  CHECK_EQUAL(rows.crow, (std::vector<int64_t>{0, 2, 2, 3}));
  CHECK_EQUAL(rows.col, (std::vector<int64_t>{4, 7, 0}));
  CHECK_EQUAL(rows.val, (std::vector<float>{0.5f, 0.25f, 1.0f}));
}

}  // namespace
}  // namespace ccfast::native
