// Glue of ccfast::sinkhorn's stages for CUDA tensors.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>

#include <tuple>

#include "../common/device.h"
#include "arguments.h"
#include "sinkhorn.h"

namespace ccfast {
namespace {

std::tuple<at::Tensor, at::Tensor> sinkhorn_exp_cuda(const at::Tensor& scores, double epsilon) {
  sinkhorn::check_scores(scores);
  const DeviceScope device(scores);
  const at::Tensor x = scores.contiguous();
  const at::Tensor exponentials = at::empty(x.sizes(), x.options());
  const at::Tensor sums = at::empty({x.size(1)}, x.options().dtype(at::kDouble));
  const at::Tensor partial = at::empty({sinkhorn::blocks_of_rows(x.size(0)), x.size(1)}, sums.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "sinkhorn", [&] {
    const sinkhorn::ExpParams<scalar_t> params{
        x.const_data_ptr<scalar_t>(),   epsilon, x.size(0), x.size(1), exponentials.mutable_data_ptr<scalar_t>(),
        sums.mutable_data_ptr<double>()};
    sinkhorn::exponentiate_cuda(params, partial.mutable_data_ptr<double>(), device.stream());
  });
  return {exponentials, sums};
}

at::Tensor sinkhorn_sums_cuda(const at::Tensor& exponentials, const at::Tensor& factors) {
  sinkhorn::check_factors(exponentials, factors);
  const DeviceScope device(exponentials);
  const at::Tensor e = exponentials.contiguous(), v = factors.contiguous(), sums = at::empty_like(v);
  const at::Tensor partial = at::empty({sinkhorn::blocks_of_rows(e.size(0)), e.size(1)}, sums.options());
  AT_DISPATCH_FLOATING_TYPES(e.scalar_type(), "sinkhorn", [&] {
    const sinkhorn::ScaledParams<scalar_t> params{e.const_data_ptr<scalar_t>(), v.const_data_ptr<double>(), e.size(0),
                                                  e.size(1)};
    sinkhorn::column_sums_cuda(params, partial.mutable_data_ptr<double>(), sums.mutable_data_ptr<double>(),
                               device.stream());
  });
  return sums;
}

at::Tensor sinkhorn_assign_cuda(const at::Tensor& exponentials, const at::Tensor& factors) {
  sinkhorn::check_factors(exponentials, factors);
  const DeviceScope device(exponentials);
  const at::Tensor e = exponentials.contiguous(), v = factors.contiguous();
  const at::Tensor assignment = at::empty(e.sizes(), e.options());
  AT_DISPATCH_FLOATING_TYPES(e.scalar_type(), "sinkhorn", [&] {
    const sinkhorn::ScaledParams<scalar_t> params{e.const_data_ptr<scalar_t>(), v.const_data_ptr<double>(), e.size(0),
                                                  e.size(1)};
    sinkhorn::assign_cuda(params, assignment.mutable_data_ptr<scalar_t>(), device.stream());
  });
  return assignment;
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CCFAST_DEVICE_KEY, m) {
  m.impl("sinkhorn_exp", sinkhorn_exp_cuda);
  m.impl("sinkhorn_sums", sinkhorn_sums_cuda);
  m.impl("sinkhorn_assign", sinkhorn_assign_cuda);
}

}  // namespace ccfast
