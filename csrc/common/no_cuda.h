// The error that an extension without CUDA kernels raises for a CUDA tensor.
#pragma once

namespace ccfast {

// Makes every op of ccfast that has no CUDA kernel raise NotImplementedError for CUDA tensors and name the command that
// builds the kernels. Called once, when all ops are registered.
void refuse_cuda_tensors();

}  // namespace ccfast
