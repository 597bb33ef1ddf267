#include "half_panel.h"

#include <ATen/cpu/Utils.h>
#include <ATen/native/CPUBlas.h>

#include <algorithm>
#include <cmath>

#include "../common/parallel.h"
#include "../common/simd.h"
#include "knn.h"

namespace ccfast::knn {
namespace {

constexpr int64_t kRows = 64;  // rows of the operand multiplied at a time
constexpr int64_t kRowsAtATime = 1024;
constexpr double kInflation = 1 + 1e-9;  // covers the rounding of a norm computed in float64
constexpr int64_t kDimStep = 32;         // dimensions that a matrix unit takes at a time
constexpr int64_t kPackStep = 16;        // pairs of dimensions rearranged at a time: one cache line of each row

}  // namespace

bool has_half_panels() {
#ifdef CPUBLAS_BRGEMM_BF16BF16F32
  static const bool has = at::cpu::init_amx();
  return has;
#else
  return false;
#endif
}

at::Tensor half_operand(const at::Tensor& rows) {
  const int64_t dim = rows.size(1), padded_dim = round_up(dim, kDimStep);
  const at::Tensor operand =
      at::empty({round_up(rows.size(0), kRows), padded_dim}, rows.options().dtype(at::kBFloat16));
  operand.narrow(0, 0, rows.size(0)).narrow(1, 0, dim).copy_(rows);
  if (padded_dim != dim) operand.narrow(1, dim, padded_dim - dim).zero_();
  operand.narrow(0, rows.size(0), operand.size(0) - rows.size(0)).zero_();
  return operand;
}

std::vector<double> half_rounding(const at::Tensor& rows, const at::Tensor& operand) {
  const int64_t dim = rows.size(1);
  const float* exact = rows.const_data_ptr<float>();
  std::vector<double> rounding(rows.size(0));
  for (int64_t first = 0; first < rows.size(0); first += kRowsAtATime) {
    const int64_t count = std::min(kRowsAtATime, rows.size(0) - first);
    const at::Tensor block = operand.narrow(0, first, count).narrow(1, 0, dim).to(at::kFloat).contiguous();
    const float* rounded = block.const_data_ptr<float>();
    parallel_for_exact(count, 16, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        rounding[first + i] =
            std::sqrt(squared_distance(exact + (first + i) * dim, rounded + i * dim, dim)) * kInflation;
    });
  }
  return rounding;
}

// The matrix units read pairs of dimensions of neighbouring columns: a transposition of 32-bit words.
HalfPanel::HalfPanel(const at::Tensor& operand, int64_t first, int64_t count)
    : padded_dim_(operand.size(1)),
      blocks_((count + kColumns - 1) / kColumns),
      packed_(at::empty({blocks_, padded_dim_ / 2, kColumns, 2}, operand.options())) {
  const int64_t pairs = padded_dim_ / 2;
  const auto* rows = reinterpret_cast<const uint32_t*>(operand.const_data_ptr<at::BFloat16>()) + first * pairs;
  auto* packed = reinterpret_cast<uint32_t*>(packed_.mutable_data_ptr<at::BFloat16>());
  parallel_for(blocks_, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block)
      for (int64_t pair0 = 0; pair0 < pairs; pair0 += kPackStep)
        for (int64_t j = 0; j < kColumns; ++j) {
          const int64_t row = block * kColumns + j;
          uint32_t* out = packed + (block * pairs + pair0) * kColumns + j;
          for (int64_t p = 0; p < kPackStep; ++p) out[p * kColumns] = row < count ? rows[row * pairs + pair0 + p] : 0;
        }
  });
}

void HalfPanel::multiply(const at::Tensor& operand, int64_t first, int64_t count, float* tile) const {
#ifdef CPUBLAS_BRGEMM_BF16BF16F32
  const auto* rows = operand.const_data_ptr<at::BFloat16>() + first * padded_dim_;
  const auto* packed = packed_.const_data_ptr<at::BFloat16>();
  parallel_for((count + kRows - 1) / kRows, 1, [&](int64_t begin, int64_t end) {
    for (int64_t block = 0; block < blocks_; ++block)
      for (int64_t chunk = begin; chunk < end; ++chunk)
        at::native::cpublas::brgemm(kRows, kColumns, padded_dim_, padded_dim_, kColumns, stride(), /*add_C=*/false,
                                    rows + chunk * kRows * padded_dim_, packed + block * kColumns * padded_dim_,
                                    tile + chunk * kRows * stride() + block * kColumns);
    at::native::cpublas::brgemm_release();
  });
#else
  TORCH_INTERNAL_ASSERT(false, "knn: half panels without has_half_panels");
#endif
}

}  // namespace ccfast::knn
