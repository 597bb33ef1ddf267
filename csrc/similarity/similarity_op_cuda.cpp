// Glue of ccfast::segment_mean for CUDA tensors. Nothing waits for the device: labels out of range are left out.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>

#include <tuple>

#include "../common/checks.h"
#include "../common/device.h"
#include "arguments.h"
#include "similarity.h"

namespace ccfast {
namespace {

std::tuple<at::Tensor, at::Tensor> segment_mean_cuda(const at::Tensor& similarities, const at::Tensor& labels,
                                                     int64_t num_segments) {
  similarity::check_mean(similarities, labels, num_segments);
  const DeviceScope device(similarities);
  const at::Tensor x = similarities.contiguous();
  const auto [sorted, order] = at::sort(labels, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  const at::Tensor first = at::searchsorted(sorted, at::arange(num_segments + 1, labels.options()));
  const at::Tensor means = at::empty({x.size(0), num_segments}, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "segment_mean", [&] {
    similarity::segment_mean_cuda<scalar_t>(
        {x.const_data_ptr<scalar_t>(), order.const_data_ptr<int64_t>(), first.const_data_ptr<int64_t>(), x.size(0),
         x.size(1), num_segments, means.mutable_data_ptr<scalar_t>()},
        device.stream());
  });
  return {means, first.diff()};
}

at::Tensor segment_mean_backward_cuda(const at::Tensor& upstream, const at::Tensor& labels, const at::Tensor& counts) {
  similarity::check_backward(upstream, labels, counts);
  const DeviceScope device(upstream);
  const at::Tensor g = upstream.contiguous(), y = labels.contiguous(), n = counts.contiguous();
  const at::Tensor gradient = at::empty({g.size(0), y.size(0)}, g.options());
  AT_DISPATCH_FLOATING_TYPES(g.scalar_type(), "segment_mean", [&] {
    similarity::segment_mean_backward_cuda<scalar_t>(
        {g.const_data_ptr<scalar_t>(), y.const_data_ptr<int64_t>(), n.const_data_ptr<int64_t>(), g.size(0), y.size(0),
         g.size(1), gradient.mutable_data_ptr<scalar_t>()},
        device.stream());
  });
  return gradient;
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CCFAST_DEVICE_KEY, m) {
  m.impl("segment_mean", segment_mean_cuda);
  m.impl("segment_mean_backward", segment_mean_backward_cuda);
}

}  // namespace ccfast
