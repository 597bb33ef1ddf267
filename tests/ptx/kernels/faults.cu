// Kernels that use memory or barriers wrongly, each with a correct one.
#include <cstdint>

struct Padded {
  int number;
  char letter;  // and three bytes of padding
};

__global__ void write_beyond(int* data) { data[threadIdx.x + 1] = 1; }
__global__ void read_before(int* data) { data[threadIdx.x] = data[static_cast<int>(threadIdx.x) - 1]; }
__global__ void write_within(int* data) { data[threadIdx.x] = 1; }

__global__ void read_misaligned(int* data) {
  const char* bytes = reinterpret_cast<const char*>(data) + 2;
  data[threadIdx.x] = *reinterpret_cast<const int*>(bytes);
}
__global__ void read_misaligned_pair(int* data) {
  const int2 pair = *reinterpret_cast<const int2*>(data + 1);
  data[threadIdx.x] = pair.x + pair.y;
}

__global__ void add_unwritten(int* data) {
  extern __shared__ int shared_values[];
  data[threadIdx.x] = shared_values[threadIdx.x] + 1;
}
__global__ void add_what_a_quarter_wrote(int* data) {
  extern __shared__ int shared_values[];
  if (threadIdx.x % 4 == 0) shared_values[threadIdx.x] = 1;
  __syncthreads();
  data[threadIdx.x] = shared_values[threadIdx.x ^ 1] + 1;
}
__global__ void branch_on_unwritten(int* data) {
  extern __shared__ int shared_values[];
  if (shared_values[threadIdx.x]) data[threadIdx.x] = 1;
}
__global__ void add_atomically_to_unwritten(int*) {
  extern __shared__ int shared_values[];
  atomicAdd(shared_values, 1);
}
__global__ void copy_padding(int* data) {  // a copy of an unwritten value that is never used is no error
  extern __shared__ Padded shared_records[];
  Padded* mine = shared_records + 2 * threadIdx.x;
  mine[0].number = 5;
  mine[0].letter = 1;
  mine[1] = mine[0];
  data[threadIdx.x] = mine[1].number + mine[1].letter;
}
__global__ void write_beyond_shared(int*) {
  extern __shared__ int shared_values[];
  shared_values[threadIdx.x + 1] = 1;
}

__global__ void barrier_of_some(int* data) {
  if (data[threadIdx.x] == 0)
    __syncthreads();
  else
    data[threadIdx.x] = 2;
}
__global__ void two_barriers(int* data) {
  if (data[threadIdx.x] == 0) {
    __syncthreads();
    data[threadIdx.x] = 1;
  } else {
    __syncthreads();
    data[threadIdx.x] = 2;
  }
}
__global__ void shuffle_of_some(int* data) {
  if (threadIdx.x % 2) return;
  data[threadIdx.x] = __shfl_sync(0xffffffffu, data[threadIdx.x], 0);
}
__global__ void never_ends(volatile int* data) {
  while (data[0] == 0) {
  }
}
