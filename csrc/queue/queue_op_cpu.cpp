// Glue of ccfast::enqueue_ for CPU tensors.
#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <torch/library.h>

#include <optional>

#include "arguments.h"
#include "queue.h"

namespace ccfast {
namespace {

void enqueue_cpu_(at::Tensor& queue, const std::optional<at::Tensor>& pointer, const at::Tensor& rows) {
  queue::check_arguments(queue, pointer, rows);
  const at::Tensor written = queue.contiguous(), x = rows.contiguous();
  int64_t* place = pointer ? pointer->mutable_data_ptr<int64_t>() : nullptr;
  TORCH_CHECK_VALUE(!place || (*place >= 0 && *place < queue.size(0)), "pointer: expected a value in [0, ",
                    queue.size(0), "), got ", place ? *place : 0);
  AT_DISPATCH_FLOATING_TYPES(queue.scalar_type(), "enqueue_", [&] {
    const queue::Params<scalar_t> params{written.mutable_data_ptr<scalar_t>(), x.const_data_ptr<scalar_t>(),
                                         queue.size(0), x.size(0), x.size(1)};
    place ? queue::enqueue_ring(params, place) : queue::enqueue_front(params);
  });
  queue::finish(queue, written);
}

}  // namespace

TORCH_LIBRARY_IMPL(ccfast, CPU, m) { m.impl("enqueue_", enqueue_cpu_); }

}  // namespace ccfast
