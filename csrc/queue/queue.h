// A queue of rows: a ring that is written at a pointer, or rows that move down to make room in front.
#pragma once

#include <cstdint>

namespace ccfast::queue {

template <class T>
struct Params {
  T* queue;       // [size, dim], in place
  const T* rows;  // [count, dim], count <= size
  int64_t size, count, dim;
};

// queue[(pointer + i) mod size] = rows[i]; then pointer = (pointer + count) mod size. pointer in [0, size).
template <class T>
void enqueue_ring(const Params<T>& params, int64_t* pointer);

// The rows of the queue move down by `count`, its last `count` rows are dropped, and `rows` come first.
template <class T>
void enqueue_front(const Params<T>& params);

// ---- CUDA: the pointer is in device memory, and taken modulo size ----

template <class T>
void enqueue_ring_cuda(const Params<T>& params, int64_t* pointer, void* stream);
template <class T>
void enqueue_front_cuda(const Params<T>& params, void* stream);

}  // namespace ccfast::queue
