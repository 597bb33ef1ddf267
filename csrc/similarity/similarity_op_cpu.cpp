// Glue of ccfast::segment_mean for CPU tensors.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>

#include <tuple>

#include "../common/checks.h"
#include "arguments.h"
#include "similarity.h"

namespace ccfast {
namespace {

// How many columns each label has; raises for a label outside [0, segments) that is not -1.
at::Tensor counted(const at::Tensor& labels, int64_t segments) {
  check_labels("labels", labels, segments, -1);
  const at::Tensor counts = at::zeros({segments}, labels.options());
  int64_t* count = counts.mutable_data_ptr<int64_t>();
  const int64_t* label = labels.const_data_ptr<int64_t>();
  for (int64_t j = 0; j < labels.numel(); ++j)
    if (label[j] >= 0) ++count[label[j]];
  return counts;
}

std::tuple<at::Tensor, at::Tensor> segment_mean_cpu(const at::Tensor& similarities, const at::Tensor& labels,
                                                    int64_t num_segments) {
  similarity::check_mean(similarities, labels, num_segments);
  const at::Tensor x = similarities.contiguous(), y = labels.contiguous();
  const at::Tensor counts = counted(y, num_segments);
  const at::Tensor means = at::empty({x.size(0), num_segments}, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "segment_mean", [&] {
    similarity::segment_mean<scalar_t>({x.const_data_ptr<scalar_t>(), y.const_data_ptr<int64_t>(),
                                        counts.const_data_ptr<int64_t>(), x.size(0), x.size(1), num_segments,
                                        means.mutable_data_ptr<scalar_t>()});
  });
  return {means, counts};
}

at::Tensor segment_mean_backward_cpu(const at::Tensor& upstream, const at::Tensor& labels, const at::Tensor& counts) {
  similarity::check_backward(upstream, labels, counts);
  const at::Tensor g = upstream.contiguous(), y = labels.contiguous(), n = counts.contiguous();
  const at::Tensor gradient = at::empty({g.size(0), y.size(0)}, g.options());
  AT_DISPATCH_FLOATING_TYPES(g.scalar_type(), "segment_mean", [&] {
    similarity::segment_mean_backward<scalar_t>({g.const_data_ptr<scalar_t>(), y.const_data_ptr<int64_t>(),
                                                 n.const_data_ptr<int64_t>(), g.size(0), y.size(0), g.size(1),
                                                 gradient.mutable_data_ptr<scalar_t>()});
  });
  return gradient;
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CPU, m) {
  m.impl("segment_mean", segment_mean_cpu);
  m.impl("segment_mean_backward", segment_mean_backward_cpu);
}

}  // namespace ccfast
