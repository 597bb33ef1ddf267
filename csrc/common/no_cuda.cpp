#include "no_cuda.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

namespace ccfast {
namespace {

void refuse(const c10::OperatorHandle& op, torch::jit::Stack*) {
  TORCH_CHECK_NOT_IMPLEMENTED(false, op.operator_name().name,
                              ": got a CUDA tensor, but this ccfast was built without its CUDA kernels; to build them, "
                              "run in ccfast's folder: CCFAST_CUDA=1 pip install --no-build-isolation -e .");
}

}  // namespace

void refuse_cuda_tensors() {
  static torch::Library library(torch::Library::IMPL, "ccfast", c10::DispatchKey::CUDA, __FILE__, __LINE__);
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const c10::OperatorName& name : dispatcher.getAllOpNames()) {
    if (name.getNamespace() != "ccfast") continue;
    if (dispatcher.findSchemaOrThrow(name.name.c_str(), name.overload_name.c_str())
            .hasKernelForDispatchKey(c10::DispatchKey::CUDA))
      continue;
    library.impl(name.name.c_str(), torch::CppFunction::makeFromBoxedFunction<&refuse>());
  }
}

}  // namespace ccfast
