// Glue of ccfast::set_contrastive_loss for CUDA tensors.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>

#include <tuple>

#include "../common/device.h"
#include "arguments.h"
#include "sets.h"

namespace ccfast {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

std::tuple<at::Tensor, at::Tensor, at::Tensor> set_contrastive_loss_cuda(const at::Tensor& logits,
                                                                         const at::Tensor& positives,
                                                                         const OptionalTensor& keep,
                                                                         const OptionalTensor& multiplicity) {
  const DeviceScope device(logits);
  const sets::Arguments in(logits, positives, keep, multiplicity);
  const at::Tensor losses = in.a_row_each(logits.scalar_type());
  const at::Tensor log_sums = in.a_row_each(at::kDouble), counts = in.a_row_each(at::kLong);
  AT_DISPATCH_FLOATING_TYPES(logits.scalar_type(), "set_contrastive_loss", [&] {
    sets::loss_cuda<scalar_t>({in.columns<scalar_t>(), losses.mutable_data_ptr<scalar_t>(),
                               log_sums.mutable_data_ptr<double>(), counts.mutable_data_ptr<int64_t>()},
                              device.stream());
  });
  return {losses, log_sums, counts};
}

at::Tensor set_contrastive_loss_backward_cuda(const at::Tensor& upstream, const at::Tensor& logits,
                                              const at::Tensor& positives, const OptionalTensor& keep,
                                              const OptionalTensor& multiplicity, const at::Tensor& log_sums,
                                              const at::Tensor& counts) {
  const DeviceScope device(logits);
  const sets::Arguments in(logits, positives, keep, multiplicity);
  sets::check_backward(upstream, logits, log_sums, counts);
  const at::Tensor g = upstream.contiguous(), sums = log_sums.contiguous(), n = counts.contiguous();
  const at::Tensor gradient = at::empty(logits.sizes(), logits.options());
  AT_DISPATCH_FLOATING_TYPES(logits.scalar_type(), "set_contrastive_loss", [&] {
    sets::backward_cuda<scalar_t>({in.columns<scalar_t>(), g.const_data_ptr<scalar_t>(), sums.const_data_ptr<double>(),
                                   n.const_data_ptr<int64_t>(), gradient.mutable_data_ptr<scalar_t>()},
                                  device.stream());
  });
  return gradient;
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CCFAST_DEVICE_KEY, m) {
  m.impl("set_contrastive_loss", set_contrastive_loss_cuda);
  m.impl("set_contrastive_loss_backward", set_contrastive_loss_backward_cuda);
}

}  // namespace ccfast
