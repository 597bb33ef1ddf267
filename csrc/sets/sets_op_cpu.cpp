// Glue of ccfast::set_contrastive_loss for CPU tensors.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>

#include <tuple>

#include "../common/checks.h"
#include "arguments.h"
#include "sets.h"

namespace ccfast {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

// A loss that is not finite comes from logits that are not, or from a multiplicity below 0.
void check_losses(const at::Tensor& losses, const sets::Arguments& in) {
  if (in.multiplicity)
    TORCH_CHECK_VALUE(in.multiplicity->min().item<int32_t>() >= 0, "multiplicity: expected 0 or more, got ",
                      in.multiplicity->min().item<int32_t>());
  if (!at::isfinite(losses).all().item<bool>()) check_finite_rows("logits", in.logits);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> set_contrastive_loss_cpu(const at::Tensor& logits,
                                                                        const at::Tensor& positives,
                                                                        const OptionalTensor& keep,
                                                                        const OptionalTensor& multiplicity) {
  const sets::Arguments in(logits, positives, keep, multiplicity);
  const at::Tensor losses = in.a_row_each(logits.scalar_type());
  const at::Tensor log_sums = in.a_row_each(at::kDouble), counts = in.a_row_each(at::kLong);
  AT_DISPATCH_FLOATING_TYPES(logits.scalar_type(), "set_contrastive_loss", [&] {
    sets::loss<scalar_t>({in.columns<scalar_t>(), losses.mutable_data_ptr<scalar_t>(),
                          log_sums.mutable_data_ptr<double>(), counts.mutable_data_ptr<int64_t>()});
  });
  check_losses(losses, in);
  return {losses, log_sums, counts};
}

at::Tensor set_contrastive_loss_backward_cpu(const at::Tensor& upstream, const at::Tensor& logits,
                                             const at::Tensor& positives, const OptionalTensor& keep,
                                             const OptionalTensor& multiplicity, const at::Tensor& log_sums,
                                             const at::Tensor& counts) {
  const sets::Arguments in(logits, positives, keep, multiplicity);
  sets::check_backward(upstream, logits, log_sums, counts);
  const at::Tensor g = upstream.contiguous(), sums = log_sums.contiguous(), n = counts.contiguous();
  const at::Tensor gradient = at::empty(logits.sizes(), logits.options());
  AT_DISPATCH_FLOATING_TYPES(logits.scalar_type(), "set_contrastive_loss", [&] {
    sets::backward<scalar_t>({in.columns<scalar_t>(), g.const_data_ptr<scalar_t>(), sums.const_data_ptr<double>(),
                              n.const_data_ptr<int64_t>(), gradient.mutable_data_ptr<scalar_t>()});
  });
  return gradient;
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CPU, m) {
  m.impl("set_contrastive_loss", set_contrastive_loss_cpu);
  m.impl("set_contrastive_loss_backward", set_contrastive_loss_backward_cpu);
}

}  // namespace ccfast
