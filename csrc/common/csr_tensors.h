// Compressed sparse rows as tensors.
#pragma once

#include <ATen/ATen.h>

#include <tuple>
#include <vector>

#include "csr.h"

namespace ccfast {

// crow, col, values.
using CsrTensors = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

// View of int64 crow and col and float32 values on the CPU. The tensors must outlive it.
Csr csr_view(const at::Tensor& crow, const at::Tensor& col, const at::Tensor& values);
// Tensors of the chunks' rows on the CPU; each chunk is freed when it has been copied.
CsrTensors csr_tensors(std::vector<CsrChunk> chunks, int64_t rows);

}  // namespace ccfast
