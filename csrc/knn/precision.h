// Arithmetic of the candidate search: operand types, scaling, and the bound on the error of a score that the
// certificate rests on. Shared by the CPU and the CUDA search.
#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <string_view>

#include "knn.h"

namespace ccfast::knn {

// Candidates kept beyond k, so that the error bound rarely reaches the k-th.
constexpr int64_t kExtraCandidates = 16;
constexpr int64_t kExtraHalfCandidates = 32;  // for products of half-precision rows
// If more than one row in this number has no certificate from half precision, float32 tiles search all rows.
constexpr int64_t kRowsPerOpenRow = 4;

// Type of the operands of the products: 'fp32', 'fp16' or 'bf16'.
at::ScalarType operand_type(std::string_view precision);

// A power of two that brings rows of squared norm up to `largest` to a norm of at most 1, where products neither
// overflow nor vanish; 1 if the rows already have an ordinary size for the type.
double scale_for(double largest, at::ScalarType type);

// |computed score - score| <= relative * sqrt(|x|^2 * largest) + absolute, for a query x against any target of squared
// norm up to `largest`.
// It does not include float64_error.
struct ErrorBound {
  double relative, absolute;
};

ErrorBound error_bound(double largest, int64_t dim, at::ScalarType type);

// The float64 rounding errors of a distance, |x|^2 and the certificate: at most 2 * float64_error(dim) * (|x| + |y|)^2;
// so the error of a score is raised by half of that. It matters only if norms differ by more than 2^29.
double float64_error(int64_t dim);

// A row's norm, and the norm of its rounding error in bfloat16.
struct RoundedNorm {
  double norm, rounding;
};

// |computed score - score| where bfloat16 rows are multiplied with sums in float32, for a query and any target of up to
// these norms. Rounding is measured, not bounded by the worst case of every number: it is a fifth of that.
double half_error(RoundedNorm query, RoundedNorm target, int64_t dim);

// The same where float16 rows are multiplied by a GPU's matrix units, and the products are float16.
RowError float16_error(RoundedNorm target, int64_t dim);

// Checks the arguments of an op call that memory safety rests on. Returns which row of features the first query is,
// where queries are rows of features: row_begin, or 0 where queries are left out.
std::optional<int64_t> checked_own_rows(const at::Tensor& features, const std::optional<at::Tensor>& queries, int64_t k,
                                        std::optional<int64_t> row_begin);

}  // namespace ccfast::knn
