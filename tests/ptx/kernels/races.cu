// Kernels with a race, each with one that does the same without it. One thread per element.
#include <cstdint>

__device__ int64_t own() { return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; }

// --- a forest: every element shall point at its root ---

__device__ int find_and_halve(volatile int* parent, int i) {
  int up = parent[i];
  while (up != i) {
    const int above = parent[up];
    parent[i] = above;  // another thread may have put the root here meanwhile
    i = up;
    up = above;
  }
  return i;
}

__global__ void flatten_and_halve(volatile int* parent) {
  const int i = static_cast<int>(own());
  parent[i] = find_and_halve(parent, i);
}

__global__ void flatten(volatile int* parent) {
  const int i = static_cast<int>(own());
  int root = i;
  for (int up = parent[root]; up != root; up = parent[root]) root = up;
  parent[i] = root;
}

// --- a block in shared memory, reversed ---

__global__ void turn_without_barrier(int* data) {
  extern __shared__ int shared_values[];
  shared_values[threadIdx.x] = data[own()];
  data[own()] = shared_values[blockDim.x - 1 - threadIdx.x];
}

__global__ void turn(int* data) {
  extern __shared__ int shared_values[];
  shared_values[threadIdx.x] = data[own()];
  __syncthreads();
  data[own()] = shared_values[blockDim.x - 1 - threadIdx.x];
}

// Enough for one round; in the next one, fast threads overwrite values before slow ones read them.
__global__ void turn_twice_with_two_barriers(int* data) {
  extern __shared__ int shared_values[];
  for (int round = 0; round < 2; ++round) {
    shared_values[threadIdx.x] = data[own()];
    __syncthreads();
    data[own()] = shared_values[blockDim.x - 1 - threadIdx.x] + round;
  }
}

__global__ void turn_twice(int* data) {
  extern __shared__ int shared_values[];
  for (int round = 0; round < 2; ++round) {
    __syncthreads();
    shared_values[threadIdx.x] = data[own()];
    __syncthreads();
    data[own()] = shared_values[blockDim.x - 1 - threadIdx.x] + round;
  }
}

// --- neighbours within a warp ---

__global__ void swap_without_syncwarp(int* data) {
  extern __shared__ int shared_values[];
  shared_values[threadIdx.x] = data[own()];
  __shfl_sync(0xffffffffu, 0, 0);  // does not order memory
  data[own()] = static_cast<volatile int*>(shared_values)[threadIdx.x ^ 1];
}

__global__ void swap(int* data) {
  extern __shared__ int shared_values[];
  shared_values[threadIdx.x] = data[own()];
  __syncwarp();
  data[own()] = shared_values[threadIdx.x ^ 1];
}

// 16 lanes wait for each other: enough for a neighbour in the same half.
__global__ void swap_halves_of_warps(int* data) {
  extern __shared__ int shared_values[];
  shared_values[threadIdx.x] = data[own()];
  __syncwarp(threadIdx.x % 32 < 16 ? 0xffffu : 0xffff0000u);
  data[own()] = shared_values[threadIdx.x ^ 1];
}

// But not enough for one in the other half.
__global__ void swap_across_halves(int* data) {
  extern __shared__ int shared_values[];
  shared_values[threadIdx.x] = data[own()];
  __syncwarp(threadIdx.x % 32 < 16 ? 0xffffu : 0xffff0000u);
  data[own()] = shared_values[threadIdx.x ^ 16];
}

// --- a count of all threads ---

__global__ void count_plainly(int* data) { data[0] += 1; }
__global__ void count(int* data) { atomicAdd(data, 1); }

// --- parts of a word ---

__global__ void write_same_byte(uint8_t* data) { data[own() / 2] = static_cast<uint8_t>(own()); }
__global__ void write_own_byte(uint8_t* data) { data[own()] = static_cast<uint8_t>(own()); }

// --- a message from the first block to the second; data[0] is the flag ---

__device__ void await(int* data) {
  while (atomicAdd(data, 0) == 0) {
  }
}

__global__ void message_without_fence(int* data) {
  if (threadIdx.x) return;
  if (blockIdx.x == 0) {
    data[1] = 7;
    atomicExch(data, 1);
  } else {
    await(data);
    data[2] = data[1];
  }
}

__global__ void message(int* data) {
  if (threadIdx.x) return;
  if (blockIdx.x == 0) {
    data[1] = 7;
    __threadfence();
    atomicExch(data, 1);
  } else {
    await(data);
    __threadfence();
    data[2] = data[1];
  }
}

// After a barrier, one thread may announce what the whole block wrote before it.
__global__ void message_of_a_block(int* data) {
  if (blockIdx.x == 0) {
    data[1 + threadIdx.x] = static_cast<int>(threadIdx.x);
    __syncthreads();
    if (threadIdx.x == 0) {
      __threadfence();
      atomicExch(data, 1);
    }
  } else {
    if (threadIdx.x == 0) {
      await(data);
      __threadfence();
    }
    __syncthreads();
    data[1 + blockDim.x + threadIdx.x] = data[blockDim.x - threadIdx.x];
  }
}
