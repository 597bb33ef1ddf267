// Glue of ccfast::sinkhorn's stages for CPU tensors.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>

#include <tuple>

#include "../common/checks.h"
#include "arguments.h"
#include "sinkhorn.h"

namespace ccfast {
namespace {

std::tuple<at::Tensor, at::Tensor> sinkhorn_exp_cpu(const at::Tensor& scores, double epsilon) {
  sinkhorn::check_scores(scores);
  const at::Tensor x = scores.contiguous();
  const at::Tensor exponentials = at::empty(x.sizes(), x.options());
  const at::Tensor sums = at::empty({x.size(1)}, x.options().dtype(at::kDouble));
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "sinkhorn", [&] {
    const sinkhorn::ExpParams<scalar_t> params{
        x.const_data_ptr<scalar_t>(),   epsilon, x.size(0), x.size(1), exponentials.mutable_data_ptr<scalar_t>(),
        sums.mutable_data_ptr<double>()};
    if (sinkhorn::exponentiate(params) >= 0) check_finite_rows("scores", x);
  });
  return {exponentials, sums};
}

at::Tensor sinkhorn_sums_cpu(const at::Tensor& exponentials, const at::Tensor& factors) {
  sinkhorn::check_factors(exponentials, factors);
  const at::Tensor e = exponentials.contiguous(), v = factors.contiguous(), sums = at::empty_like(v);
  AT_DISPATCH_FLOATING_TYPES(e.scalar_type(), "sinkhorn", [&] {
    const sinkhorn::ScaledParams<scalar_t> params{e.const_data_ptr<scalar_t>(), v.const_data_ptr<double>(), e.size(0),
                                                  e.size(1)};
    sinkhorn::column_sums(params, sums.mutable_data_ptr<double>());
  });
  return sums;
}

at::Tensor sinkhorn_assign_cpu(const at::Tensor& exponentials, const at::Tensor& factors) {
  sinkhorn::check_factors(exponentials, factors);
  const at::Tensor e = exponentials.contiguous(), v = factors.contiguous();
  const at::Tensor assignment = at::empty(e.sizes(), e.options());
  AT_DISPATCH_FLOATING_TYPES(e.scalar_type(), "sinkhorn", [&] {
    const sinkhorn::ScaledParams<scalar_t> params{e.const_data_ptr<scalar_t>(), v.const_data_ptr<double>(), e.size(0),
                                                  e.size(1)};
    sinkhorn::assign(params, assignment.mutable_data_ptr<scalar_t>());
  });
  return assignment;
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CPU, m) {
  m.impl("sinkhorn_exp", sinkhorn_exp_cpu);
  m.impl("sinkhorn_sums", sinkhorn_sums_cpu);
  m.impl("sinkhorn_assign", sinkhorn_assign_cpu);
}

}  // namespace ccfast
