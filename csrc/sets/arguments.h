// Arguments of set_contrastive_loss that every device shares.
#pragma once

#include <ATen/ATen.h>

#include <optional>

#include "../common/checks.h"
#include "sets.h"

namespace ccfast::sets {

inline void check_mask(const char* name, const at::Tensor& mask, const at::Tensor& logits, at::ScalarType dtype) {
  TORCH_CHECK_TYPE(mask.scalar_type() == dtype, name, ": expected dtype ", dtype, ", got ", mask.scalar_type());
  TORCH_CHECK_VALUE(mask.sizes() == logits.sizes(), name, ": expected shape ", logits.sizes(), " as logits, got ",
                    mask.sizes());
}

// The arguments as contiguous tensors, to which a Columns points.
struct Arguments {
  at::Tensor logits, positives;
  std::optional<at::Tensor> keep, multiplicity;

  Arguments(const at::Tensor& z, const at::Tensor& p, const std::optional<at::Tensor>& k,
            const std::optional<at::Tensor>& m)
      : logits(z.contiguous()), positives(p.contiguous()) {
    CCFAST_CHECK_DIM(logits, 2);
    check_mask("positives", positives, logits, at::kBool);
    if (k) check_mask("keep", *k, logits, at::kBool);
    if (m) check_mask("multiplicity", *m, logits, at::kInt);
    if (k) keep = k->contiguous();
    if (m) multiplicity = m->contiguous();
  }

  template <class T>
  Columns<T> columns() const {
    return {logits.const_data_ptr<T>(),
            positives.const_data_ptr<bool>(),
            keep ? keep->const_data_ptr<bool>() : nullptr,
            multiplicity ? multiplicity->const_data_ptr<int32_t>() : nullptr,
            logits.size(0),
            logits.size(1)};
  }

  at::Tensor a_row_each(at::ScalarType dtype) const {
    return at::empty({logits.size(0)}, logits.options().dtype(dtype));
  }
};

// The arguments of backward besides those of the loss.
inline void check_backward(const at::Tensor& upstream, const at::Tensor& logits, const at::Tensor& log_sums,
                           const at::Tensor& counts) {
  CCFAST_CHECK_DTYPE(upstream, logits.scalar_type());
  CCFAST_CHECK_DTYPE(log_sums, at::kDouble);
  CCFAST_CHECK_DTYPE(counts, at::kLong);
  for (const at::Tensor& each : {upstream, log_sums, counts})
    TORCH_CHECK_VALUE(each.dim() == 1 && each.size(0) == logits.size(0), "upstream, log_sums, counts: expected shape [",
                      logits.size(0), "], got ", each.sizes());
}

}  // namespace ccfast::sets
