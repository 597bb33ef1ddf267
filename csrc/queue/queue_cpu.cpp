#include <algorithm>
#include <cstring>

#include "queue.h"

namespace ccfast::queue {
namespace {

template <class T>
void copy_rows(const T* from, T* to, int64_t rows, int64_t dim) {
  std::memmove(to, from, static_cast<size_t>(rows * dim) * sizeof(T));
}

}  // namespace

template <class T>
void enqueue_ring(const Params<T>& params, int64_t* pointer) {
  const int64_t before_the_end = std::min(params.count, params.size - *pointer);
  copy_rows(params.rows, params.queue + *pointer * params.dim, before_the_end, params.dim);
  copy_rows(params.rows + before_the_end * params.dim, params.queue, params.count - before_the_end, params.dim);
  *pointer = (*pointer + params.count) % params.size;
}

template <class T>
void enqueue_front(const Params<T>& params) {
  copy_rows(params.queue, params.queue + params.count * params.dim, params.size - params.count, params.dim);
  copy_rows(params.rows, params.queue, params.count, params.dim);
}

template void enqueue_ring(const Params<float>&, int64_t*);
template void enqueue_ring(const Params<double>&, int64_t*);
template void enqueue_front(const Params<float>&);
template void enqueue_front(const Params<double>&);

}  // namespace ccfast::queue
