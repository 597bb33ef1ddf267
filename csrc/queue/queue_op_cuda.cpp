// Glue of ccfast::enqueue_ for CUDA tensors. The pointer stays on the device.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>

#include <optional>

#include "../common/device.h"
#include "arguments.h"
#include "queue.h"

namespace ccfast {
namespace {

void enqueue_cuda_(at::Tensor& queue, const std::optional<at::Tensor>& pointer, const at::Tensor& rows) {
  queue::check_arguments(queue, pointer, rows);
  const DeviceScope device(queue);
  const at::Tensor written = queue.contiguous(), x = rows.contiguous();
  AT_DISPATCH_FLOATING_TYPES(queue.scalar_type(), "enqueue_", [&] {
    const queue::Params<scalar_t> params{written.mutable_data_ptr<scalar_t>(), x.const_data_ptr<scalar_t>(),
                                         queue.size(0), x.size(0), x.size(1)};
    pointer ? queue::enqueue_ring_cuda(params, pointer->mutable_data_ptr<int64_t>(), device.stream())
            : queue::enqueue_front_cuda(params, device.stream());
  });
  queue::finish(queue, written);
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CCFAST_DEVICE_KEY, m) { m.impl("enqueue_", enqueue_cuda_); }

}  // namespace ccfast
