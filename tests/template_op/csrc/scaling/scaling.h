// Multiplies each row of a matrix by a factor.
#pragma once

#include <cstdint>

namespace ccfast::scaling {

template <class T>
struct Params {
  const T* features;  // [rows, dim]
  const T* factors;   // [rows]
  int64_t rows, dim;
  T* out;  // [rows, dim]
};

template <class T>
void scale_rows(const Params<T>& params);

// stream: a cudaStream_t.
template <class T>
void scale_rows_cuda(const Params<T>& params, void* stream);

}  // namespace ccfast::scaling
