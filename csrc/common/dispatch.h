// Calls from one op's glue to another op: through the dispatcher, so that each device's kernel is found by itself.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <optional>
#include <string_view>
#include <tuple>
#include <vector>

#include "csr.h"

namespace ccfast {

// crow, col, values.
using CsrTensors = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

// Signatures of the ops that others are composed of; the schemas are in bindings.cpp.
using KnnSignature = std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const std::optional<at::Tensor>&, int64_t,
                                                        std::string_view, std::optional<int64_t>);
using NormsSignature = at::Tensor(const at::Tensor&);
using EncodeSignature = CsrTensors(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t,
                                   const std::optional<at::Tensor>&, const std::optional<at::Tensor>&, int64_t,
                                   std::optional<int64_t>, const std::optional<at::Tensor>&);
using ExpandSignature = CsrTensors(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t);
using SparseSignature = CsrTensors(const at::Tensor&, const at::Tensor&, const at::Tensor&, double, int64_t,
                                   std::optional<int64_t>);
using DenseSignature = at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&, int64_t, int64_t, int64_t,
                                  int64_t);

template <class Signature>
auto find_op(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

// View of int64 crow and col and float32 values on the CPU. The tensors must outlive it.
Csr csr_view(const at::Tensor& crow, const at::Tensor& col, const at::Tensor& values);
// Tensors of the chunks' rows on the CPU; the chunks are freed on the way.
CsrTensors csr_tensors(std::vector<CsrChunk> chunks, int64_t rows);

}  // namespace ccfast
