#include "parallel.h"

#include <ATen/Parallel.h>

namespace ccfast {

void parallel_for(int64_t n, int64_t grain, void (*body)(const void*, int64_t, int64_t), const void* closure) {
  at::parallel_for(0, n, grain, [=](int64_t begin, int64_t end) { body(closure, begin, end); });
}

int64_t num_threads() { return at::get_num_threads(); }

}  // namespace ccfast
