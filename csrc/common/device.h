// What the glue of the CUDA kernels needs from torch: the current device and stream. In the emulated build the same
// glue serves CPU tensors, and there is no stream.
#pragma once

#include <ATen/ATen.h>

#include "autocast.h"
#include "subnormals.h"

#ifdef CCFAST_EMULATE
#define CCFAST_DEVICE_KEY CPU
#else
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#define CCFAST_DEVICE_KEY CUDA
#endif

namespace ccfast {

// While it lives, the tensor's device is current, kernels go to that device's current stream, and autocast is off.
class DeviceScope {
 public:
#ifdef CCFAST_EMULATE
  explicit DeviceScope(const at::Tensor&) {}
  void* stream() const { return nullptr; }

 private:
  WithSubnormals with_subnormals_;  // as on a GPU
#else
  explicit DeviceScope(const at::Tensor& tensor) : guard_(tensor.device()) {}
  void* stream() const { return c10::cuda::getCurrentCUDAStream().stream(); }

 private:
  c10::cuda::CUDAGuard guard_;
#endif
  NoAutocast no_autocast_;
};

}  // namespace ccfast
