// CUDA kernel of scale_rows; the contract is in scaling.h.
#include "../common/cuda.cuh"
#include "scaling.h"

namespace ccfast::scaling {
namespace {

constexpr int kThreads = 256;

// One block per row.
template <class T>
__global__ void scale_rows_kernel(Params<T> params) {
  const int64_t start = blockIdx.x * params.dim;
  const T factor = params.factors[blockIdx.x];
  for (int64_t d = threadIdx.x; d < params.dim; d += blockDim.x)
    params.out[start + d] = factor * params.features[start + d];
}

}  // namespace

template <class T>
void scale_rows_cuda(const Params<T>& params, void* stream) {
  launch("scaling scale_rows", scale_rows_kernel<T>, params.rows, kThreads, 0, stream, params);
}

template void scale_rows_cuda(const Params<float>&, void*);
template void scale_rows_cuda(const Params<double>&, void*);

}  // namespace ccfast::scaling
