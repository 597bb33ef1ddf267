// Products of bfloat16 rows accumulated in float32, on CPUs that have matrix units for them. ATen's own product of
// bfloat16 matrices rounds its result to bfloat16, which costs more certificates than rounding the operands does.
#pragma once

#include <ATen/ATen.h>

#include <vector>

namespace ccfast::knn {

// Whether this machine, and the torch that this was built with, have such a product.
bool has_half_panels();

// `rows` [n, dim] float32 in bfloat16 and padded with zeros, as HalfPanel reads them.
at::Tensor half_operand(const at::Tensor& rows);

// Norms of the rounding errors of half_operand(rows), in float64.
std::vector<double> half_rounding(const at::Tensor& rows, const at::Tensor& operand);

// Some rows of a half_operand, rearranged as the right-hand side of products.
class HalfPanel {
 public:
  HalfPanel(const at::Tensor& operand, int64_t first, int64_t count);

  // Writes <operand[first + i], panel[j]> to tile[i, j], of row stride stride(). `count` and the panel's rows are
  // rounded up to whole blocks: tile holds rows for 64 of the former, first is a multiple of 64.
  void multiply(const at::Tensor& operand, int64_t first, int64_t count, float* tile) const;
  int64_t stride() const { return blocks_ * kColumns; }

 private:
  static constexpr int64_t kColumns = 256;  // rows of the panel that stay in the second-level cache at 2048 dimensions

  int64_t padded_dim_, blocks_;
  at::Tensor packed_;  // [blocks, padded_dim / 2, kColumns, 2]
};

}  // namespace ccfast::knn
