// CUDA kernels that prepare the nearest-neighbour search and finish its lists; the contract is in knn.h.
#include <algorithm>

#include "candidates.cuh"

namespace ccfast::knn {
namespace {

constexpr int kThreads = 256;

// One warp per row. Rows of padding have no dimensions and are filled with zeros.
__global__ void prepare_kernel(PrepareParams params) {
  const int64_t row = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  if (row >= max(params.rows, params.padded_rows)) return;
  const bool padding = row >= params.rows;
  const float* values = params.matrix + (padding ? 0 : row * params.dim);
  const int64_t dim = padding ? 0 : params.dim, width = params.half ? params.padded_dim : dim;
  const bool quads = in_packs(params.matrix, dim);
  double squares = 0, lost = 0;
  for (int64_t d = kQuad * (threadIdx.x % kWarp); d < width; d += kQuad * kWarp) {
    const Pack<float, kQuad> quad =
        quads && d < dim ? load_part<kQuad, true>(values, d, dim) : load_part<kQuad, false>(values, d, dim);
    Pack<__half, kQuad> halves;
    for (int e = 0; e < kQuad; ++e) {
      const double value = static_cast<double>(quad.value[e]) * params.scale;
      squares += value * value;
      if (params.single && d + e < dim) params.single[row * dim + d + e] = static_cast<float>(value);
      halves.value[e] = __float2half_rn(static_cast<float>(value));
      const double difference = value - static_cast<double>(to_float(halves.value[e]));
      lost += difference * difference;
    }
    if (params.half)
      *reinterpret_cast<Pack<__half, kQuad>*>(static_cast<__half*>(params.half) + row * params.padded_dim + d) = halves;
  }
  squares = warp_sum(squares);
  lost = warp_sum(lost);
  if (threadIdx.x % kWarp != 0 || padding) return;
  params.norms[row] = squares;
  params.half_norms[row] = static_cast<float>(squares / 2);
  params.rounding[row] = params.half ? sqrt(lost) : 0;
}

// A lane transposes a square of kQuad x kQuad products. The squares of a warp are arranged in kSquareRows rows and
// kSquareColumns columns, so that each load and store covers whole sectors; a warp takes kSteps such patches, side by
// side.
constexpr int kSquareRows = 4, kSquareColumns = 8, kSteps = 4;
static_assert(kSquareRows * kSquareColumns == kWarp);
constexpr int kBlockRows = kThreads / kWarp * kSquareRows * kQuad, kBlockColumns = kSteps * kSquareColumns * kQuad;

template <class T>
__device__ void turn(const TransposeParams& params, int64_t row, int64_t col, bool quads) {
  const ProductTile& tile = params.tile;
  const T* products = static_cast<const T*>(tile.products) + row * tile.ld + col;
  T* out = static_cast<T*>(params.out) + col * params.ld + row;
  if (quads && row + kQuad <= tile.rows && col + kQuad <= tile.cols) {
    Pack<T, kQuad> rows[kQuad];
    for (int r = 0; r < kQuad; ++r) rows[r] = load_pack<kQuad>(products + r * tile.ld);
    for (int c = 0; c < kQuad; ++c) {
      Pack<T, kQuad> column;
      for (int r = 0; r < kQuad; ++r) column.value[r] = rows[r].value[c];
      store_pack(out + c * params.ld, column);
    }
  } else {
    for (int r = 0; r < kQuad && row + r < tile.rows; ++r)
      for (int c = 0; c < kQuad && col + c < tile.cols; ++c) out[c * params.ld + r] = products[r * tile.ld + c];
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) transpose_kernel(TransposeParams params) {
  const int across = static_cast<int>((params.tile.cols + kBlockColumns - 1) / kBlockColumns);
  const int block = static_cast<int>(blockIdx.x), warp = threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const int64_t row = block / across * kBlockRows + (warp * kSquareRows + lane / kSquareColumns) * kQuad;
  const int64_t col = block % across * kBlockColumns + lane % kSquareColumns * kQuad;
  constexpr unsigned kBytes = kQuad * sizeof(T);
  const bool quads = (reinterpret_cast<uintptr_t>(params.tile.products) % kBytes | params.tile.ld % kQuad |
                      reinterpret_cast<uintptr_t>(params.out) % kBytes | params.ld % kQuad) == 0;
  CCFAST_UNROLL(2)
  for (int step = 0; step < kSteps; ++step) turn<T>(params, row, col + step * kSquareColumns * kQuad, quads);
}

// One thread per list. In nearly all lists the row is first already.
__global__ void put_own_first_kernel(OwnFirstParams params) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (row >= params.rows) return;
  int64_t* list = params.indices + row * params.k;
  const int64_t own = params.first + row;
  int64_t at = 0;
  while (at < params.k - 1 && list[at] != own) ++at;
  for (; at > 0; --at) list[at] = list[at - 1];
  list[0] = own;
}

int64_t blocks_of_warps(int64_t warps) { return blocks_for(warps * kWarp, kThreads); }

template <class T>
void launch_transpose(const TransposeParams& params, void* stream) {
  const int64_t down = blocks_for(params.tile.rows, kBlockRows), across = blocks_for(params.tile.cols, kBlockColumns);
  launch("knn transpose", transpose_kernel<T>, down * across, kThreads, 0, stream, params);
}

}  // namespace

void prepare_cuda(const PrepareParams& params, void* stream) {
  launch("knn prepare", prepare_kernel, blocks_of_warps(std::max(params.rows, params.half ? params.padded_rows : 0)),
         kThreads, 0, stream, params);
}

void transpose_cuda(const TransposeParams& params, void* stream) {
  params.tile.half ? launch_transpose<__half>(params, stream) : launch_transpose<float>(params, stream);
}

void put_own_first_cuda(const OwnFirstParams& params, void* stream) {
  launch("knn put_own_first", put_own_first_kernel, blocks_for(params.rows, kThreads), kThreads, 0, stream, params);
}

}  // namespace ccfast::knn
