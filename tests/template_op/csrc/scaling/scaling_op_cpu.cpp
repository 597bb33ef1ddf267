// Glue of ccfast::scale_rows for CPU tensors.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>

#include "arguments.h"
#include "scaling.h"

namespace ccfast {
namespace {

at::Tensor scale_rows_cpu(const at::Tensor& features, const at::Tensor& factors) {
  scaling::check_arguments(features, factors);
  const at::Tensor x = features.contiguous(), f = factors.contiguous();
  const at::Tensor out = at::empty(x.sizes(), x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "scale_rows", [&] {
    scaling::scale_rows<scalar_t>({x.const_data_ptr<scalar_t>(), f.const_data_ptr<scalar_t>(), x.size(0), x.size(1),
                                   out.mutable_data_ptr<scalar_t>()});
  });
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CPU, m) { m.impl("scale_rows", scale_rows_cpu); }

}  // namespace ccfast
