#include "precision.h"

#include <ATen/Context.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "../common/checks.h"

namespace ccfast::knn {
namespace {

constexpr double kRoundoff = 0x1p-24;  // float32
constexpr double kDoubleRoundoff = 0x1p-53;

// Half the spacing of the numbers that products are computed from. Below "highest" torch may round float32 operands
// of a matrix product to TF32 or bfloat16 (torch.set_float32_matmul_precision).
double operand_roundoff(at::ScalarType type) {
  if (type == at::kHalf) return 0x1p-11;
  if (type == at::kBFloat16) return 0x1p-8;
  try {
    if (at::globalContext().float32MatmulPrecision() == at::Float32MatmulPrecision::HIGHEST) return 0;
  } catch (const std::exception&) {  // the caller mixes torch's two precision settings: assume the coarser
  }
  return 0x1p-8;
}

}  // namespace

at::ScalarType operand_type(std::string_view precision) {
  if (precision == "fp32") return at::kFloat;
  if (precision == "fp16") return at::kHalf;
  TORCH_CHECK_VALUE(precision == "bf16", "precision: expected one of 'fp32', 'fp16', 'bf16', got '",
                    std::string(precision), "'");
  return at::kBFloat16;
}

double scale_for(double largest, at::ScalarType type) {
  const bool ordinary = type == at::kHalf ? largest > 0.25 && largest <= 16 : largest > 0x1p-40 && largest < 0x1p40;
  if (largest == 0 || ordinary) return 1;
  const int exponent = -static_cast<int>(std::ceil(std::log2(largest) / 2));
  return std::ldexp(1.0, std::min(exponent, 120));  // the factor itself has to be a float32
}

// Rounding of the operands (fp16 also loses what lies below its smallest number), accumulation of dim products in
// float32 in any order, rounding of the result to the type of the product (cuBLAS may round partial sums of half
// products to half too, hence 4), of |y|^2 / 2 and of the difference.
ErrorBound error_bound(double largest, int64_t dim, at::ScalarType type) {
  const double operand = operand_roundoff(type);
  const double steps = static_cast<double>(dim + 4) * kRoundoff;
  const double result = type == at::kFloat ? 0 : 4 * operand;
  const double relative =
      (2 * operand + operand * operand + steps / (1 - std::min(steps, 0.5)) + result) * (1 + operand) * (1 + operand) +
      4 * kRoundoff;
  // Norms are at most 4 in float16, where a number or a result loses up to 2^-25 below the smallest normal one.
  const double root = std::sqrt(static_cast<double>(dim));
  const double vanished = type == at::kHalf ? (10 * root + 4) * 0x1p-25 : 0x1p-100 * root;
  return {relative, 4 * kRoundoff * largest + vanished};
}

double float64_error(int64_t dim) { return 2 * static_cast<double>(dim + 16) * kDoubleRoundoff; }

// <x, y> - <x', y'> = <x - x', y> + <x', y - y'>. Products of two bfloat16 numbers are exact in float32; the matrix
// units take numbers below 2^-126 as 0.
double half_error(RoundedNorm query, RoundedNorm target, int64_t dim) {
  const double rounded_query = query.norm + query.rounding, rounded_target = target.norm + target.rounding;
  const double steps = static_cast<double>(dim + 4) * kRoundoff;
  const double accumulation = steps / (1 - std::min(steps, 0.5)) * rounded_query * rounded_target;
  const double half_norms = 4 * kRoundoff * (query.norm * target.norm + target.norm * target.norm);
  return query.rounding * target.norm + rounded_query * target.rounding + accumulation + half_norms +
         0x1p-100 * std::sqrt(static_cast<double>(dim));
}

// As half_error, in terms of the query. Sums: matrix units cut off where float32 rounds, which is twice as coarse, and
// do so for every four products at worst. The result is rounded to float16 once, down to its smallest numbers
// (half_sums.h).
RowError float16_error(RoundedNorm target, int64_t dim) {
  constexpr double kHalfRoundoff = 0x1p-11;
  const double steps = 2 * static_cast<double>(dim + dim / 4 + 4) * kRoundoff;
  const double sums = steps / (1 - std::min(steps, 0.5));
  const double computed = (sums + kHalfRoundoff * (1 + sums)) * (target.norm + target.rounding);
  const double vanished = 0x1p-25 + 0x1p-100 * std::sqrt(static_cast<double>(dim));
  return {target.rounding + computed + 4 * kRoundoff * target.norm, target.norm + target.rounding + computed,
          4 * kRoundoff * target.norm * target.norm + vanished};
}

std::optional<int64_t> checked_own_rows(const at::Tensor& features, const std::optional<at::Tensor>& queries, int64_t k,
                                        std::optional<int64_t> row_begin) {
  const at::Tensor& rows = queries ? *queries : features;
  CCFAST_CHECK_DIM(features, 2);
  TORCH_CHECK_VALUE(rows.dim() == 2 && rows.size(1) == features.size(1), "queries: expected shape [Q, ",
                    features.size(1), "], got ", rows.sizes());
  TORCH_CHECK_VALUE(k >= 1 && k <= features.size(0), "k: expected 1 to ", features.size(0), ", got ", k);
  TORCH_CHECK_VALUE(features.size(0) < std::numeric_limits<int32_t>::max(), "features: expected fewer than 2^31 rows");
  TORCH_CHECK_VALUE(queries || !row_begin, "row_begin: expected together with queries");
  if (!queries) return 0;
  TORCH_CHECK_VALUE(!row_begin || (*row_begin >= 0 && *row_begin <= features.size(0) - rows.size(0)),
                    "row_begin: expected 0 to ", features.size(0) - rows.size(0), ", got ", row_begin.value_or(0));
  return row_begin;
}

}  // namespace ccfast::knn
