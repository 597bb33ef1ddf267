#include "checks.h"

namespace ccfast {
namespace {

int64_t first_true(const at::Tensor& mask) { return mask.to(at::kByte).argmax().item<int64_t>(); }

}  // namespace

void check_finite_rows(const char* name, const at::Tensor& value) {
  if (at::isfinite(value.sum(1)).all().item<bool>()) return;  // one pass; a sum that overflows is checked again
  const at::Tensor bad_rows = at::isfinite(value).all(1).logical_not();
  if (!bad_rows.any().item<bool>()) return;
  TORCH_CHECK_VALUE(false, name, ": expected finite values, got a non-finite value in row ", first_true(bad_rows));
}

void check_unit_rows(const char* name, const at::Tensor& value) {
  check_unit_rows(name, value, at::linalg_vector_norm(value, 2, at::IntArrayRef{1}));
}

void check_unit_rows(const char* name, const at::Tensor& value, const at::Tensor& norms) {
  if (norms.numel() == 0) return;
  const auto is_one = [](const at::Tensor& norm) { return (norm - 1).abs() <= kUnitNormTolerance; };
  const auto [least, most] = at::aminmax(norms);  // NaN where one is
  if (is_one(at::stack({least, most}).cpu()).all().item<bool>()) return;
  check_finite_rows(name, value);
  const int64_t row = first_true(at::logical_not(is_one(norms)));
  TORCH_CHECK_VALUE(false, name, ": expected rows of unit norm within ", kUnitNormTolerance,
                    " (torch.nn.functional.normalize), got norm ", norms[row].item<double>(), " in row ", row);
}

void check_labels(const char* name, const at::Tensor& value, int64_t classes, int64_t ignore) {
  const int64_t* label = value.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < value.numel(); ++i)
    TORCH_CHECK_VALUE((label[i] >= 0 && label[i] < classes) || label[i] == ignore, name, ": expected labels in [0, ",
                      classes, ") or ", ignore, " (left out), got ", label[i], " at position ", i);
}

}  // namespace ccfast
